"""Tables of the gateway: API keys and browser sessions as SHA-256 only, open desks, counts of page views,
the last heads of public logs, and the keys that hash addresses.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import Utc
from backbone.database.messaging_tables import messaging_tables


class Table(SQLModel, registry=registry()):
    """Tables of the gateway, with their own metadata."""


class Key(Table, table=True):
    """An API key. Revoked keys are kept, so that lists show when they were revoked."""

    __tablename__ = "keys"

    id: str = Field(primary_key=True)
    sha256: str = Field(unique=True)
    last_four: str
    kind: str  # secret or publishable
    mode: str  # live or test
    partner: str = Field(index=True)
    scopes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    origins: list[str] = Field(sa_column=Column(JSON, nullable=False))
    name: str | None = None
    made_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(Utc))


class SessionRow(Table, table=True):
    """A browser session that was opened with an API key."""

    __tablename__ = "sessions"

    sha256: str = Field(primary_key=True)  # of the cookie's token
    key_sha256: str
    seen_at: datetime = Field(sa_column=Column(Utc, nullable=False))  # exact to a minute
    expires_at: datetime = Field(sa_column=Column(Utc, nullable=False, index=True))


class VisitCount(Table, table=True):
    """Views of a drive's pages in one hour from one source: of its public pages, and of its donate form.

    `source` is `Source.key`. No row tells anything of a single visitor.
    """

    __tablename__ = "visits"
    __table_args__ = (Index("visits_by_hour", "hour"), {"sqlite_with_rowid": False})

    drive_id: str = Field(primary_key=True)
    hour: datetime = Field(sa_column=Column(Utc, primary_key=True))
    source: str = Field(primary_key=True)
    seen: int = Field(sa_type=BigInteger)
    opened: int = Field(sa_type=BigInteger)


class OpenDesk(Table, table=True):
    """A moderation desk that is open in a browser, at the address of a drive.

    `desk` is random, new for each page. `name` is the one that its moderator gave, `looking` the pledge whose
    message is selected, or empty.
    """

    __tablename__ = "desks"
    __table_args__ = (Index("desks_by_age", "seen_at"), {"sqlite_with_rowid": False})

    drive: str = Field(primary_key=True)
    desk: str = Field(primary_key=True)
    name: str
    looking: str
    seen_at: datetime = Field(sa_column=Column(Utc, nullable=False))


class SignedHead(Table, table=True):
    """The last signed head of a log: its number of rows, and its root in base64."""

    __tablename__ = "signed_heads"
    __table_args__ = ({"sqlite_with_rowid": False},)

    drive_id: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)
    root: str


class ClientKey(Table, table=True):
    """The key with which a day's client addresses are hashed (screening/client_groups.py). Once it is
    deleted, nobody can tell which address a stored hash belongs to.
    """

    __tablename__ = "client_keys"
    __table_args__ = ({"sqlite_with_rowid": False},)

    day: int = Field(primary_key=True)
    secret: bytes = Field(sa_type=LargeBinary)


KEYS: Final = Table.metadata.tables["keys"]
SESSIONS: Final = Table.metadata.tables["sessions"]
VISITS: Final = Table.metadata.tables["visits"]
DESKS: Final = Table.metadata.tables["desks"]
SIGNED_HEADS: Final = Table.metadata.tables["signed_heads"]
CLIENT_KEYS: Final = Table.metadata.tables["client_keys"]

MESSAGING_TABLES = messaging_tables(Table.metadata)
