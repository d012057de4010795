"""Multi-row statements for SQLite and PostgreSQL, built once a table.

The rows are passed at execution: with rows in its text, a statement is compiled again for each batch size.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import Executable, Table, select, text
from sqlalchemy.dialects import postgresql, sqlite

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.tables import PAYMENTS


def insert_new(session: Transaction, table: Table, *returning: str) -> Executable:
    """`INSERT … ON CONFLICT DO NOTHING RETURNING` those columns; execute it with a list of rows."""
    return _insert_new(session.dialect.name, table, returning)


def upsert(session: Transaction, table: Table, key: tuple[str, ...], updated: tuple[str, ...]) -> Executable:
    """`INSERT … ON CONFLICT (key) DO UPDATE` of the columns `updated`; execute it with a list of rows.

    In a table with a column `version`, a row is updated only by a higher version.
    """
    return _upsert(session.dialect.name, table, key, updated)


async def lock_payments(session: Transaction, payments: Collection[str]) -> None:
    """Lock payments in the order of their tickets. All transactions do, so that none deadlock.

    An UPDATE alone locks rows in scan order. SQLite has one writer at a time and needs no row locks.
    """
    if session.dialect.name != "sqlite":
        await session.execute(_LOCKED, {"ids": payments})


async def lock_intents(session: Transaction, intents: Collection[str]) -> None:
    """Make transactions that record facts of the same payment intents wait for each other.

    Row locks do not serve: while an intent has no payment, there is no row to lock. These advisory locks
    are taken before any row lock, all at once and in one order. SQLite has one writer at a time.
    """
    if intents and session.dialect.name != "sqlite":
        await session.execute(_LOCK_INTENTS, {"keys": sorted(_lock_key(intent) for intent in intents)})


def _lock_key(intent: str) -> int:
    return int.from_bytes(blake2b(intent.encode(), digest_size=8).digest(), signed=True)


_LOCK_INTENTS: Final = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")

_LOCKED: Final = (
    select(PAYMENTS.c.id).where(one_of(PAYMENTS.c.id, "ids")).order_by(PAYMENTS.c.number).with_for_update()
)


@lru_cache(maxsize=32)
def _insert_new(dialect: str, table: Table, returning: tuple[str, ...]) -> Executable:
    statement = _insert(dialect, table).on_conflict_do_nothing()
    found: Executable = (
        statement.returning(*(table.c[name] for name in returning)) if returning else statement
    )
    return found


@lru_cache(maxsize=32)
def _upsert(dialect: str, table: Table, key: tuple[str, ...], updated: tuple[str, ...]) -> Executable:
    statement = _insert(dialect, table)
    newer = table.c.version < statement.excluded.version if "version" in table.c else None
    found: Executable = statement.on_conflict_do_update(
        index_elements=list(key), set_={name: statement.excluded[name] for name in updated}, where=newer
    )
    return found


def _insert(dialect: str, table: Table) -> Any:
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)
