"""A service's database with faults at the beginning, the statements and the end of its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Final, Literal

from sqlalchemy.engine import Dialect

from backbone.database import database as database_module
from backbone.database.database import Database
from backbone.database.plans import Plans, Rows, Values
from backbone.database.sqlite import SqliteConnections
from backbone.database.transaction import Given, Result, SyncTransaction, Transaction, TransactionState
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable
from simulation.faults import Fault
from simulation.nodes import Operations, alive

Kind = Literal["durable", "lossy", "reading"]

WRITE: Final = frozenset(Fault) - {Fault.DUPLICATE}
READ: Final = frozenset({Fault.DELAY, Fault.ERROR, Fault.CRASH_BEFORE})
STATEMENT: Final = frozenset({Fault.DELAY, Fault.ERROR, Fault.CRASH_BEFORE, Fault.CRASH_AFTER})
SLOW_S: Final = 1.0
"""After which a transaction without an answer is given up; 5 s in production."""

_connections: Final[dict[tuple[str, str, str], SqliteConnections]] = {}
"""Shared by all incarnations and seeds, because opening one takes longer than most transactions."""
_plans: Final[dict[str, Plans]] = {}


class FaultyTransaction:
    """A `Transaction` whose statements wait, fail, or are the last of their process."""

    __slots__ = ("_operations", "_transaction", "dialect", "state")

    def __init__(self, transaction: Transaction, operations: Operations) -> None:
        self._transaction = transaction
        self._operations = operations
        self.state: TransactionState = transaction.state
        self.dialect: Dialect = transaction.dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        """See `Transaction`."""
        fault = await self._before()
        rows = await self._transaction.execute(statement, parameters)
        if fault is not None:
            self._operations.end(fault)
        return rows

    async def run_sync(
        self,
        function: Callable[Concatenate[SyncTransaction, Given], Result],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> Result:
        """See `Transaction`."""
        fault = await self._before()
        result = await self._transaction.run_sync(function, *arguments, **named)
        if fault is not None:
            self._operations.end(fault)
        return result

    async def _before(self) -> Fault | None:
        fault = await self._operations.begin("store.statement", STATEMENT, traced=False)
        if fault is Fault.ERROR:
            raise DatabaseUnavailable("simulated: the connection was cut within the transaction")
        return fault


class FaultyDatabase(Database):
    """A `Database` whose transactions fail, wait, or succeed without their caller learning of it."""

    operations: ClassVar[Callable[[], Operations]]
    migrating: ClassVar[bool] = True
    """False where the files are copies of a migrated template."""

    @asynccontextmanager
    async def _begin(self, kind: Kind, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        operations = FaultyDatabase.operations()
        possible = READ if kind == "reading" else WRITE
        fault = await operations.begin(f"store.{kind}", possible)
        if fault is Fault.ERROR:
            raise DatabaseUnavailable("simulated: the database cannot be reached")
        async with super()._begin(kind, timeout_s) as transaction:
            yield FaultyTransaction(transaction, operations)
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

    async def read_whole(self, read: Callable[[SyncTransaction], Result]) -> Result:
        """Without a thread, whose end would not be at a moment of the virtual clock."""
        async with self.reading() as transaction:
            return await transaction.run_sync(read)

    async def migrate(self, scripts: Path) -> None:
        """Migrate the template; its copies need none."""
        if FaultyDatabase.migrating:
            await super().migrate(scripts)

    async def close(self) -> None:
        """Connections are shared by all incarnations."""


def install(composition_roots: tuple[Any, ...], operations: Callable[[], Operations]) -> None:
    """Have these modules open `FaultyDatabase`s."""
    FaultyDatabase.operations = operations
    database_module.SqliteConnections = _shared_connections  # type: ignore[assignment, attr-defined]
    for module in composition_roots:
        module.Database = FaultyDatabase


def close_connections() -> None:
    """Close every idle connection, so that a forked process shares none."""
    for connections in _connections.values():
        connections.close()


def _shared_connections(
    url: str, begin: str, synchronous: str, _: Plans, **settings: Any
) -> SqliteConnections:
    key = (url, begin, synchronous)
    if key not in _connections:
        _connections[key] = SqliteConnections(*key, _plans.setdefault(url, Plans()), **settings)
    return _connections[key]
