"""Transactions on SQLite. Their calls never suspend.

A local SQLite statement takes microseconds, less than the two thread switches of aiosqlite or the greenlet
switches of SQLAlchemy's asyncio extension (docs/decisions/0001). The longest block of the event loop is the
fsync of a commit, a quarter of a millisecond.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Concatenate, Final, NoReturn, cast

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from backbone.database.one_of import FROM_HEX
from backbone.database.plans import Parameters, Plan, Plans, Rows, Tuples, Values, rows_of
from backbone.database.transaction import Given, Result, SyncTransaction, TransactionState

CACHE_KIB: Final = 500
"""The page cache of a connection. SQLite empties it after each commit on another one, so more is of no use.

The pages of the file are in the system's cache too.
"""

ROWS_AT_ONCE: Final = 50
"""Rows of one statement: each takes half a microsecond less than with a statement of its own."""


class SqliteConnections:
    """The connections to one SQLite file, in WAL mode; each runs one transaction at a time.

    `begin` is the statement that begins a transaction. A statement that meets the lock of another process
    fails at once: waiting for it in C would block the event loop.
    """

    def __init__(
        self, url: str, begin: str, synchronous: str, plans: Plans, *, cache_kib: int = CACHE_KIB
    ) -> None:
        self._engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": 0},
            hide_parameters=True,
        )
        self._begin = begin
        self._plans = plans
        self._idle: list[Connection] = []
        settings = (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            f"cache_size=-{cache_kib}",
        )

        @event.listens_for(self._engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            for pragma in settings:
                connection.execute(f"PRAGMA {pragma}")
            connection.create_function(FROM_HEX, 1, bytes.fromhex, deterministic=True)

    @contextmanager
    def transaction(self, state: TransactionState) -> Iterator[SqliteTransaction]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        # A transaction may suspend between its statements, so each has a connection of its own.
        connection = self._idle.pop() if self._idle else self._engine.connect()
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        transaction = SqliteTransaction(connection, driver, self._plans, state)
        try:
            transaction.run(self._begin)
            yield transaction
            transaction.run("COMMIT")
        except BaseException:
            if driver.in_transaction:  # not after errors with which SQLite itself rolls back
                driver.rollback()
            raise
        finally:
            state.ended = True
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()


class SqliteTransaction:
    """A `Transaction` and a `SyncTransaction`."""

    __slots__ = ("_connection", "_driver", "_plans", "dialect", "state")

    def __init__(
        self, connection: Connection, driver: sqlite3.Connection, plans: Plans, state: TransactionState
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._plans = plans
        self.state = state
        self.dialect: Dialect = connection.dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        """See `Transaction`."""
        return self.execute_now(statement, parameters)

    async def run_sync(
        self,
        function: Callable[Concatenate[SyncTransaction, Given], Result],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> Result:
        """See `Transaction`."""
        return function(SyncTransaction(self), *arguments, **named)

    def execute_now(self, statement: Any, parameters: Values = None) -> Rows:
        """Execute a statement."""
        self.state.require_open()
        if isinstance(parameters, Tuples):
            plan = self._plans.of_tuples(statement, parameters.names, self.dialect)
            return self._execute_tuples(plan, parameters)
        rows = rows_of(parameters)
        found = self._plans.find(statement, rows[0], self.dialect) if rows else None
        if found is None:
            result = self._connection.execute(statement, parameters)
            return Rows(result.all() if result.returns_rows else (), result.rowcount)
        return self._execute_plan(found, rows)

    def _execute_plan(self, plan: Plan, rows: Sequence[Parameters]) -> Rows:
        try:
            if len(rows) == 1:
                cursor = self._driver.execute(plan.sql, plan.values(rows[0]))
                return Rows(plan.rows(cursor.fetchall()) if plan.returns_rows else (), cursor.rowcount)
            if not plan.returns_rows:
                cursor = self._driver.executemany(plan.sql, map(plan.values, rows))
                return Rows((), cursor.rowcount)
            found = [
                record
                for row in rows
                for record in self._driver.execute(plan.sql, plan.values(row)).fetchall()
            ]
            return Rows(plan.rows(found), len(found))
        except sqlite3.Error as error:
            self._raise(plan.sql, error)

    def _execute_tuples(self, plan: Plan, given: Tuples) -> Rows:
        rows, changed = plan.tuples(given.rows), 0
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        try:
            for begin in range(0, whole, ROWS_AT_ONCE):
                values = list(chain.from_iterable(rows[begin : begin + ROWS_AT_ONCE]))
                changed += self._driver.execute(plan.several_sql(ROWS_AT_ONCE), values).rowcount
            if rest := rows[whole:]:
                changed += self._driver.executemany(plan.sql, rest).rowcount
            return Rows((), changed)
        except sqlite3.Error as error:
            self._raise(plan.sql, error)

    def run(self, sql: str) -> None:
        """Run a statement without parameters and rows."""
        try:
            self._driver.execute(sql)
        except sqlite3.Error as error:
            self._raise(sql, error)

    def _raise(self, sql: str, error: sqlite3.Error) -> NoReturn:
        raise DBAPIError.instance(
            sql, None, error, sqlite3.Error, hide_parameters=True, dialect=self.dialect
        ) from error

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for migrations. Alembic sees that it is in a transaction already."""
        if not self._connection.in_transaction():
            self._connection.begin()
        return self._connection
