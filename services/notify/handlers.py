"""Event handlers: each counted donation that came from a pledge is owed a receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite

from backbone.contracts.leaderboard import DriveLogged
from backbone.database.transaction import Transaction
from backbone.messaging.consumer import Handlers
from services.notify.domain import ReceiptStatus
from services.notify.tables import RECEIPTS

_INSERT: Final[Mapping[str, Insert]] = {
    "sqlite": sqlite.insert(RECEIPTS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(RECEIPTS).on_conflict_do_nothing(),
}


async def queue_receipts(events: Sequence[DriveLogged], session: Transaction) -> None:
    """Owe a receipt, once a payment, for each counted donation that came from a pledge."""
    rows = [row for event in events if (row := _receipt_row(event)) is not None]
    if rows:
        await session.execute(_INSERT[session.dialect.name], rows)


def _receipt_row(event: DriveLogged) -> dict[str, Any] | None:
    amount = event.given or event.amount
    if event.type != "donation.counted" or not event.pledge_id or not event.payment_id or amount is None:
        return None
    return {
        "payment_id": event.payment_id,
        "pledge_id": event.pledge_id,
        "drive_id": event.drive_id,
        "amount": amount.minor_units,
        "currency": amount.currency,
        "counted_at": event.at,
        "status": ReceiptStatus.DUE.value,
        "tries": 0,
        "due_at": event.at,
        "reason": None,
    }


HANDLERS: Final[Handlers] = {DriveLogged: queue_receipts}
