"""The table of decisions about payments."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Column
from sqlmodel import Field

from backbone.database.columns import BIGINT_KEY, Utc
from services.payments.tables import Table, table_of


class Decision(Table, table=True):
    """What a person decided about a payment; rows are only ever added.

    `kind` is `release` (it counts from now on, in `to_drive` for `to_creator`; before, it was held for
    `held_reason` in `from_drive`) or `refund` (`refund_id`). `key_id` and `partner` are those of the API key.
    """

    __tablename__ = "payment_decisions"
    __table_args__ = ({"sqlite_autoincrement": True},)

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    payment_id: str = Field(index=True)
    kind: str
    key_id: str
    partner: str
    note: str | None
    at: datetime = Field(sa_type=Utc)
    held_reason: str | None
    from_drive: str | None
    from_creator: str | None
    to_drive: str | None
    to_creator: str | None
    refund_id: str | None


DECISIONS: Final = table_of(Decision)
