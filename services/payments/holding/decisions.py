"""Decisions of persons about payments, stored in the transaction of what they decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import insert

from backbone.database.transaction import Transaction
from backbone.http.caller import Caller
from services.payments.holding.tables import DECISIONS
from services.payments.recording.rows import PaymentRow


@dataclass(frozen=True, slots=True)
class DecidedBy:
    """The API key with which a person decided, and its partner."""

    key_id: str
    partner: str

    @classmethod
    def caller(cls, caller: Caller) -> DecidedBy:
        """The key of this caller."""
        return cls(caller.key_id, caller.partner)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where a payment counts: its drive, and the creator it is credited to."""

    drive_id: str
    creator_id: str | None

    @classmethod
    def of(cls, row: PaymentRow) -> Attribution:
        """Where this payment counts, or would."""
        return cls(row.drive_id, row.creator_id)


async def note_release(
    session: Transaction, row: PaymentRow, before: Attribution, by: DecidedBy, note: str, at: datetime
) -> None:
    """Store who released a payment, from which drive to the one it has now; called before it is restated."""
    to = Attribution.of(row)
    values = {
        "payment_id": row.id, "kind": "release", "key_id": by.key_id, "partner": by.partner, "note": note,
        "at": at, "held_reason": row.held_reason, "from_drive": before.drive_id,
        "from_creator": before.creator_id, "to_drive": to.drive_id, "to_creator": to.creator_id,
    }  # fmt: skip
    await session.execute(_INSERT, [values])


async def note_refund(
    session: Transaction, payment_id: str, refund_id: str, by: DecidedBy, note: str | None, at: datetime
) -> None:
    """Store who refunded a payment."""
    values = {
        "payment_id": payment_id, "kind": "refund", "key_id": by.key_id, "partner": by.partner, "note": note,
        "at": at, "refund_id": refund_id,
    }  # fmt: skip
    await session.execute(_INSERT, [values])


_INSERT: Final = insert(DECISIONS)
