"""Handlers of payments' events: the status of a pledge follows the states of its payments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from backbone.contracts.payments import ExchangeRateSet, PaymentChanged, PaymentStatus, nearest_status
from backbone.contracts.pledges import PledgeChanged, PledgeStatus
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction, Transaction
from backbone.messaging.consumer import Handlers
from backbone.messaging.outbox import announce_in
from services.pledges.domain import current_status
from services.pledges.rates import store_rates
from services.pledges.tables import PAYMENTS, PLEDGES
from services.pledges.views import pledge_changed


def _upsert(statement: Any) -> Any:
    """Insert the state of a payment, or replace an older version."""
    replaced = {name: statement.excluded[name] for name in PAYMENTS.columns.keys() if name != "id"}  # noqa: SIM118
    newer = PAYMENTS.c.version < statement.excluded.version
    return statement.on_conflict_do_update(index_elements=["id"], set_=replaced, where=newer)


# Built once: building a statement costs more than executing it.
_LOCK_PLEDGES: Final = (
    select(PLEDGES).where(one_of(PLEDGES.c.id, "ids")).order_by(PLEDGES.c.id).with_for_update()
)
_UPSERT_PAYMENT: Final[Mapping[str, Any]] = {
    "sqlite": _upsert(sqlite.insert(PAYMENTS)),
    "postgresql": _upsert(postgresql.insert(PAYMENTS)),
}
_PAYMENT_STATUSES: Final = select(
    PAYMENTS.c.pledge_id, PAYMENTS.c.status, PAYMENTS.c.captured, PAYMENTS.c.refunded, PAYMENTS.c.disputed
).where(one_of(PAYMENTS.c.pledge_id, "ids"))
_UPDATE_STATUS: Final = (
    update(PLEDGES)
    .where(PLEDGES.c.id == bindparam("pledge"))
    .values(status=bindparam("now"), version=bindparam("at"))
)


async def update_pledge_statuses(events: Sequence[PaymentChanged], session: Transaction) -> None:
    """Store the newest state of each payment, and update and announce the pledges whose status changes.

    An older version changes nothing, so repeated and reordered events have the same result.
    """
    await session.run_sync(_update_pledge_statuses, events)


def _update_pledge_statuses(transaction: SyncTransaction, events: Sequence[PaymentChanged]) -> None:
    """Synchronous: awaiting each statement would cost as much as executing it."""
    newest: dict[str, PaymentChanged] = {}
    for event in events:
        known = newest.get(event.payment_id)
        if known is None or event.version > known.version:
            newest[event.payment_id] = event
    pledge_ids = sorted({event.pledge_id for event in newest.values() if event.pledge_id is not None})
    pledges = transaction.execute(_LOCK_PLEDGES, {"ids": pledge_ids}).all()
    rows = [_payment_row(newest[payment]) for payment in sorted(newest)]
    transaction.execute(_UPSERT_PAYMENT[transaction.dialect.name], rows)
    if changed := _changed_pledges(transaction, pledges):
        transaction.execute(
            _UPDATE_STATUS,
            [{"pledge": one.pledge_id, "now": str(one.status), "at": one.version} for one in changed],
        )
        announce_in(transaction, changed)


def _payment_row(event: PaymentChanged) -> dict[str, Any]:
    return {
        "id": event.payment_id,
        "pledge_id": event.pledge_id,
        "drive_id": event.drive_id,
        "version": event.version,
        "status": str(event.status),
        "currency": event.captured.currency,
        "captured": event.captured.minor_units,
        "refunded": event.refunded.minor_units,
        "disputed": event.disputed.minor_units,
        "offline": event.offline,
    }


def _changed_pledges(transaction: SyncTransaction, pledges: Sequence[Row[Any]]) -> list[PledgeChanged]:
    """Those of `pledges` whose payments imply another status."""
    payments: dict[str, list[PaymentStatus]] = {row.id: [] for row in pledges}
    for pledge_id, status, *amounts in transaction.execute(_PAYMENT_STATUSES, {"ids": list(payments)}):
        payments[pledge_id].append(nearest_status(status, *amounts))
    cancelled = PledgeStatus.CANCELLED.value
    return [
        pledge_changed(row, status)
        for row in pledges
        if (status := current_status(payments[row.id], cancelled=row.status == cancelled)) != row.status
    ]


HANDLERS: Final[Handlers] = {PaymentChanged: update_pledge_statuses, ExchangeRateSet: store_rates}
