"""Tables of pledges. Amounts are minor units beside a currency; timestamps are UTC microseconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy import Table as CoreTable
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import Utc
from backbone.database.messaging_tables import messaging_tables


class Table(SQLModel, registry=registry()):
    """The tables of pledges, in a registry of their own."""


MESSAGING_TABLES: Final = messaging_tables(Table.metadata)


class Drive(Table, table=True):
    """A drive; `version` counts its changes.

    `partner` owns it. `partners` lists those who may pledge besides; None is any partner. `moderation` is
    None in rows of versions before moderation: the default. `currencies` are taken besides its own; None in
    rows of versions before exchange rates.
    """

    __tablename__ = "drives"

    id: str = Field(primary_key=True)
    slug: str = Field(unique=True)
    partner: str
    state: str
    version: int
    title: Any = Field(sa_type=JSON)
    description: Any = Field(sa_type=JSON)
    currency: str
    goal: int = Field(sa_type=BigInteger)
    starts_at: datetime | None = Field(sa_type=Utc)
    ends_at: datetime | None = Field(sa_type=Utc)
    beneficiaries: Any = Field(sa_type=JSON)
    permit: str | None
    zakat_eligible: bool
    impact: Any = Field(sa_type=JSON)
    milestones: Any = Field(sa_type=JSON)
    menu: Any = Field(sa_type=JSON)
    partners: Any = Field(sa_column=Column(JSON(none_as_null=True)))
    moderation: Any = Field(sa_column=Column(JSON(none_as_null=True)))
    currencies: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    test: bool
    created_at: datetime = Field(sa_type=Utc)
    changed_at: datetime = Field(sa_type=Utc)


class Creator(Table, table=True):
    """A creator who raises money for a drive."""

    __tablename__ = "creators"
    __table_args__ = (UniqueConstraint("drive_id", "slug", name="creators_by_slug"),)

    id: str = Field(primary_key=True)
    drive_id: str = Field(foreign_key="drives.id")
    slug: str
    name: str
    channel_url: str | None
    team: str | None
    goal: int | None = Field(sa_type=BigInteger)
    version: int
    created_at: datetime = Field(sa_type=Utc)


class Donor(Table, table=True):
    """A donor of a partner, recognised by the HMAC of the e-mail address, which is not stored here."""

    __tablename__ = "donors"
    __table_args__ = (UniqueConstraint("partner", "address_mac", name="donors_by_address"),)

    id: str = Field(primary_key=True)
    partner: str
    address_mac: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


RARE_STATUS: Final = text("status NOT IN ('open', 'paid')")
"""The condition of the partial index `pledges_by_status`; a query that contains it can use the index."""


class Pledge(Table, table=True):
    """A pledge, without personal data.

    `reporting_amount` is what an amount in another currency was worth in its drive's (`reporting_currency`)
    when it was pledged.
    """

    __tablename__ = "pledges"
    __table_args__ = (
        Index(
            "pledges_by_reference",
            "partner",
            "reference",
            sqlite_where=text("reference IS NOT NULL"),
            postgresql_where=text("reference IS NOT NULL"),
        ),
        Index("pledges_by_partner", "partner", "id"),
        Index("pledges_by_drive", "drive_id", "partner", "id"),
        # Partial: with open and paid pledges in it, every insert would be slower.
        Index(
            "pledges_by_status",
            "partner",
            "status",
            "id",
            sqlite_where=RARE_STATUS,
            postgresql_where=RARE_STATUS,
        ),
        {"sqlite_with_rowid": False},
    )

    id: str = Field(primary_key=True)
    drive_id: str = Field(foreign_key="drives.id")
    creator_id: str | None = Field(foreign_key="creators.id")
    donor_id: str
    partner: str
    version: int
    status: str
    amount: int = Field(sa_type=BigInteger)
    currency: str
    reporting_amount: int | None = Field(default=None, sa_type=BigInteger)
    reporting_currency: str | None = None
    locale: str | None
    platform: str | None
    campaign: str | None
    reference: str | None
    return_url: str | None
    checkout_mode: str
    purpose: str | None
    test: bool
    made_at: datetime = Field(sa_type=Utc)


MODERATED: Final = text("state IS NOT NULL")
"""The condition of the partial index `words_by_state`."""


class DonorTexts(Table, table=True):
    """The personal data of a pledge. It is stored nowhere else, so that it can be erased.

    `state` is that of the name and message; None where there is neither, and in rows that a process of a
    version before moderation wrote. `held` has the fields held at intake, with the reasons. `decided` counts
    the decisions of moderators.
    """

    __tablename__ = "words"
    __table_args__ = (
        Index(
            "words_by_state",
            "drive_id",
            "state",
            "pledge_id",
            sqlite_where=MODERATED,
            postgresql_where=MODERATED,
        ),
        {"sqlite_with_rowid": False},
    )

    pledge_id: str = Field(sa_column=Column(String, ForeignKey("pledges.id"), primary_key=True))
    name: str | None
    email: str | None
    message: str | None
    referrer: str | None
    anonymous: bool
    approved: bool
    drive_id: str | None
    state: str | None
    held: Any = Field(sa_column=Column(JSON(none_as_null=True)))
    decided: int = Field(default=0, sa_column_kwargs={"server_default": "0"})


class Decision(Table, table=True):
    """A moderator's decision about a message. Rows are never changed; they hold no text of the donor.

    `moderator` is the name that the moderator gave. `drive_id` is None in rows that a process of
    the version before that column wrote.
    """

    __tablename__ = "decisions"
    __table_args__ = (
        Index("decisions_by_drive", "drive_id", "at", "pledge_id", "version"),
        {"sqlite_with_rowid": False},
    )

    pledge_id: str = Field(sa_column=Column(String, ForeignKey("pledges.id"), primary_key=True))
    version: int = Field(primary_key=True)
    at: datetime = Field(sa_type=Utc)
    key_id: str
    partner: str
    from_state: str
    to_state: str
    note: str | None
    drive_id: str | None
    moderator: str | None


class Alerts(Table, table=True):
    """How a drive's overlays are to show alerts; no row before the first control. See `AlertsControlled`."""

    __tablename__ = "alerts"
    __table_args__ = {"sqlite_with_rowid": False}

    drive_id: str = Field(sa_column=Column(String, ForeignKey("drives.id"), primary_key=True))
    version: int
    paused: bool
    skip: Any = Field(sa_column=Column(JSON(none_as_null=True)))
    replay: Any = Field(sa_column=Column(JSON(none_as_null=True)))


