"""What the tables of everything that is approved have in common, and who decided what."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Column, Index
from sqlmodel import Field

from backbone.database.columns import BIGINT_KEY, Utc
from services.payments.tables import Table, table_of


class Proposal(Table):
    """The columns of what one key records and another approves.

    `partner` owns the drive, and `test` is whether that is a test drive. `asked_by` is the key whose request
    is to be decided: the one that recorded it, then the one that requested its reversal.
    """

    id: str = Field(primary_key=True)
    drive_id: str
    partner: str | None
    test: bool
    status: str
    asked_by: str
    made_at: datetime = Field(sa_type=Utc)


class Approval(Table, table=True):
    """One step of the history of a proposal, and the key that took it. Rows are never changed."""

    __tablename__ = "approvals"
    __table_args__ = (Index("approvals_of_subject", "subject", "number"), {"sqlite_autoincrement": True})

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    subject: str
    action: str
    key_id: str
    partner: str
    reason: str | None
    at: datetime = Field(sa_type=Utc)


APPROVALS: Final = table_of(Approval)
