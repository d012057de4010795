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

from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

STANDBY_S: Final = 0.5
"""How often a second process looks whether the first one is gone."""

SILENT_S: Final = 15.0
"""The server ends a connection that said nothing for so long (`idle_session_timeout`, PostgreSQL 14)."""
PINGS: Final = 5
"""How often something is said in that time: a lost server is noticed before it gives a lock to another."""

_PING: Final = text("SELECT 1")
_OWN: Final = text("SELECT pg_try_advisory_lock(7355608, hashtext(:name))")
_LET_GO: Final = text("SELECT pg_advisory_unlock(7355608, hashtext(:name))")

# The server notices within twenty seconds that the machine of an owner is gone.
_ALIVE: Final = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}

Owned = Callable[[], Awaitable[bool]]
"""Whether it is ours at present; taken where nobody has it. Raises ConnectionError once it was lost."""

Work = Callable[[asyncio.Event], Awaitable[None]]


class Ownerships:
    """The ownerships of one process on one PostgreSQL database."""

    def __init__(
        self, url: URL, arguments: Mapping[str, Any] | None = None, *, silent_s: float = SILENT_S
    ) -> None:
        settings = {**_ALIVE, "idle_session_timeout": f"{silent_s * 1000:.0f}"}
        self._engine = create_async_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={**(arguments or {}), "server_settings": settings},
        )
        self._ping_s = silent_s / PINGS
        self._connection: AsyncConnection | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[Owned]:
        """A question to ask before each round of `name`; what it owns is let go at the end."""
        holding: AsyncConnection | None = None

        async def owned() -> bool:
            nonlocal holding
            async with self._asking:
                if holding is not None:
                    if holding is self._connection and await _is_open(holding):
                        return True
                    raise ConnectionError(f"the ownership of {name} went with its connection")
                connection = await self._connected()
                if await connection.scalar(_OWN, {"name": name}):
                    holding = connection
            return holding is not None

        try:
            yield owned
        finally:
            async with self._asking:
                if holding is not None and holding is self._connection and await _is_open(holding):
                    with suppress(SQLAlchemyError, OSError):
                        await holding.execute(_LET_GO, {"name": name})

    async def _connected(self) -> AsyncConnection:
        if self._connection is not None and not await _is_open(self._connection):
            await self._drop()
        if self._connection is None:
            self._connection = await self._engine.connect()
            self._pinging = asyncio.create_task(self._keep_awake(self._connection))
        return self._connection

    async def _keep_awake(self, connection: AsyncConnection) -> None:
        """Say something on `connection` every few seconds; where nothing comes back, drop it."""
        while True:
            await asyncio.sleep(self._ping_s)
            async with self._asking:
                if self._connection is not connection:
                    return
                try:
                    async with asyncio.timeout(self._ping_s):
                        await connection.execute(_PING)
                except (SQLAlchemyError, OSError):
                    await self._drop()
                    return

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()

    async def close(self) -> None:
        """Let go of everything."""
        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.wait({self._pinging})
        await self._drop()
        await self._engine.dispose()


async def _is_open(connection: AsyncConnection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    raw = (await connection.get_raw_connection()).driver_connection
    return raw is not None and not raw.is_closed()


async def work_while_owned(owned: Owned, work: Work, stop: asyncio.Event) -> None:
    """Run `work` until `stop`, whenever this process owns it.

    Where the ownership is lost, the work is cancelled and ConnectionError raised.
    """
    while not stop.is_set():
        if not await owned():
            await _wait(stop, STANDBY_S)
            continue
        working = asyncio.ensure_future(work(stop))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=STANDBY_S)
                await owned()
        finally:
            working.cancel()
            await asyncio.wait({working})
        working.result()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
