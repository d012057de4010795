"""The tables behind messaging and idempotency, which every service has in its own database."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

from backbone.database.columns import BIGINT_KEY, Utc


@dataclass(frozen=True, slots=True)
class MessagingTables:
    """Events to be published, events consumed, consumer positions, and replies by idempotency key."""

    outbox: Table
    inbox: Table
    positions: Table
    idempotency: Table


def messaging_tables(metadata: MetaData) -> MessagingTables:
    """Declare the messaging tables in the metadata of a service."""
    outbox = Table(
        "outbox",
        metadata,
        Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        Column("event_id", String, nullable=False),
        Column("name", String, nullable=False),
        Column("topic", String, nullable=False),
        Column("key", String, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("traceparent", String),
        Column("said_at", Utc, nullable=False),
        sqlite_autoincrement=True,
    )
    inbox = Table(
        "inbox",
        metadata,
        Column("group", String, primary_key=True),
        Column("event_id", String, primary_key=True),
        Column("heard_at", Utc, nullable=False),
        Index("inbox_by_age", "heard_at"),
        sqlite_with_rowid=False,
    )
    positions = Table(
        "positions",
        metadata,
        Column("group", String, primary_key=True),
        Column("topic", String, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("next", BigInteger, nullable=False),
    )
    idempotency = Table(
        "idempotency",
        metadata,
        Column("scope", String, primary_key=True),
        Column("key", String, primary_key=True),
        Column("body_hash", String, nullable=False),
        Column("status", Integer),  # None while the first request still runs
        Column("reply", LargeBinary),
        Column("made_at", Utc, nullable=False),
        Index("idempotency_by_age", "made_at"),
    )
    return MessagingTables(outbox, inbox, positions, idempotency)
