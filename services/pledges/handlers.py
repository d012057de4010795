"""What pledges does with what payments says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.consumer import Handlers
from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import PledgeChanged, PledgeStatus, Source
from backbone.money import Money
from backbone.outbox import announce
from services.pledges.domain import pledge_status
from services.pledges.tables import PAYMENTS, PLEDGES


async def follow_payments(events: Sequence[PaymentChanged], session: AsyncSession) -> None:
    """Keep the newest state of each payment and let the pledges' statuses follow.

    An older version changes nothing, so repeats and reorderings end the same.
    """
    newest: dict[str, PaymentChanged] = {}
    for event in events:
        known = newest.get(event.payment_id)
        if known is None or event.version > known.version:
            newest[event.payment_id] = event
    pledge_ids = sorted({event.pledge_id for event in newest.values() if event.pledge_id is not None})
    pledges = await _locked(session, pledge_ids)
    await _keep(session, newest.values())
    await _restate(session, pledges)


async def _locked(session: AsyncSession, pledge_ids: Sequence[str]) -> Sequence[Row[Any]]:
    found = select(PLEDGES).where(PLEDGES.c.id.in_(pledge_ids)).order_by(PLEDGES.c.id).with_for_update()
    return (await session.execute(found)).all()


async def _keep(session: AsyncSession, events: Iterable[PaymentChanged]) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(PAYMENTS)
    replaced = {name: statement.excluded[name] for name in PAYMENTS.c.keys() if name != "id"}  # noqa: SIM118
    newer = PAYMENTS.c.version < statement.excluded.version
    await session.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_=replaced, where=newer),
        [_row(event) for event in sorted(events, key=lambda event: event.payment_id)],
    )


def _row(event: PaymentChanged) -> dict[str, Any]:
    return {
        "id": event.payment_id,
        "pledge_id": event.pledge_id,
        "drive_id": event.drive_id,
        "version": event.version,
        "status": event.status.value,
        "currency": event.captured.currency,
        "captured": event.captured.minor_units,
        "refunded": event.refunded.minor_units,
        "disputed": event.disputed.minor_units,
    }


async def _restate(session: AsyncSession, pledges: Sequence[Row[Any]]) -> None:
    """Write and announce the status of each pledge whose payments now say another one."""
    columns = PAYMENTS.c
    found = await session.execute(
        select(columns.pledge_id, columns.status).where(columns.pledge_id.in_([row.id for row in pledges]))
    )
    payments: dict[str, list[PaymentStatus]] = {row.id: [] for row in pledges}
    for pledge_id, status in found:
        payments[pledge_id].append(PaymentStatus(status))
    changed = [
        _changed(row, status) for row in pledges if (status := pledge_status(payments[row.id])) != row.status
    ]
    if not changed:
        return
    await session.execute(
        update(PLEDGES)
        .where(PLEDGES.c.id == bindparam("pledge"))
        .values(status=bindparam("now"), version=bindparam("at")),
        [{"pledge": one.pledge_id, "now": one.status.value, "at": one.version} for one in changed],
    )
    await announce(session, changed)


def _changed(row: Row[Any], status: PledgeStatus) -> PledgeChanged:
    known_source = row.platform is not None or row.campaign is not None
    return PledgeChanged(
        pledge_id=row.id,
        drive_id=row.drive_id,
        version=row.version + 1,
        status=status,
        amount=Money(row.amount, row.currency),
        donor_id=row.donor_id,
        creator_id=row.creator_id,
        source=Source(platform=row.platform, campaign=row.campaign) if known_source else None,
        partner=row.partner,
        checkout_mode=row.checkout_mode,
        locale=row.locale,
        test=row.test,
        made_at=row.made_at,
    )


HANDLERS: Final[Handlers] = {PaymentChanged: follow_payments}
