"""The pool of PostgreSQL connections, and transactions on them.

A connection that was idle is pinged before its next use; on a busy one, a failure shows at its next
statement. SQLAlchemy's pool and session are not used: with them, a transaction that reads one row takes six
times the CPU that asyncpg needs for it (docs/decisions/0012).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Concatenate, Final, NoReturn, cast

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from backbone.database.plans import Mappings, Parameters, Plan, Plans, Rows, Tuples, Values, rows_of
from backbone.database.transaction import Given, Result, SyncTransaction, TransactionState
from backbone.database.transient import TransientFailure, transient_failure

CHECK_AFTER_IDLE_S: Final = 1.0
"""A connection that was idle for so long is pinged before its next use."""
COPY_FROM: Final = 20
"""From so many rows on, `COPY` takes less CPU than `executemany` in client and server."""
PING_TIMEOUT_S: Final = 2.0
"""How long an idle connection may take to answer before it is replaced."""

_DRIVER_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresConnection:
    """A connection: asyncpg's, and SQLAlchemy's for statements that have no plan."""

    def __init__(self, sync: Connection, driver: asyncpg.Connection[Any], adapter: Any) -> None:
        self.sync = sync
        self.driver = driver
        self.made_at = self.used_at = time.monotonic()
        self._adapter = adapter

    @classmethod
    async def open(cls, engine: AsyncEngine) -> PostgresConnection:
        """Connect. Raises `DatabaseUnavailable`."""
        connection = await engine.connect()
        fairy = await connection.get_raw_connection()
        driver, adapter = cast("asyncpg.Connection[Any]", fairy.driver_connection), fairy.dbapi_connection
        sync = cast(Connection, connection.sync_connection)
        sync.detach()  # it is closed here, and not by SQLAlchemy when it is garbage collected
        return cls(sync, driver, adapter)

    def terminate(self) -> None:
        """Close it at once, without waiting for the server."""
        self.driver.terminate()

    async def close(self) -> None:
        """Close it, and wait for the server to end it."""
        with suppress(*_DRIVER_ERRORS):
            await self.driver.close()

    def raise_translated(self, sql: str, error: Exception) -> NoReturn:
        """Raise asyncpg's error as SQLAlchemy's."""
        try:
            self._adapter._handle_exception(error)
        except Exception as translated:
            dbapi_error = self.sync.dialect.loaded_dbapi.Error
            if translated is error or not isinstance(translated, dbapi_error):
                raise
            raise DBAPIError.instance(
                sql, None, translated, dbapi_error, hide_parameters=True, dialect=self.sync.dialect,
                connection_invalidated=self.driver.is_closed(),
            ) from error  # fmt: skip
        raise error


class PostgresPool:
    """At most `size` connections of `engine`; the one used last is used next."""

    def __init__(self, engine: AsyncEngine, size: int) -> None:
        self._engine = engine
        self._free = asyncio.Semaphore(size)
        self._idle: list[PostgresConnection] = []
        self._trusted_since = float("-inf")
        self._plans = Plans()
        self._closed = False

    def replace_existing(self) -> None:
        """Replace every connection made before now at its next use: one hung, so the others may.

        Each would cost its own wait otherwise. A firewall that lost its state hangs every connection opened
        before.
        """
        self._trusted_since = time.monotonic()

    @asynccontextmanager
    async def transaction(self, begin: str, state: TransactionState) -> AsyncIterator[PostgresTransaction]:
        """A transaction: committed when the block ends, rolled back when it raises.

        `begin` is one or several statements that begin it.
        """
        async with self._free:
            connection = await self._take()
            healthy = False
            try:
                transaction = PostgresTransaction(connection, self._plans, state)
                await transaction.run(begin)
                try:
                    yield transaction
                except Exception as error:
                    healthy = await self._rolled_back(transaction, error)
                    raise
                await transaction.commit()
                healthy = True
            finally:
                state.ended = True
                self._give_back(connection, healthy=healthy)

    async def _rolled_back(self, transaction: PostgresTransaction, error: Exception) -> bool:
        """Roll back after `error`; whether the connection can be used again."""
        if transient_failure(error) is TransientFailure.READ_ONLY:
            return False  # the server became a standby: a new connection may lead to the current primary
        with suppress(OSError, DBAPIError):
            await transaction.run("ROLLBACK")
            return True
        return False

    async def _take(self) -> PostgresConnection:
        while self._idle:
            connection = self._idle.pop()
            if await self._is_alive(connection):
                return connection
            connection.terminate()
        return await PostgresConnection.open(self._engine)

    async def _is_alive(self, connection: PostgresConnection) -> bool:
        if connection.made_at < self._trusted_since or connection.driver.is_closed():
            return False
        if time.monotonic() - connection.used_at < CHECK_AFTER_IDLE_S:
            return True
        try:
            await connection.driver.execute("SELECT 1", timeout=PING_TIMEOUT_S)
        except TimeoutError:
            self.replace_existing()
            return False
        except _DRIVER_ERRORS:
            return False
        except BaseException:
            connection.terminate()
            raise
        return True

    def _give_back(self, connection: PostgresConnection, *, healthy: bool) -> None:
        # Not healthy: cancelled in the middle of a statement, cut, or of unknown state.
        if not healthy or self._closed or connection.driver.is_closed():
            connection.terminate()
            return
        connection.used_at = time.monotonic()
        self._idle.append(connection)

    async def close(self) -> None:
        """Close the idle connections at once, and those in use when their transactions end."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.close()
            except BaseException:
                connection.terminate()
                raise


class PostgresTransaction:
    """A `Transaction`."""

    __slots__ = ("_connection", "_plans", "dialect", "state")

    def __init__(self, connection: PostgresConnection, plans: Plans, state: TransactionState) -> None:
        self._connection = connection
        self._plans = plans
        self.state = state
        self.dialect: Dialect = connection.sync.dialect

    async def execute(self, statement: Any, parameters: Values = None) -> Rows:
        """See `Transaction`."""
        self.state.require_open()
        if isinstance(parameters, Tuples):
            return await self._execute_tuples(statement, parameters)
        rows = rows_of(parameters)
        if (plan := self._plan(statement, rows)) is not None:
            return await self._execute_plan(plan, rows)
        return await greenlet_spawn(self._execute_unplanned, statement, parameters)

    async def run_sync(
        self,
        function: Callable[Concatenate[SyncTransaction, Given], Result],
        *arguments: Given.args,
        **named: Given.kwargs,
    ) -> Result:
        """See `Transaction`."""
        return await greenlet_spawn(lambda: function(SyncTransaction(self), *arguments, **named))

    def _plan(self, statement: Any, rows: Sequence[Parameters]) -> Plan | None:
        """The statement's plan, if it has one that can be executed with these parameters."""
        plan = self._plans.find(statement, rows[0], self.dialect) if rows else None
        if plan is None or len(rows) == 1 or plan.array_sql is not None or not plan.returns_rows:
            return plan
        return None  # SQLAlchemy sends several rows that return something as one statement

    async def _execute_plan(self, plan: Plan, rows: Sequence[Parameters]) -> Rows:
        driver = self._connection.driver
        try:
            if len(rows) == 1:
                sql, values = plan.sql, plan.values(rows[0])
            elif plan.array_sql is not None:
                sql, values = plan.array_sql, plan.arrays(rows)
            else:
                await driver.executemany(plan.sql, [plan.values(row) for row in rows])
                return Rows((), -1)
            if plan.returns_rows:
                records = await driver.fetch(sql, *values)
                return Rows(plan.rows(records), len(records))
            status = await driver.execute(sql, *values)
        except _DRIVER_ERRORS as error:
            self._connection.raise_translated(plan.sql, error)
        return Rows((), int(status.rpartition(" ")[2]))

    async def _execute_tuples(self, statement: Any, given: Tuples) -> Rows:
        plan = self._plans.of_tuples(statement, given.names, self.dialect)
        driver, rows = self._connection.driver, given.rows
        try:
            if len(rows) == 1:
                status = await driver.execute(plan.sql, *plan.tuples(rows)[0])
            elif plan.array_sql is not None:
                status = await driver.execute(plan.array_sql, *zip(*plan.tuples(rows), strict=True))
            elif plan.copied_table is not None and len(rows) >= COPY_FROM:
                status = await driver.copy_records_to_table(
                    plan.copied_table, records=rows, columns=given.names
                )
            else:
                await driver.executemany(plan.sql, plan.tuples(rows))
                return Rows((), -1)
        except _DRIVER_ERRORS as error:
            self._connection.raise_translated(plan.sql, error)
        return Rows((), int(status.rpartition(" ")[2]))

    def _execute_unplanned(self, statement: Any, parameters: Mappings) -> Rows:
        result = self._connection.sync.execute(statement, parameters)
        return Rows(result.all() if result.returns_rows else (), result.rowcount)

    def execute_now(self, statement: Any, parameters: Values = None) -> Rows:
        """Execute a statement within `greenlet_spawn`."""
        self.state.require_open()
        if isinstance(parameters, Tuples):
            return await_only(self._execute_tuples(statement, parameters))
        rows = rows_of(parameters)
        if (plan := self._plan(statement, rows)) is not None:
            return await_only(self._execute_plan(plan, rows))
        return self._execute_unplanned(statement, parameters)

    async def commit(self) -> None:
        """Commit. Raises `InvalidRequestError` where PostgreSQL rolled back instead.

        It does so, without an error, after a statement that failed. Code that handled the error of that
        statement must not go on as if its other changes were stored.
        """
        if await self.run("COMMIT") != "COMMIT":
            raise InvalidRequestError("the transaction was rolled back: one of its statements had failed")

    async def run(self, sql: str) -> str:
        """Run statements without parameters and rows; return the last one's command tag."""
        try:
            return str(await self._connection.driver.execute(sql))
        except _DRIVER_ERRORS as error:
            self._connection.raise_translated(sql, error)

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for migrations. Alembic sees that it is in a transaction already."""
        if not self._connection.sync.in_transaction():
            self._connection.sync.begin()
        return self._connection.sync
