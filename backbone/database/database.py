"""One service's database: PostgreSQL, or SQLite on the event loop; the same transactions on both.

On SQLite one asyncio lock a file is held from BEGIN IMMEDIATE to commit: a second writer that
waited in C would freeze the loop its holder needs. So inside a transaction nothing but that
database is awaited. `FOR UPDATE` compiles to nothing there; the lock stands for it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from prometheus_client import Counter
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    make_url,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from backbone.database.leader_lock import IDLE_TIMEOUT_S, IsLeader, LeaderLocks, Work, run_while_leader
from backbone.database.pool_check import PoolCheck
from backbone.database.postgres import milliseconds, open_postgres
from backbone.database.sqlite import SqliteSession, open_sqlite
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable, TransientFailure, transient_failure
from backbone.database.transient import is_transient as is_transient
from backbone.postgres_url import split_tls

log = structlog.get_logger()

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Synchronous = Literal["FULL", "NORMAL", "OFF"]

TRANSACTION_TIMEOUT_S: Final = 5.0
"""How long a transaction on PostgreSQL may take, with the wait for a connection: less than callers wait."""
LONG_TIMEOUT_S: Final = 300.0
"""The bound of a transaction that reads a whole table, such as an audit."""
MIGRATION_TIMEOUT_S: Final = 3600.0
"""The bound of a migration, the wait for another replica's included."""
READINESS_TIMEOUT_S: Final = 1.0
"""How long the database may take to answer a readiness probe; Kubernetes gives the probe 2 s."""

_SLOW = Counter(
    "ataa_database_slow_total", "Transactions given up because the database did not answer in time."
)

BIGINT_KEY = BigInteger().with_variant(Integer, "sqlite")
"""An auto-numbered key: SQLite numbers only columns of type INTEGER."""


class Utc(TypeDecorator[datetime]):
    """An aware UTC moment, stored as microseconds since 1970: exact, sortable, equal on both stores."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else from_microseconds(value)


def microseconds(value: datetime) -> int:
    """A moment as whole microseconds since 1970."""
    return (value - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The aware UTC moment `value` microseconds after 1970."""
    return _EPOCH + _MICROSECOND * value


@dataclass(frozen=True, slots=True)
class MessagingTables:
    """The tables of a service's doors: what it is about to say, has heard, and has answered."""

    outbox: Table
    inbox: Table
    positions: Table
    idempotency: Table


def messaging_tables(metadata: MetaData) -> MessagingTables:
    """Declare the door tables in a service's own metadata."""
    outbox = Table(
        "outbox",
        metadata,
        Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        Column("event_id", String, nullable=False),
        Column("name", String, nullable=False),
        Column("topic", String, nullable=False),
        Column("key", String, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("traceparent", String),
        Column("said_at", Utc, nullable=False),
        sqlite_autoincrement=True,
    )
    inbox = Table(
        "inbox",
        metadata,
        Column("group", String, primary_key=True),
        Column("event_id", String, primary_key=True),
        Column("heard_at", Utc, nullable=False),
        Index("inbox_by_age", "heard_at"),
        sqlite_with_rowid=False,
    )
    positions = Table(
        "positions",
        metadata,
        Column("group", String, primary_key=True),
        Column("topic", String, primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("next", BigInteger, nullable=False),
    )
    idempotency = Table(
        "idempotency",
        metadata,
        Column("scope", String, primary_key=True),
        Column("key", String, primary_key=True),
        Column("body_hash", String, nullable=False),
        Column("status", Integer),  # None while the first request still runs
        Column("reply", LargeBinary),
        Column("made_at", Utc, nullable=False),
        Index("idempotency_by_age", "made_at"),
    )
    return MessagingTables(outbox, inbox, positions, idempotency)


def after_commit(session: AsyncSession | Session, callback: Callable[[], None]) -> None:
    """Call `callback` once the transaction `session` is in has been committed; never if it fails."""
    session.info.setdefault("after_commit", []).append(callback)


def messaging_tables_of(session: AsyncSession | Session) -> MessagingTables:
    """The door tables of the database `session` talks to."""
    found: MessagingTables = session.info["doors"]
    return found


class Database:
    """A service's own database.

    `url` is `sqlite:///path` or `postgresql://…`, in which libpq's `sslmode`, `sslrootcert` and the like are
    understood. `outbox_written` is set whenever a committed transaction announced something, so that the
    relay need
    not poll. What a process owns or has locked here goes to others once it was silent for `idle_timeout_s`.

    On PostgreSQL a transaction ends within `timeout_s`, `timeout_s` by default: one that does not raises
    DatabaseSlow, its connection is thrown away, and whether it was committed is unknown. One that cannot
    reach the database raises DatabaseUnavailable.
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
        self._write_lock: asyncio.Lock | None = None
        self._pool_check: PoolCheck | None = None
        self._leader_locks: LeaderLocks | None = None
        self._durable_engine: Engine | AsyncEngine
        self._lossy_engine: Engine | AsyncEngine
        self._read_engine: Engine | AsyncEngine
        if self.is_sqlite:
            self._write_lock = asyncio.Lock()
            self._durable_engine = open_sqlite(url, "IMMEDIATE", synchronous)
            self._lossy_engine = open_sqlite(url, "IMMEDIATE", "OFF" if synchronous == "OFF" else "NORMAL")
            self._read_engine = open_sqlite(url, "DEFERRED", "NORMAL")
        else:
            driver, tls = split_tls(parsed)
            # Nothing but the database is awaited in a transaction: one that is silent is of a process that is
            # stopped or hangs, and its locks would hold up every other replica until it wakes.
            settings = {
                "idle_in_transaction_session_timeout": milliseconds(idle_timeout_s),
                "statement_timeout": milliseconds(timeout_s),
            }
            self._durable_engine = self._lossy_engine = open_postgres(
                driver, tls, settings, pool_size=pool_size, max_overflow=0
            )
            self._pool_check = PoolCheck(self._durable_engine)
            self._read_engine = self._durable_engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._leader_locks = LeaderLocks(driver, tls, idle_timeout_s=idle_timeout_s)

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[AsyncSession]:
        """A durable transaction: committed when the block ends, rolled back when it raises."""
        async with self._write_turn(), self._session(self._durable_engine, timeout_s) as session:
            yield session
        for callback in session.info.pop("after_commit", ()):
            callback()

    @asynccontextmanager
    async def lossy_transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction a power cut may undo, for what would merely be done again."""
        async with self._write_turn(), self._session(self._lossy_engine) as session:
            if not self.is_sqlite:
                await session.execute(text("SET LOCAL synchronous_commit = off"))
            yield session

    @asynccontextmanager
    async def reading(self, *, timeout_s: float | None = None) -> AsyncIterator[AsyncSession]:
        """A consistent view for reads: all of its questions see one moment. It waits for no writer."""
        async with self._session(self._read_engine, timeout_s) as session:
            yield session

    async def is_responding(self) -> bool:
        """Whether the database answers within `READINESS_TIMEOUT_S`, or did so within the last
        `READINESS_TIMEOUT_S`.

        One probe at a time: a database that hangs is not asked anew by every readiness probe.
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
        """A question to ask before each round of what one process at a time may do on this database.

        It answers whether this process owns `name`, taking it if nobody does, and raises
        ConnectionError once an ownership is lost. On SQLite the lock on the data directory stands for it.
        """
        if self._leader_locks is None:
            yield _always_leader
            return
        async with self._leader_locks.lock(name) as is_leader:
            yield is_leader

    def run_as_leader(self, name: str, work: Work) -> Work:
        """`work`, in one process at a time; in the others it waits for that one's end."""
        if self.is_sqlite:
            return work

        async def run(stop: asyncio.Event) -> None:
            async with self.leader_lock(name) as is_leader:
                await run_while_leader(is_leader, work, stop)

        return run

    def _write_turn(self) -> AbstractAsyncContextManager[Any]:
        return self._write_lock or nullcontext()

    @asynccontextmanager
    async def _session(
        self, engine: Engine | AsyncEngine, timeout_s: float | None = None
    ) -> AsyncIterator[AsyncSession]:
        """A session in a transaction of its own."""
        info: dict[Any, Any] = {"doors": self.messaging_tables, "said": self.outbox_written}
        if isinstance(engine, AsyncEngine):
            async with (
                self._bounded(timeout_s or self._timeout_s),
                self._postgres_session(engine, info) as session,
            ):
                if timeout_s is not None:
                    await session.execute(text(f"SET LOCAL statement_timeout = {milliseconds(timeout_s)}"))
                yield session
        else:
            local = SqliteSession(engine, info)
            with local.sync_session as plain, plain.begin():
                yield local
        self._last_response_at = time.monotonic()

    @asynccontextmanager
    async def _bounded(self, timeout_s: float) -> AsyncIterator[None]:
        """Bound what is done with PostgreSQL in the block, and name what the network does to it."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            _SLOW.inc()
            if self._pool_check is not None:
                self._pool_check.replace_existing()
            raise DatabaseSlow(f"the database did not answer within {timeout_s:g} s") from error
        except DatabaseUnavailable:
            raise
        except (ConnectionError, ssl.SSLError) as error:
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error

    @asynccontextmanager
    async def _postgres_session(
        self, engine: AsyncEngine, info: dict[Any, Any]
    ) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine, expire_on_commit=False, info=info) as session, session.begin():
            try:
                yield session
            except DBAPIError as error:
                if transient_failure(error) is TransientFailure.READ_ONLY:
                    # The server became a standby: a new connection may lead to the present primary.
                    await (await session.connection()).invalidate()
                raise

    async def migrate(self, scripts: Path) -> None:
        """Bring the schema to the newest of the Alembic migrations in `scripts`, under a lock.

        Raises RuntimeError where the database was made by a newer version than this code.
        """
        async with self.transaction(timeout_s=MIGRATION_TIMEOUT_S) as session:
            if not self.is_sqlite:
                await session.execute(text("SELECT pg_advisory_xact_lock(7355608)"))
            await session.run_sync(lambda plain: _upgrade(plain.connection(), scripts))

    async def close(self) -> None:
        """Close every connection; those that hang are dropped after `timeout_s`."""
        if self._probe_task is not None:
            self._probe_task.cancel()
            await asyncio.wait({self._probe_task})
        if self._leader_locks is not None:
            await self._leader_locks.close()
        if isinstance(self._durable_engine, AsyncEngine):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._durable_engine.dispose()  # all three are one
            return
        for engine in (self._durable_engine, self._lossy_engine, self._read_engine):
            assert isinstance(engine, Engine)
            engine.dispose()


async def _always_leader() -> bool:
    return True


def _upgrade(connection: Connection, scripts: Path) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    found = _current_revision(connection)
    if found is not None and found not in known:
        raise RuntimeError(f"the database is at version {found}, which this code does not know")
    command.upgrade(config, "head")


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
