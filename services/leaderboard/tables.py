"""Tables of leaderboard. Amounts are in minor units, in the drive's currency unless a column names one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import JSON, BigInteger, Column, Index, false, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import Utc
from backbone.database.messaging_tables import messaging_tables


class Table(SQLModel, registry=registry()):
    """Tables of this service, with their own metadata."""

    __table_args__: ClassVar[Any] = {"sqlite_with_rowid": False}


def _amount() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


def _sum() -> Any:
    """An amount, or a number of donations, that was added to a table that had rows already."""
    return Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


def _utc() -> Any:
    return Field(default=None, sa_column=Column(Utc))


def _count() -> Any:
    return Field(default=0, sa_column_kwargs={"server_default": "0"})


NOT_FETCHED: Final = -1
"""`version` of a pledge whose texts were moderated before they were fetched."""

COUNTED: Final = "counted AND captured - refunded - disputed <> 0"
"""Payments that boards sum and lists of donations show: the condition of the index `payments_by_time`."""

PINNED: Final = "pinned_at IS NOT NULL"
"""Texts that a moderator pinned: the condition of the index `words_pinned`."""

UNRANKED: Final = "ranked_version <> version"
"""Payments whose rows a process of an earlier version wrote: the condition of `payments_unranked`."""
NEVER_SUMMED: Final = -1
"""`summed_number` of a drive whose boards are to be summed anew, from nothing."""


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def _ranking(window: str) -> Index:
    """The donors of a drive by amount, as far as they are on a board; enough to count those ahead."""
    raised = f"{window}raised"
    columns = ("drive_id", raised, "reached_at", "donor_id")
    return Index(f"donors_by_{raised}", *columns, **_where(f"{raised} > 0"))


class Drive(Table, table=True):
    """A drive and its figures; `version` 0 is a placeholder, made by a payment consumed before the drive.

    raised = captured + offline + matched − refunded − disputed. `head_hash` is the hash of the last row of
    the log. `revision` rises when public figures change without a row in the log.

    The boards' sums of donors, sources and windows contain the payments up to `summed_number` and are those
    of `summed_sequence`, or between two sequences where it is -1 (`standings.py`); the newest payment has
    `last_number`. The windows contain
    those captured after `day_from` and `hour_from`, which only move forward; none that is in a window was
    captured before `…_oldest`. `alias_salt` makes the public ids of unnamed donors.

    `alerts` is how overlays are to show alerts, as version `alerts_version` of `AlertsControlled` states it;
    None before the first control.
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
    last_number: int = _sum()
    summed_number: int = _sum()
    summed_sequence: int = _sum()
    day_from: datetime | None = _utc()
    day_oldest: datetime | None = _utc()
    hour_from: datetime | None = _utc()
    hour_oldest: datetime | None = _utc()
    alias_salt: str | None = None
    alerts: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    alerts_version: int = _count()


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
    day_raised: int = _sum()
    day_donations: int = _sum()
    hour_raised: int = _sum()
    hour_donations: int = _sum()


class Donor(Table, table=True):
    """A donor's payments to a drive: the net of all, and the sums of those on the donors' board.

    A donor's named gifts are summed in the row of their id, the others in the row of an alias, so that no
    difference of two sums tells what a donor gave without a name. `net` is in the row of their id for all,
    and 0 in the row of an alias.

    `reached_at` is as for creators. It holds for the windows too: the newest gift that counts is in a window
    if any is.
    """

    __tablename__ = "donors"
    __table_args__ = (
        _ranking(""),
        _ranking("day_"),
        _ranking("hour_"),
        {"sqlite_with_rowid": False},
    )

    drive_id: str = Field(primary_key=True)
    donor_id: str = Field(primary_key=True)
    net: int = _amount()
    raised: int = _sum()
    donations: int = _sum()
    reached_at: datetime | None = _utc()
    day_raised: int = _sum()
    day_donations: int = _sum()
    hour_raised: int = _sum()
    hour_donations: int = _sum()


class SourceSums(Table, table=True):
    """The sums of the payments from a platform and campaign, which `source` names (`domain.source_key`)."""

    __tablename__ = "sources"

    drive_id: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    raised: int = _sum()
    donations: int = _sum()
    reached_at: datetime | None = _utc()
    day_raised: int = _sum()
    day_donations: int = _sum()
    hour_raised: int = _sum()
    hour_donations: int = _sum()


