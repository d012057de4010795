"""What one process at a time may do on a database: its relay, its senders, whatever must not be done twice.

An ownership is an advisory lock of PostgreSQL. All of a process's ownerships belong to one connection,
which is not of the pool, and end with it: with the process, the server, or a cut between the two. A
process that is stopped, or hangs, is silent on it, and the server ends the connection for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from backbone.database.postgres import milliseconds, open_postgres
from backbone.database.transient import DatabaseUnavailable

STANDBY_POLL_S: Final = 0.5
"""How often a second process looks whether the first one is gone."""

IDLE_TIMEOUT_S: Final = 15.0
"""The server ends a connection that said nothing for so long (`idle_session_timeout`, PostgreSQL 14)."""
PINGS_PER_TIMEOUT: Final = 5
"""How often something is said in that time: a lost server is noticed before it gives a lock to another."""

_PING: Final = "SELECT 1"
_TRY_LOCK: Final = "SELECT pg_try_advisory_lock(7355608, hashtext($1))"
_UNLOCK: Final = "SELECT pg_advisory_unlock(7355608, hashtext($1))"

IsLeader = Callable[[], Awaitable[bool]]
"""Whether it is ours at present; taken where nobody has it. Raises ConnectionError once it was lost."""

Work = Callable[[asyncio.Event], Awaitable[None]]


class LeaderLocks:
    """The ownerships of one process on one PostgreSQL database."""

    def __init__(
        self, url: URL, arguments: Mapping[str, Any] | None = None, *, idle_timeout_s: float = IDLE_TIMEOUT_S
    ) -> None:
        self._engine = open_postgres(
            url,
            arguments or {},
            {"idle_session_timeout": milliseconds(idle_timeout_s)},
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        self._ping_s = idle_timeout_s / PINGS_PER_TIMEOUT
        self._connection: AsyncConnection | None = None
        self._ping_task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._exclusive = asyncio.Lock()

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[IsLeader]:
        """A question to ask before each round of `name`; what it owns is let go at the end."""
        held_on: AsyncConnection | None = None

        async def is_leader() -> bool:
            nonlocal held_on
            async with self._exclusive:
                if held_on is not None:
                    if held_on is self._connection and await _is_open(held_on):
                        return True
                    raise ConnectionError(f"the ownership of {name} went with its connection")
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
                raise DatabaseUnavailable("no connection came about in time") from error
            self._ping_task = asyncio.create_task(self._keep_alive(self._connection))
        return self._connection

    async def _keep_alive(self, connection: AsyncConnection) -> None:
        """Say something on `connection` every few seconds; where nothing comes back, drop it."""
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
        """The answer to `statement`, within the time between two pings; a connection without one is dropped.

        Raises DatabaseUnavailable.
        """
        try:
            raw = await _asyncpg_connection(connection)
            return await raw.fetchval(statement, *given, timeout=self._ping_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError, OSError) as error:
            self._drop()
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        """Own nothing any more, and end the connection a moment later.

        The server hands the locks on when it sees the end; by then whoever held one has been told.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            ending = asyncio.create_task(_terminate(connection, 2 * STANDBY_POLL_S))
            self._closing.add(ending)
            ending.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Let go of everything."""
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
            (await _asyncpg_connection(connection)).terminate()  # a polite end would wait for an answer
            await connection.invalidate()
            await connection.close()


async def _is_open(connection: AsyncConnection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    return not (await _asyncpg_connection(connection)).is_closed()


async def _asyncpg_connection(connection: AsyncConnection) -> Any:
    """asyncpg's own connection, whose calls take a bound each."""
    driver = (await connection.get_raw_connection()).driver_connection
    if driver is None:
        raise DatabaseUnavailable("the connection is gone")
    return driver


async def run_while_leader(is_leader: IsLeader, work: Work, stop: asyncio.Event) -> None:
    """Run `work` until `stop`, whenever this process owns it.

    Where the ownership is lost, the work is cancelled and ConnectionError raised.
    """
    while not stop.is_set():
        if not await is_leader():
            await _wait(stop, STANDBY_POLL_S)
            continue
        working = asyncio.ensure_future(work(stop))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=STANDBY_POLL_S)
                await is_leader()
        finally:
            working.cancel()
            await asyncio.wait({working})
        working.result()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
