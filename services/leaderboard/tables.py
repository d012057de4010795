"""Tables of leaderboard. Amounts are in minor units, in the drive's currency unless a column names one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import JSON, BigInteger, Column, Index
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import Utc
from backbone.database.messaging_tables import messaging_tables


class Table(SQLModel, registry=registry()):
    """Tables of this service, with their own metadata."""

    __table_args__: ClassVar[Any] = {"sqlite_with_rowid": False}


def _amount() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class Drive(Table, table=True):
    """A drive and its figures; `version` 0 is a placeholder, made by a payment consumed before the drive.

    raised = captured + offline + matched − refunded − disputed. `head_hash` is the hash of the last row of
    the log. `revision` rises when public figures change without a row in the log.
    """

    __tablename__ = "drives"
    __table_args__ = (Index("drives_by_slug", "slug"), {"sqlite_with_rowid": False})

    drive_id: str = Field(primary_key=True)
    version: int = 0
    state: str | None = None
    slug: str | None = None
    title: Any = Field(default=None, sa_column=Column(JSON))
    currency: str | None = None
    goal: int = _amount()
    milestones: Any = Field(default=None, sa_column=Column(JSON, nullable=False))
    test: bool = False
    epoch: int = 1
    sequence: int = _amount()
    revision: int = _amount()
    head_hash: str = ""
    captured: int = _amount()
    refunded: int = _amount()
    disputed: int = _amount()
    offline: int = _amount()
    matched: int = _amount()
    pledged: int = _amount()
    donations: int = _amount()
    donors: int = _amount()
    changed_at: datetime | None = Field(default=None, sa_column=Column(Utc))


class Clearing(Table, table=True):
    """The processor's money of a drive in a currency: the net, and how much of it is held."""

    __tablename__ = "clearings"

    drive_id: str = Field(primary_key=True)
    currency: str = Field(primary_key=True)
    net: int = _amount()
    held: int = _amount()


class Creator(Table, table=True):
    """A creator's figures in a drive; `version` 0 is a placeholder.

    `reached_at` orders creators with equal amounts: the moment the creator reached the present amount,
    considering only payments that still count. It is the latest `captured_at` of the creator's counted
    payments with a net above 0. It follows from the newest states alone, so neither the order of delivery
    nor repeats change it.
    """

    __tablename__ = "creators"
    __table_args__ = (
        Index("creators_by_raised", "drive_id", "raised"),
        {"sqlite_with_rowid": False},
    )

    creator_id: str = Field(primary_key=True)
    drive_id: str
    version: int = 0
    slug: str | None = None
    name: str | None = None
    team: str | None = None
    raised: int = _amount()
    donations: int = _amount()
    reached_at: datetime | None = Field(default=None, sa_column=Column(Utc))


class Donor(Table, table=True):
    """The net of a donor's payments to a drive."""

    __tablename__ = "donors"

    drive_id: str = Field(primary_key=True)
    donor_id: str = Field(primary_key=True)
    net: int = _amount()


class Payment(Table, table=True):
    """The newest state of a counted payment; `counted` is False while its money is held.

    `captured_at` is the state's moment of capture, or of its change if it has none; NULL in rows written
    before migration 0002.
    """

    __tablename__ = "payments"
    __table_args__ = (
        Index("payments_by_creator", "creator_id", "captured_at"),
        {"sqlite_with_rowid": False},
    )

    payment_id: str = Field(primary_key=True)
    drive_id: str
    version: int
    pledge_id: str | None = None
    creator_id: str | None = None
    donor_id: str | None = None
    counted: bool
    currency: str
    captured: int = _amount()
    refunded: int = _amount()
    disputed: int = _amount()
    captured_at: datetime | None = Field(default=None, sa_column=Column(Utc))


class Pledge(Table, table=True):
    """The newest state of a pledge, part of `pledged` while open and unpaid; `version` 0: a placeholder."""

    __tablename__ = "pledges"

    pledge_id: str = Field(primary_key=True)
    drive_id: str
    version: int = 0
    open: bool = False
    paid: bool = False
    amount: int = _amount()


class LogRow(Table, table=True):
    """A row of a drive's gap-free log; `amount` is the size of the change. Rows are never deleted."""

    __tablename__ = "drive_log"

    drive_id: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    type: str
    at: datetime = Field(sa_column=Column(Utc, nullable=False))
    payment_id: str | None = None
    pledge_id: str | None = None
    creator_id: str | None = None
    amount: int | None = Field(default=None, sa_column=Column(BigInteger))
    raised_after: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    hash: str


class SecondCount(Table, table=True):
    """Donations counted in one second of a drive. Deleting rows older than a minute raises `revision`.

    A row of second 0 requests a publication: see `sequencer.request_publication`.
    """

    __tablename__ = "paces"
    __table_args__ = (Index("paces_by_age", "second"), {"sqlite_with_rowid": False})

    drive_id: str = Field(primary_key=True)
    second: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    donations: int = _amount()
    raised: int = _amount()


class DisplayText(Table, table=True):
    """Display texts of a pledge, copied from pledges and erased with the donor. No name: anonymous."""

    __tablename__ = "words"

    pledge_id: str = Field(primary_key=True)
    name: str | None = None
    message: str | None = None


MESSAGING_TABLES = messaging_tables(Table.metadata)

drives: Final = Table.metadata.tables["drives"]
clearings: Final = Table.metadata.tables["clearings"]
creators: Final = Table.metadata.tables["creators"]
donors: Final = Table.metadata.tables["donors"]
payments: Final = Table.metadata.tables["payments"]
pledges: Final = Table.metadata.tables["pledges"]
drive_log: Final = Table.metadata.tables["drive_log"]
second_counts: Final = Table.metadata.tables["paces"]
display_texts: Final = Table.metadata.tables["words"]
