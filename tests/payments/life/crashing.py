"""A database at which the process dies: between two statements, before a commit, or right after one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.engine import Dialect

from backbone.database.database import Database
from backbone.database.plans import Rows, Values
from backbone.database.transaction import Transaction, TransactionState


class Crash(BaseException):
    """The process dies here. Nothing that handles errors handles this one."""


class CrashingDatabase(Database):
    """A database whose transactions count their steps; `crash_at` names the one at which `Crash` is raised.

    Each statement, the moment before a commit and the moment after it are steps. `commits` counts the durable
    transactions that were committed.
    """

    commits = 0
    _left: int | None = None

    def crash_at(self, step: int | None) -> None:
        """Crash at this step from now, 1 being the next one; None: not any more."""
        self._left = step

    def step(self) -> None:
        """One step; raises `Crash` at the chosen one."""
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0:
            self._left = None
            raise Crash

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        async with super().transaction(timeout_s=timeout_s) as transaction:
            yield _CrashingTransaction(transaction, self.step)
            self.step()
        self.commits += 1
        self.step()


class _CrashingTransaction:
    """A transaction that takes a step before each statement."""

    def __init__(self, transaction: Transaction, step: Callable[[], None]) -> None:
        self._transaction = transaction
        self._step = step
        self.state: TransactionState = transaction.state
        self.dialect: Dialect = transaction.dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        self._step()
        return await self._transaction.execute(statement, parameters)

    async def run_sync(self, function: Any, *arguments: Any, **named: Any) -> Any:
        self._step()
        return await self._transaction.run_sync(function, *arguments, **named)
