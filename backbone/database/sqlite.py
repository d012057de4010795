"""SQLAlchemy's asyncio session over an ordinary, synchronous SQLite engine: nothing ever suspends.

A local SQLite statement takes microseconds. aiosqlite's two thread hops around each one cost more
than the statement, and so do the greenlet switches of SQLAlchemy's asyncio extension (see
docs/decisions/0001). What may block the loop is a commit's fsync, a quarter of a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

Given = ParamSpec("Given")
Result = TypeVar("Result")

_BUFFERED: Final = {"prebuffer_rows": True}


class SqliteSession(AsyncSession):
    """An `AsyncSession` whose calls are done when they return; they need no greenlet and no thread.

    What is not overridden here works as in any AsyncSession, only slower.
    """

    def __init__(self, engine: Engine, info: dict[Any, Any]) -> None:
        super().__init__(info=info, expire_on_commit=False)
        self.sync_session.bind = engine

    async def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """The result, with its rows already read."""
        given = options.pop("execution_options", {})
        return self.sync_session.execute(
            statement, params, execution_options={**given, **_BUFFERED}, **options
        )

    async def run_sync(
        self, fn: Callable[Concatenate[Session, Given], Result], *arg: Given.args, **kw: Given.kwargs
    ) -> Result:
        """Do `fn` with the plain session."""
        return fn(self.sync_session, *arg, **kw)


def open_sqlite(url: str, begin: str, synchronous: str) -> Engine:
    """An engine for one SQLite file: WAL, explicit `BEGIN {begin}`, no waiting in C for a lock."""
    # A reader may be suspended between its statements: never make the next one wait for it.
    engine = create_engine(url, pool_size=4, max_overflow=-1, connect_args={"timeout": 0})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by name
        settings = ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", "cache_size=-2000")
        for pragma in settings:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine
