"""A service's own database, with the same transactions on PostgreSQL and on SQLite.

On SQLite, an asyncio lock per database is held from BEGIN IMMEDIATE to the commit. Without it, a second
writer would wait for the file lock in C and block the event loop that the first writer needs. A transaction
must therefore await nothing but its own database. `FOR UPDATE` compiles to nothing on SQLite; the lock
replaces it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import make_url, text

from backbone.database.leader_work import (
    ADVISORY_LOCK,
    IDLE_TIMEOUT_S,
    IsLeader,
    Work,
    run_while_leader,
)
from backbone.database.messaging_tables import MessagingTables
from backbone.database.migration import upgrade
from backbone.database.plans import Plans
from backbone.database.sqlite import SqliteConnections
from backbone.database.transaction import SyncTransaction, Transaction, TransactionState
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable, is_transient
from backbone.postgres_url import milliseconds, split_tls

if TYPE_CHECKING:
    from backbone.database.leader_lock import LeaderLocks
    from backbone.database.postgres_pool import PostgresPool

log = structlog.get_logger()

Synchronous = Literal["FULL", "NORMAL", "OFF"]

TRANSACTION_TIMEOUT_S: Final = 5.0
"""Default bound of a PostgreSQL transaction, including the wait for a connection; less than callers wait."""
LONG_TIMEOUT_S: Final = 300.0
"""Bound of a transaction that reads a whole table, such as an audit."""
MIGRATION_TIMEOUT_S: Final = 3600.0
"""Bound of a migration, including the wait for a migration that another replica runs."""
READINESS_TIMEOUT_S: Final = 1.0
"""How long the database may take to answer a readiness probe; Kubernetes allows the probe 2 s."""

WRITERS_CACHE_KIB: Final = 2_000
"""The page cache of a connection for durable transactions, which change most pages."""

_Kind = Literal["durable", "lossy", "reading"]
Result = TypeVar("Result")

_BEGIN: Final[dict[_Kind, str]] = {
    "durable": "BEGIN",
    "lossy": "BEGIN; SET LOCAL synchronous_commit = off",
    "reading": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}

_SLOW = Counter(
    "ataa_database_slow_total", "Transactions abandoned because the database did not answer in time."
)


class Database:
    """A service's own database.

    `url` is `sqlite:///path` or `postgresql://…`; the latter may have libpq's `sslmode`, `sslrootcert` and
    other TLS parameters. `outbox_written` is set after each commit that added outbox rows, so that the
    relay does not have to poll. PostgreSQL releases the row locks and leader locks of a process that has
    sent nothing for `idle_timeout_s`.

    On PostgreSQL every transaction ends within `timeout_s`. A transaction that does not raises
    `DatabaseSlow`: its connection is discarded, and its outcome is unknown. A transaction that cannot reach
    the database raises `DatabaseUnavailable`.
    """

    def __init__(
        self,
        url: str,
        messaging_tables: MessagingTables,
        *,
        synchronous: Synchronous = "FULL",
        pool_size: int = 10,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        timeout_s: float = TRANSACTION_TIMEOUT_S,
    ):
        self.messaging_tables = messaging_tables
        self.outbox_written = asyncio.Event()
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._timeout_s = timeout_s
        self._last_response_at = float("-inf")
        self._probe_task: asyncio.Task[None] | None = None
        self._sqlite: _SqliteFile | None = None
        self._pool: PostgresPool | None = None
        self._leader_locks: LeaderLocks | None = None
        if self.is_sqlite:
            self._sqlite = _SqliteFile(url, synchronous)
        else:
            # Here: on SQLite, asyncpg would be loaded for nothing.
            from backbone.database.leader_lock import LeaderLocks
            from backbone.database.postgres import open_postgres
            from backbone.database.postgres_pool import PostgresPool

            driver, tls = split_tls(parsed)
            # A transaction awaits nothing but the database, so an idle one belongs to a process that is
            # stopped or hangs. Its row locks would block every other replica until it resumed.
            settings = {
                "idle_in_transaction_session_timeout": milliseconds(idle_timeout_s),
                "statement_timeout": milliseconds(timeout_s),
            }
            self._pool = PostgresPool(open_postgres(driver, tls, settings), pool_size)
            self._leader_locks = LeaderLocks(driver, tls, idle_timeout_s=idle_timeout_s)

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        """A durable transaction: committed when the block ends, rolled back when it raises.

        Callbacks of `after_commit` run after the commit.
        """
        async with self._begin("durable", timeout_s) as transaction:
            yield transaction
        for callback in transaction.state.after_commit:
            callback()

    @asynccontextmanager
    async def lossy_transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that a power failure may undo, for work that is then simply repeated."""
        async with self._begin("lossy") as transaction:
            yield transaction

    @asynccontextmanager
    async def reading(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        """A read-only transaction: all its statements see one snapshot, and it never waits for a writer."""
        async with self._begin("reading", timeout_s) as transaction:
            yield transaction

    async def read_whole(self, read: Callable[[SyncTransaction], Result]) -> Result:
        """`read` in a read-only transaction that may take `LONG_TIMEOUT_S`, because it reads whole tables.

        On SQLite it runs in a thread, on a connection of its own: the event loop goes on meanwhile.
        """
        if self._sqlite is not None:
            state = TransactionState(self.messaging_tables, self.outbox_written.set)
            return await asyncio.to_thread(self._sqlite.read, read, state)
        async with self.reading(timeout_s=LONG_TIMEOUT_S) as transaction:
            return await transaction.run_sync(read)

    async def is_responding(self) -> bool:
        """Whether the database answers within `READINESS_TIMEOUT_S`, or did so that recently.

        At most one probe runs at a time, so that readiness probes do not pile up on a hanging database.
        """
        if time.monotonic() - self._last_response_at < READINESS_TIMEOUT_S:
            return True
        if self._probe_task is None or self._probe_task.done():
            self._probe_task = asyncio.create_task(self._probe())
        await asyncio.wait({self._probe_task}, timeout=READINESS_TIMEOUT_S)
        return time.monotonic() - self._last_response_at < READINESS_TIMEOUT_S

    async def _probe(self) -> None:
        try:
            async with self.reading() as session:
                await session.execute(text("SELECT 1"))
        except Exception as error:
            if not is_transient(error):
                log.exception("database.cannot_be_asked", error=type(error).__name__)

    @asynccontextmanager
    async def leader_lock(self, name: str) -> AsyncIterator[IsLeader]:
        """A check to make before each round of work that only one process may do on this database.

        It returns whether this process holds the lock `name`, and takes the lock where nobody holds it. It
        raises ConnectionError once the lock was lost. On SQLite it is always true: the lock on the data
        directory admits one process.
        """
        if self._leader_locks is None:
            yield _always_leader
            return
        async with self._leader_locks.lock(name) as is_leader:
            yield is_leader

    def run_as_leader(self, name: str, work: Work) -> Work:
        """`work`, run by one process at a time; the others wait until that process ends."""
        if self.is_sqlite:
            return work

        async def run(stop: asyncio.Event) -> None:
            async with self.leader_lock(name) as is_leader:
                await run_while_leader(is_leader, work, stop)

        return run

    @asynccontextmanager
    async def _begin(self, kind: _Kind, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        state = TransactionState(self.messaging_tables, self.outbox_written.set)
        if self._sqlite is not None:
            async with self._sqlite.transaction(kind, state) as local:
                yield local
        else:
            assert self._pool is not None
            begin = _BEGIN[kind]
            if timeout_s is not None:
                begin += f"; SET LOCAL statement_timeout = {milliseconds(timeout_s)}"
            async with (
                self._bounded(timeout_s or self._timeout_s),
                self._pool.transaction(begin, state) as remote,
            ):
                yield remote
        self._last_response_at = time.monotonic()

    @asynccontextmanager
    async def _bounded(self, timeout_s: float) -> AsyncIterator[None]:
        """Bound the block, and raise network errors as `DatabaseUnavailable`."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            _SLOW.inc()
            if self._pool is not None:
                self._pool.replace_existing()
            raise DatabaseSlow(f"the database did not answer within {timeout_s:g} s") from error
        except DatabaseUnavailable:
            raise
        except (ConnectionError, ssl.SSLError) as error:
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error

    async def migrate(self, scripts: Path) -> None:
        """Upgrade the schema to the newest Alembic migration in `scripts`, under an advisory lock.

        Raises RuntimeError where the database is at a revision that `scripts` does not contain.
        """
        async with self.transaction(timeout_s=MIGRATION_TIMEOUT_S) as transaction:
            if not self.is_sqlite:
                await transaction.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            await transaction.run_sync(lambda sync: upgrade(sync.connection, scripts))

    async def close(self) -> None:
        """Close every connection; connections that hang are dropped after `timeout_s`."""
        if self._probe_task is not None:
            self._probe_task.cancel()
            await asyncio.wait({self._probe_task})
        if self._leader_locks is not None:
            await self._leader_locks.close()
        if self._pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._pool.close()
        if self._sqlite is not None:
            self._sqlite.close()


class _SqliteFile:
    """The connections to one file, by the kind of transaction, and the turns of its writers."""

    def __init__(self, url: str, synchronous: Synchronous) -> None:
        self._url = url
        plans = Plans()
        lossy = "OFF" if synchronous == "OFF" else "NORMAL"
        self._connections: dict[_Kind, SqliteConnections] = {
            "durable": SqliteConnections(
                url, "BEGIN IMMEDIATE", synchronous, plans, cache_kib=WRITERS_CACHE_KIB
            ),
            "lossy": SqliteConnections(url, "BEGIN IMMEDIATE", lossy, plans),
            "reading": SqliteConnections(url, "BEGIN DEFERRED", "NORMAL", plans),
        }
        self._write_lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, kind: _Kind, state: TransactionState) -> AsyncIterator[Transaction]:
        if kind == "reading":
            with self._connections[kind].transaction(state) as transaction:
                yield transaction
            return
        async with self._write_lock:
            with self._connections[kind].transaction(state) as transaction:
                yield transaction

    def read(self, read: Callable[[SyncTransaction], Result], state: TransactionState) -> Result:
        """For a thread other than the event loop's, with which it shares no connection and no plans."""
        connections = SqliteConnections(self._url, "BEGIN DEFERRED", "NORMAL", Plans())
        try:
            with connections.transaction(state) as transaction:
                return read(SyncTransaction(transaction))
        finally:
            connections.close()

    def close(self) -> None:
        for connections in self._connections.values():
            connections.close()


async def _always_leader() -> bool:
    return True
