"""Tables of the gateway: API keys and browser sessions, of which only the SHA-256 is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import JSON, Column
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


KEYS: Final = Table.metadata.tables["keys"]
SESSIONS: Final = Table.metadata.tables["sessions"]

MESSAGING_TABLES = messaging_tables(Table.metadata)