class Payment(Table, table=True):
    """The newest state received of a payment; amounts are cumulative minor units.

    `offline` money is no processor money.
    """

    __tablename__ = "payments"
    __table_args__ = {"sqlite_with_rowid": False}

    id: str = Field(primary_key=True)
    pledge_id: str | None = Field(index=True)
    drive_id: str
    version: int
    status: str
    currency: str
    captured: int = Field(sa_type=BigInteger)
    refunded: int = Field(sa_type=BigInteger)
    disputed: int = Field(sa_type=BigInteger)
    offline: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class ExchangeRate(Table, table=True):
    """The newest rate of a pair that payments announced: what one unit of the source is worth."""

    __tablename__ = "exchange_rates"
    __table_args__ = {"sqlite_with_rowid": False}

    source_currency: str = Field(primary_key=True)
    target_currency: str = Field(primary_key=True)
    version: int
    rate: str
    as_of: datetime = Field(sa_type=Utc)


def core_table(kind: type[Table]) -> CoreTable:
    """The Core table of a row class, for bulk statements."""
    return cast(CoreTable, cast(Any, kind).__table__)


DRIVES: Final = core_table(Drive)
CREATORS: Final = core_table(Creator)
DONORS: Final = core_table(Donor)
PLEDGES: Final = core_table(Pledge)
DONOR_TEXTS: Final = core_table(DonorTexts)
PAYMENTS: Final = core_table(Payment)
DECISIONS: Final = core_table(Decision)
ALERTS: Final = core_table(Alerts)
EXCHANGE_RATES: Final = core_table(ExchangeRate)
