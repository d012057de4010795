"""The gateway's rows: API keys. Only the SHA-256 of a key is kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Column
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.database import Utc, messaging_tables


class Table(SQLModel, registry=registry()):
    """The gateway's own metadata."""


class Key(Table, table=True):
    """A key that was given out; revoked ones stay, so that a list shows when."""

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


MESSAGING_TABLES = messaging_tables(Table.metadata)
