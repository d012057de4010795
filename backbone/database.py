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

from backbone.idle import PoolCheck
from backbone.in_loop import InLoopSession, open_sqlite
from backbone.ownership import SILENT_S, Owned, Ownerships, Work, work_while_owned
from backbone.postgres import milliseconds, open_postgres
from backbone.postgres_url import split_tls
from backbone.transient import DatabaseSlow, DatabaseUnavailable, Trouble, trouble
from backbone.transient import may_pass as may_pass

log = structlog.get_logger()

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Synchronous = Literal["FULL", "NORMAL", "OFF"]

ANSWER_S: Final = 5.0
"""How long a transaction on PostgreSQL may take, with the wait for a connection: less than callers wait."""
LONG_S: Final = 300.0
"""The bound of a transaction that reads a whole table, such as an audit."""
MIGRATE_S: Final = 3600.0
"""The bound of a migration, the wait for another replica's included."""
READY_S: Final = 1.0
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
        return None if value is None else moment(value)


def microseconds(value: datetime) -> int:
    """A moment as whole microseconds since 1970."""
    return (value - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The aware UTC moment `value` microseconds after 1970."""
    return _EPOCH + _MICROSECOND * value


@dataclass(frozen=True, slots=True)
class Doors:
    """The tables of a service's doors: what it is about to say, has heard, and has answered."""

    outbox: Table
    inbox: Table
    positions: Table
    idempotency: Table


def doors(metadata: MetaData) -> Doors:
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
    return Doors(outbox, inbox, positions, idempotency)


def after_commit(session: AsyncSession | Session, act: Callable[[], None]) -> None:
    """Call `act` once the transaction `session` is in has been committed; never if it fails."""
    session.info.setdefault("after_commit", []).append(act)


def doors_of(session: AsyncSession | Session) -> Doors:
    """The door tables of the database `session` talks to."""
    found: Doors = session.info["doors"]
    return found


class Database:
    """A service's own database.

    `url` is `sqlite:///path` or `postgresql://…`, in which libpq's `sslmode`, `sslrootcert` and the like are
    understood. `said` is set whenever a committed transaction announced something, so that the relay need
    not poll. What a process owns or has locked here goes to others once it was silent for `silent_s`.

    On PostgreSQL a transaction ends within `within_s`, `answer_s` by default: one that does not raises
    DatabaseSlow, its connection is thrown away, and whether it was committed is unknown. One that cannot
    reach the database raises DatabaseUnavailable.
    """

    def __init__(
        self,
        url: str,
        doors: Doors,
        *,
        synchronous: Synchronous = "FULL",
        pool_size: int = 10,
        silent_s: float = SILENT_S,
        answer_s: float = ANSWER_S,
    ):
        self.doors = doors
        self.said = asyncio.Event()
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._answer_s = answer_s
        self._answered_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._writing: asyncio.Lock | None = None
        self._pool: PoolCheck | None = None
        self._ownerships: Ownerships | None = None
        self._durable: Engine | AsyncEngine
        self._lossy: Engine | AsyncEngine
        self._reader: Engine | AsyncEngine
        if self.is_sqlite:
            self._writing = asyncio.Lock()
            self._durable = open_sqlite(url, "IMMEDIATE", synchronous)
            self._lossy = open_sqlite(url, "IMMEDIATE", "OFF" if synchronous == "OFF" else "NORMAL")
            self._reader = open_sqlite(url, "DEFERRED", "NORMAL")
        else:
            driver, tls = split_tls(parsed)
            # Nothing but the database is awaited in a transaction: one that is silent is of a process that is
            # stopped or hangs, and its locks would hold up every other replica until it wakes.
            settings = {
                "idle_in_transaction_session_timeout": milliseconds(silent_s),
                "statement_timeout": milliseconds(answer_s),
            }
            self._durable = self._lossy = open_postgres(
                driver, tls, settings, pool_size=pool_size, max_overflow=0
            )
            self._pool = PoolCheck(self._durable)
            self._reader = self._durable.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._ownerships = Ownerships(driver, tls, silent_s=silent_s)

    @asynccontextmanager
    async def transaction(self, *, within_s: float | None = None) -> AsyncIterator[AsyncSession]:
        """A durable transaction: committed when the block ends, rolled back when it raises."""
        async with self._turn(), self._begun(self._durable, within_s) as session:
            yield session
        for act in session.info.pop("after_commit", ()):
            act()

    @asynccontextmanager
    async def lossy_transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction a power cut may undo, for what would merely be done again."""
        async with self._turn(), self._begun(self._lossy) as session:
            if not self.is_sqlite:
                await session.execute(text("SET LOCAL synchronous_commit = off"))
            yield session

    @asynccontextmanager
    async def reading(self, *, within_s: float | None = None) -> AsyncIterator[AsyncSession]:
        """A consistent view for reads: all of its questions see one moment. It waits for no writer."""
        async with self._begun(self._reader, within_s) as session:
            yield session

    async def answers(self) -> bool:
        """Whether the database answers within `READY_S`, or did so within the last `READY_S`.

        One probe at a time: a database that hangs is not asked anew by every readiness probe.
        """
        if time.monotonic() - self._answered_at < READY_S:
            return True
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({self._asking}, timeout=READY_S)
        return time.monotonic() - self._answered_at < READY_S

    async def _ask(self) -> None:
        try:
            async with self.reading() as session:
                await session.execute(text("SELECT 1"))
        except Exception as error:
            if not may_pass(error):
                log.exception("database.cannot_be_asked", error=type(error).__name__)

    @asynccontextmanager
    async def sole_owner(self, name: str) -> AsyncIterator[Owned]:
        """A question to ask before each round of what one process at a time may do on this database.

        It answers whether this process owns `name`, taking it if nobody does, and raises
        ConnectionError once an ownership is lost. On SQLite the lock on the data directory stands for it.
        """
        if self._ownerships is None:
            yield _always
            return
        async with self._ownerships.of(name) as owned:
            yield owned

    def alone(self, name: str, work: Work) -> Work:
        """`work`, in one process at a time; in the others it waits for that one's end."""
        if self.is_sqlite:
            return work

        async def run(stop: asyncio.Event) -> None:
            async with self.sole_owner(name) as owned:
                await work_while_owned(owned, work, stop)

        return run

    def _turn(self) -> AbstractAsyncContextManager[Any]:
        return self._writing or nullcontext()

    @asynccontextmanager
    async def _begun(
        self, engine: Engine | AsyncEngine, within_s: float | None = None
    ) -> AsyncIterator[AsyncSession]:
        """A session in a transaction of its own."""
        info: dict[Any, Any] = {"doors": self.doors, "said": self.said}
        if isinstance(engine, AsyncEngine):
            async with self._answering(within_s or self._answer_s), self._connected(engine, info) as session:
                if within_s is not None:
                    await session.execute(text(f"SET LOCAL statement_timeout = {milliseconds(within_s)}"))
                yield session
        else:
            local = InLoopSession(engine, info)
            with local.sync_session as plain, plain.begin():
                yield local
        self._answered_at = time.monotonic()

    @asynccontextmanager
    async def _answering(self, within_s: float) -> AsyncIterator[None]:
        """Bound what is done with PostgreSQL in the block, and name what the network does to it."""
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError as error:
            _SLOW.inc()
            if self._pool is not None:
                self._pool.distrust()
            raise DatabaseSlow(f"the database did not answer within {within_s:g} s") from error
        except DatabaseUnavailable:
            raise
        except (ConnectionError, ssl.SSLError) as error:
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine, info: dict[Any, Any]) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine, expire_on_commit=False, info=info) as session, session.begin():
            try:
                yield session
            except DBAPIError as error:
                if trouble(error) is Trouble.READ_ONLY:
                    # The server became a standby: a new connection may lead to the present primary.
                    await (await session.connection()).invalidate()
                raise

    async def migrate(self, scripts: Path) -> None:
        """Bring the schema to the newest of the Alembic migrations in `scripts`, under a lock.

        Raises RuntimeError where the database was made by a newer version than this code.
        """
        async with self.transaction(within_s=MIGRATE_S) as session:
            if not self.is_sqlite:
                await session.execute(text("SELECT pg_advisory_xact_lock(7355608)"))
            await session.run_sync(lambda plain: _upgrade(plain.connection(), scripts))

    async def close(self) -> None:
        """Close every connection; those that hang are dropped after `answer_s`."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        if self._ownerships is not None:
            await self._ownerships.close()
        if isinstance(self._durable, AsyncEngine):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._answer_s):
                    await self._durable.dispose()  # all three are one
            return
        for engine in (self._durable, self._lossy, self._reader):
            assert isinstance(engine, Engine)
            engine.dispose()


async def _always() -> bool:
    return True


def _upgrade(connection: Connection, scripts: Path) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    found = _present_revision(connection)
    if found is not None and found not in known:
        raise RuntimeError(f"the database is at version {found}, which this code does not know")
    command.upgrade(config, "head")


def _present_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