class Payment(Table, table=True):
    """The newest state of a counted payment; `counted` is False while its money is held.

    `captured_at` is the state's moment of capture, or of its change if it has none; NULL in rows written
    before migration 0002. `donor_key` and `source_key` are the rows of `donors` and `sources` in which the
    payment is summed; the donor is named only where `donor_key` is `donor_id`. `number` counts the states of
    a drive's payments that the boards sum, 0 where there is nothing to sum. `ranked_version` is the version
    for which the three columns before it were written: a process without them leaves them as they are.
    `offline` money is no processor money.

    The amounts are in the drive's currency where they count. `currency` is that of the gift; where it is
    another one, the `given_…` columns are what was captured, refunded and disputed in it, else NULL.
    """

    __tablename__ = "payments"
    __table_args__ = (
        Index("payments_by_creator", "creator_id", "captured_at"),
        Index("payments_by_time", "drive_id", "captured_at", "payment_id", **_where(COUNTED)),
        Index("payments_by_number", "drive_id", "number"),
        Index("payments_of_donor_in_drive", "donor_id", "drive_id", "captured_at"),
        Index("payments_unranked", "drive_id", **_where(UNRANKED)),
        Index(
            "payments_by_source", "drive_id", "source_key", "captured_at", **_where("source_key IS NOT NULL")
        ),
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
    donor_key: str | None = None
    source_key: str | None = None
    number: int = _sum()
    ranked_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    offline: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    given_captured: int | None = Field(default=None, sa_column=Column(BigInteger))
    given_refunded: int | None = Field(default=None, sa_column=Column(BigInteger))
    given_disputed: int | None = Field(default=None, sa_column=Column(BigInteger))


class Superseded(Table, table=True):
    """A state of a payment that is in the boards' sums and no longer true, until it is subtracted there.

    `donor_id` is that of the state; a process without migration 0004 leaves it out.
    """

    __tablename__ = "superseded"

    drive_id: str = Field(primary_key=True)
    payment_id: str = Field(primary_key=True)
    creator_id: str | None = None
    donor_id: str | None = None
    donor_key: str | None = None
    source_key: str | None = None
    net: int = Field(sa_column=Column(BigInteger, nullable=False))
    captured_at: datetime | None = _utc()


class Pledge(Table, table=True):
    """The newest state of a pledge, part of `pledged` while open and unpaid; `version` 0: a placeholder.

    `payment_id` is the payment that made it paid; None where a process without migration 0007 stored it.
    """

    __tablename__ = "pledges"

    pledge_id: str = Field(primary_key=True)
    drive_id: str
    version: int = 0
    open: bool = False
    paid: bool = False
    amount: int = _amount()
    payment_id: str | None = None


class LogRow(Table, table=True):
    """A row of a drive's gap-free log; `amount` is the size of the change. Rows are never deleted.

    `given_amount` is the size in the currency of the gift, where that is another than the drive's.
    """

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
    given_amount: int | None = Field(default=None, sa_column=Column(BigInteger))
    given_currency: str | None = None


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
    """Display texts of a pledge, copied from pledges and erased with the donor. No name: anonymous.

    `version` is the number of the moderator's decision that the texts follow, 0 before the first, and
    `NOT_FETCHED` where none were fetched; `decided` is the highest number that an event named. Texts with a
    lower one are to be fetched again.

    `pinned_at` is set while the message is pinned in `drive_id`, as the decision `pin_version` states it.
    """

    __tablename__ = "words"
    __table_args__ = (
        Index("words_pinned", "drive_id", "pinned_at", **_where(PINNED)),
        {"sqlite_with_rowid": False},
    )

    pledge_id: str = Field(primary_key=True)
    name: str | None = None
    message: str | None = None
    version: int = _count()
    decided: int = _count()
    drive_id: str | None = None
    pinned_at: datetime | None = _utc()
    pin_version: int = _count()


MESSAGING_TABLES = messaging_tables(Table.metadata)

drives: Final = Table.metadata.tables["drives"]
clearings: Final = Table.metadata.tables["clearings"]
creators: Final = Table.metadata.tables["creators"]
donors: Final = Table.metadata.tables["donors"]
sources: Final = Table.metadata.tables["sources"]
superseded: Final = Table.metadata.tables["superseded"]
payments: Final = Table.metadata.tables["payments"]
pledges: Final = Table.metadata.tables["pledges"]
drive_log: Final = Table.metadata.tables["drive_log"]
second_counts: Final = Table.metadata.tables["paces"]
display_texts: Final = Table.metadata.tables["words"]
