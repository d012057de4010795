"""The table of refunds that a second key decides."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Index, text
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.tables import Table, table_of

TO_DECIDE: Final = "status = 'pending'"
"""Refunds that wait for a second key: the condition of a partial index, which statements repeat literally."""


class LargeRefund(Table, table=True):
    """A refund past the threshold; `id` is that of its row in `refunds`, whose `state` is unapproved until it
    is decided.

    `status` is pending → approved | rejected (approvals/states.py); the steps are in `approvals`. `asked_by`
    is the key that asked for it at `made_at`, `reason` what it gave as the reason.
    """

    __tablename__ = "large_refunds"
    __table_args__ = (
        Index("large_refunds_of_payment", "payment_id"),
        Index(
            "large_refunds_to_decide",
            "id",
            "made_at",
            sqlite_where=text(TO_DECIDE),
            postgresql_where=text(TO_DECIDE),
        ),
    )

    id: str = Field(primary_key=True)
    payment_id: str
    status: str
    asked_by: str
    reason: str | None
    made_at: datetime = Field(sa_type=Utc)


LARGE_REFUNDS: Final = table_of(LargeRefund)
