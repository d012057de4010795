"""A database whose durable transactions are broken off after any statement, or lose their answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Concatenate, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.engine import Dialect

from backbone.database.database import Database
from backbone.database.messaging_tables import MessagingTables
from backbone.database.plans import Rows, Values
from backbone.database.transaction import Given, Result, SyncTransaction, Transaction, TransactionState
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable


class Kind(Enum):
    """What happens at the place."""

    ERROR = "a permanent error is raised"
    CUT = "the connection is dropped"
    LOST_ANSWER = "the transaction is committed, and its caller gets an error"


class Fault(NamedTuple):
    """Happens after so many more statements, at least one, whichever transactions they are in."""

    statements: int
    kind: Kind


class BrokenOff(Exception):
    """The permanent error."""


class Faults:
    """Faults that are still to happen, one after the other. `happened` counts the others."""

    def __init__(self, script: Iterable[Fault] = ()) -> None:
        self.happened = 0
        self.arm(script)

    def arm(self, script: Iterable[Fault]) -> None:
        """Have these happen from now on, and no others."""
        self._script = iter(script)
        self._next()

    def _next(self) -> None:
        self._left, self._kind = next(self._script, None) or (-1, Kind.ERROR)

    def after_statement(self) -> Kind | None:
        """Count a statement that was executed; the kind of the fault that is to happen now."""
        self._left -= 1
        if self._left != 0:
            return None
        kind = self._kind
        self.happened += 1
        self._next()
        return kind


class _Executor:
    """What a `SyncTransaction` executes its statements with."""

    def __init__(self, transaction: SyncTransaction, fault_now: Callable[[], Kind | None]) -> None:
        self._transaction = transaction
        self._fault_now = fault_now
        self.state: TransactionState = transaction.state
        self.dialect: Dialect = transaction.dialect

    @property
    def connection(self) -> Connection:
        return self._transaction.connection

    def execute_now(self, statement: Any, parameters: Values = None) -> Rows:
        rows = self._transaction.execute(statement, parameters)
        match self._fault_now():
            case Kind.ERROR:
                raise BrokenOff
            case Kind.CUT if self.dialect.name == "postgresql":
                self._transaction.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            case Kind.CUT:
                raise DatabaseUnavailable("the connection was dropped")
        return rows


class _BreakableTransaction:
    """A `Transaction`."""

    def __init__(self, transaction: Transaction, faults: Faults) -> None:
        self.answer_is_lost = False
        self._transaction = transaction
        self._faults = faults
        self.state: TransactionState = transaction.state
        self.dialect: Dialect = transaction.dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        return await self.run_sync(lambda inner: inner.execute(statement, parameters))

    async def run_sync(
        self,
        function: Callable[Concatenate[SyncTransaction, Given], Result],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> Result:
        def run(inner: SyncTransaction) -> Result:
            return function(SyncTransaction(_Executor(inner, self._fault_now)), *arguments, **named)

        return await self._transaction.run_sync(run)

    def _fault_now(self) -> Kind | None:
        kind = self._faults.after_statement()
        self.answer_is_lost = self.answer_is_lost or kind is Kind.LOST_ANSWER
        return kind


class BreakableDatabase(Database):
    """A migrated database whose durable transactions have `faults`."""

    def __init__(self, url: str, messaging_tables: MessagingTables, faults: Faults) -> None:
        super().__init__(url, messaging_tables, synchronous="OFF")
        self._faults = faults

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        """See `Database`."""
        async with super().transaction(timeout_s=timeout_s) as transaction:
            breakable = _BreakableTransaction(transaction, self._faults)
            yield breakable
        if breakable.answer_is_lost:
            raise DatabaseSlow("the answer to the commit was lost")
