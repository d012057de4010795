"""Leader election on PostgreSQL: work such as the outbox relay runs in one process at a time.

A leader lock is an advisory lock. All leader locks of a process belong to one connection outside the pool,
and are released when it ends: with the process, with the server, or when the network between them is cut. A
process that is stopped or hangs sends nothing, so the server ends its connection (`idle_session_timeout`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from backbone.database.leader_work import ADVISORY_LOCK, IDLE_TIMEOUT_S, STANDBY_POLL_S, IsLeader
from backbone.database.postgres import open_postgres
from backbone.database.transient import DatabaseUnavailable
from backbone.postgres_url import milliseconds

PINGS_PER_TIMEOUT: Final = 5
"""Pings within `IDLE_TIMEOUT_S`: a lost connection is noticed before the server hands the lock on."""

_PING: Final = "SELECT 1"
_TRY_LOCK: Final = f"SELECT pg_try_advisory_lock({ADVISORY_LOCK}, hashtext($1))"
_UNLOCK: Final = f"SELECT pg_advisory_unlock({ADVISORY_LOCK}, hashtext($1))"


class LeaderLocks:
    """The leader locks of one process on one PostgreSQL database."""

    def __init__(
        self, url: URL, arguments: Mapping[str, Any] | None = None, *, idle_timeout_s: float = IDLE_TIMEOUT_S
    ) -> None:
        self._engine = open_postgres(
            url,
            arguments or {},
            {"idle_session_timeout": milliseconds(idle_timeout_s)},
        )
        self._ping_s = idle_timeout_s / PINGS_PER_TIMEOUT
        self._connection: AsyncConnection | None = None
        self._ping_task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._exclusive = asyncio.Lock()

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[IsLeader]:
        """A check to make before each round of work under `name`; the lock is released at the end."""
        held_on: AsyncConnection | None = None

        async def is_leader() -> bool:
            nonlocal held_on
            async with self._exclusive:
                if held_on is not None:
                    if held_on is self._connection and await _is_open(held_on):
                        return True
                    raise ConnectionError(f"the leader lock {name} was lost with its connection")
                connection = await self._open_connection()
                if await self._execute(connection, _TRY_LOCK, name):
                    held_on = connection
            return held_on is not None

        try:
            yield is_leader
        finally:
            async with self._exclusive:
                if held_on is not None and held_on is self._connection and await _is_open(held_on):
                    with suppress(DatabaseUnavailable):
                        await self._execute(held_on, _UNLOCK, name)

    async def _open_connection(self) -> AsyncConnection:
        if self._connection is not None and not await _is_open(self._connection):
            self._drop()
        if self._connection is None:
            try:
                async with asyncio.timeout(2 * self._ping_s):
                    self._connection = await self._engine.connect()
            except TimeoutError as error:
                raise DatabaseUnavailable("no connection in time") from error
            self._ping_task = asyncio.create_task(self._keep_alive(self._connection))
        return self._connection

    async def _keep_alive(self, connection: AsyncConnection) -> None:
        """Ping `connection` every few seconds; drop it where no answer comes."""
        while True:
            await asyncio.sleep(self._ping_s)
            async with self._exclusive:
                if self._connection is not connection:
                    return
                try:
                    await self._execute(connection, _PING)
                except DatabaseUnavailable:
                    return

    async def _execute(self, connection: AsyncConnection, statement: str, *given: str) -> Any:
        """Execute `statement` within the time between two pings; return its first value.

        Raises `DatabaseUnavailable` and drops the connection where no answer comes in time.
        """
        try:
            raw = await _asyncpg_connection(connection)
            return await raw.fetchval(statement, *given, timeout=self._ping_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError, OSError) as error:
            self._drop()
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        """Give up every lock at once, and end the connection a moment later.

        The server releases the locks when the connection ends. By then the former leader has noticed.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            ending = asyncio.create_task(_terminate(connection, 2 * STANDBY_POLL_S))
            self._closing.add(ending)
            ending.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Release every lock and close the connection."""
        if self._ping_task is not None:
            self._ping_task.cancel()
            await asyncio.wait({self._ping_task})
        for ending in list(self._closing):
            ending.cancel()
            await asyncio.wait({ending})
        if (connection := self._connection) is not None:
            self._connection = None
            await _terminate(connection)
        await self._engine.dispose()


async def _terminate(connection: AsyncConnection, after_s: float = 0.0) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        with suppress(SQLAlchemyError, asyncpg.InterfaceError, OSError):
            (await _asyncpg_connection(connection)).terminate()  # a graceful close would wait for an answer
            await connection.invalidate()
            await connection.close()


async def _is_open(connection: AsyncConnection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    return not (await _asyncpg_connection(connection)).is_closed()


async def _asyncpg_connection(connection: AsyncConnection) -> Any:
    """The asyncpg connection, whose methods take a timeout each."""
    driver = (await connection.get_raw_connection()).driver_connection
    if driver is None:
        raise DatabaseUnavailable("the connection is closed")
    return driver
