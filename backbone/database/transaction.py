"""A transaction as the services see it, the same on both stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from backbone.database.messaging_tables import MessagingTables
from backbone.database.plans import Rows, Values

Given = ParamSpec("Given")
Result = TypeVar("Result")


class TransactionState:
    """What a transaction carries besides its statements: the messaging tables, callbacks after the commit."""

    __slots__ = ("after_commit", "messaging_tables", "wake_relay")

    def __init__(self, messaging_tables: MessagingTables, wake_relay: Callable[[], None]) -> None:
        self.messaging_tables = messaging_tables
        self.wake_relay = wake_relay
        self.after_commit: list[Callable[[], None]] = []


class SyncTransaction(Protocol):
    """A transaction within `Transaction.run_sync`: its statements are executed without `await`."""

    state: TransactionState
    dialect: Dialect

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for migrations."""
        ...

    def execute(self, statement: Any, parameters: Values = None) -> Rows:
        """Execute a statement of SQLAlchemy Core. Raises `sqlalchemy.exc.DBAPIError`."""
        ...


class Transaction(Protocol):
    """A transaction, from `Database.transaction`, `lossy_transaction` or `reading`."""

    state: TransactionState
    dialect: Dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        """Execute a statement of SQLAlchemy Core. Raises `sqlalchemy.exc.DBAPIError`."""
        ...

    async def run_sync(
        self,
        function: Callable[Concatenate[SyncTransaction, Given], Result],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> Result:
        """Call `function` with this transaction as a `SyncTransaction`."""
        ...


def after_commit(transaction: Transaction | SyncTransaction, callback: Callable[[], None]) -> None:
    """Call `callback` once the transaction has been committed; never if it is rolled back."""
    transaction.state.after_commit.append(callback)


def wake_relay_after_commit(transaction: Transaction | SyncTransaction) -> None:
    """Wake the outbox relay once the transaction is committed."""
    after_commit(transaction, transaction.state.wake_relay)


def messaging_tables_of(transaction: Transaction | SyncTransaction) -> MessagingTables:
    """The messaging tables of the transaction's database."""
    return transaction.state.messaging_tables
