"""What a session carries besides its transaction: the messaging tables, and callbacks after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from backbone.database.messaging_tables import MessagingTables


def session_info(tables: MessagingTables, outbox_written: asyncio.Event) -> dict[Any, Any]:
    """The `info` of a new session."""
    return {"messaging_tables": tables, "outbox_written": outbox_written, "after_commit": []}


def messaging_tables_of(session: AsyncSession | Session) -> MessagingTables:
    """The messaging tables of the database that `session` is connected to."""
    tables: MessagingTables = session.info["messaging_tables"]
    return tables


def after_commit(session: AsyncSession | Session, callback: Callable[[], None]) -> None:
    """Call `callback` once the transaction of `session` has been committed; never if it is rolled back."""
    session.info["after_commit"].append(callback)


def wake_relay_after_commit(session: AsyncSession | Session) -> None:
    """Tell the relay, once the transaction is committed, that there are new rows in the outbox."""
    after_commit(session, session.info["outbox_written"].set)


def run_after_commit(session: AsyncSession | Session) -> None:
    """Run the callbacks of a transaction that has been committed."""
    for callback in session.info["after_commit"]:
        callback()
