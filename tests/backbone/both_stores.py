"""A database of a test's own tables, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import MetaData

from backbone.database.database import Database
from backbone.database.messaging_tables import MessagingTables
from tests.engines import fresh_postgres

STORES: Final = ("sqlite", "postgresql")


@asynccontextmanager
async def database_on(
    store: str, folder: Path, metadata: MetaData, messaging_tables: MessagingTables
) -> AsyncIterator[Database]:
    """A new database with the tables of `metadata`."""
    if store == "sqlite":
        async with _opened(f"sqlite:///{folder / 'things.db'}", metadata, messaging_tables) as database:
            yield database
    else:
        async with fresh_postgres() as url, _opened(url, metadata, messaging_tables) as database:
            yield database


@asynccontextmanager
async def _opened(url: str, metadata: MetaData, messaging_tables: MessagingTables) -> AsyncIterator[Database]:
    database = Database(url, messaging_tables)
    async with database.transaction() as session:
        await session.run_sync(lambda plain: metadata.create_all(plain.connection))
    yield database
    await database.close()
