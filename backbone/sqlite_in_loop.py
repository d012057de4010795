"""A SQLAlchemy asyncio dialect for SQLite that runs the standard library's sqlite3 on the event loop.

A local SQLite statement takes microseconds; aiosqlite's two thread hops around each one cost more
than the statement (two thirds of the whole system's throughput when measured, see
docs/decisions/0001). What may block is the commit's fsync, a quarter of a millisecond. The calls
never suspend, so nothing else runs between the statements of a transaction unless its code awaits
something else, which `Database.transaction` forbids.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL, Pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import AsyncAdaptedQueuePool


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """SQLAlchemy's asyncio result awaits this; a local cursor has nothing to wait for."""


class Connection(sqlite3.Connection):
    """sqlite3's connection, whose cursors SQLAlchemy's asyncio extension accepts."""

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class InLoopDialect(SQLiteDialect_pysqlite):
    """`sqlite+inloop://`: sqlite3 without threads, under SQLAlchemy's asyncio facade."""

    driver = "inloop"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def get_driver_connection(self, connection: Any) -> Any:
        return connection


registry.register("sqlite.inloop", __name__, "InLoopDialect")
