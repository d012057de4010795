"""The table of the checkout queue's state."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column
from sqlmodel import Field

from backbone.database.columns import Utc
from services.payments.tables import Table, table_of


class Admission(Table, table=True):
    """The queue of this installation's account at the processor: one row, of the id 1.

    `front`, `rate` and `higher` are those of `estimates.Estimates`. `paused_at` is set while checkouts are
    paused, with the API key that did it and its note.
    """

    __tablename__ = "admission"
    __table_args__ = (CheckConstraint("id = 1", name="admission_one_row"),)

    id: int = Field(primary_key=True)
    front: int = Field(sa_type=BigInteger)
    rate: int = Field(sa_type=BigInteger)
    higher: Any = Field(sa_column=Column(JSON, nullable=False))
    paused_at: datetime | None = Field(default=None, sa_type=Utc)
    paused_by: str | None = None
    paused_note: str | None = None


ADMISSION: Final = table_of(Admission)
