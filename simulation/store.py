"""A service's database with faults at the beginning and the end of its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from backbone.database import database as database_module
from backbone.database.database import Database
from backbone.database.sqlite import open_sqlite
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable
from simulation.faults import Fault
from simulation.nodes import Operations, alive

WRITE: Final = frozenset(Fault) - {Fault.DUPLICATE}
READ: Final = frozenset({Fault.DELAY, Fault.ERROR, Fault.CRASH_BEFORE})
SLOW_S: Final = 1.0
"""After which a transaction without an answer is given up; 5 s in production."""

_engines: Final[dict[tuple[str, str, str], Engine]] = {}
"""One engine a file and kind for all incarnations and seeds, because it holds the compiled statements."""


class FaultyDatabase(Database):
    """A `Database` whose transactions fail, wait, or succeed without their caller learning of it.

    On SQLite no statement suspends, so a transaction has two awaits: its beginning and its commit.
    """

    operations: ClassVar[Callable[[], Operations]]
    migrating: ClassVar[bool] = True
    """False where the files are copies of a migrated template."""

    @asynccontextmanager
    async def _session(
        self, engine: Engine | AsyncEngine, timeout_s: float | None = None
    ) -> AsyncIterator[AsyncSession]:
        kind = "read" if engine is self._read_engine else "write"
        operations = FaultyDatabase.operations()
        fault = await operations.begin(f"store.{kind}", READ if kind == "read" else WRITE)
        if fault is Fault.ERROR:
            raise DatabaseUnavailable("simulated: the database cannot be reached")
        async with super()._session(engine, timeout_s) as session:
            yield session
            alive()
            if fault is Fault.PARTIAL:  # nothing of it was stored
                raise DatabaseUnavailable("simulated: the connection was cut before the commit")
        operations.end(fault)
        if fault is Fault.LOST_ACK:
            raise DatabaseUnavailable("simulated: the connection was cut after the commit")
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(SLOW_S)
            alive()
            raise DatabaseSlow("simulated: no answer in time")

    async def migrate(self, scripts: Path) -> None:
        """Migrate the template; its copies need none."""
        if FaultyDatabase.migrating:
            await super().migrate(scripts)

    async def close(self) -> None:
        """Engines are shared by all incarnations."""


def install(composition_roots: tuple[Any, ...], operations: Callable[[], Operations]) -> None:
    """Have these modules open `FaultyDatabase`s."""
    FaultyDatabase.operations = operations
    database_module.open_sqlite = _shared_engine
    for module in composition_roots:
        module.Database = FaultyDatabase


def close_connections() -> None:
    """Close what all engines hold, so that a forked process shares no connection."""
    for engine in _engines.values():
        engine.dispose()


def _shared_engine(url: str, begin: str, synchronous: str) -> Engine:
    if (url, begin, synchronous) not in _engines:
        _engines[url, begin, synchronous] = open_sqlite(url, begin, synchronous)
    return _engines[url, begin, synchronous]
