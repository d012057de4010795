"""Tables of notify. They hold neither names nor addresses."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import BigInteger, Index
from sqlalchemy import Table as CoreTable
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import Utc
from backbone.database.messaging_tables import messaging_tables


class Table(SQLModel, registry=registry()):
    """The tables of notify, apart from every other service's."""


MESSAGING_TABLES: Final = messaging_tables(Table.metadata)


class Receipt(Table, table=True):
    """A receipt owed for one donation; `due_at` is when it is next tried, None once it is settled."""

    __tablename__ = "receipts"
    __table_args__ = (Index("receipts_by_due", "due_at"), {"sqlite_with_rowid": False})

    payment_id: str = Field(primary_key=True)
    pledge_id: str
    drive_id: str
    amount: int = Field(sa_type=BigInteger)
    currency: str
    counted_at: datetime = Field(sa_type=Utc)
    status: str
    tries: int
    due_at: datetime | None = Field(sa_type=Utc)
    reason: str | None


RECEIPTS: Final = cast(CoreTable, cast(Any, Receipt).__table__)
