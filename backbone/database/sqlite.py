"""An `AsyncSession` over a synchronous SQLite engine; its calls never suspend.

A local SQLite statement takes microseconds, less than the two thread switches of aiosqlite or the greenlet
switches of SQLAlchemy's asyncio extension (docs/decisions/0001). The longest block of the event loop is the
fsync of a commit, a quarter of a millisecond.
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
    """An `AsyncSession` that executes synchronously, without greenlet or thread.

    Methods that are not overridden work as in any AsyncSession, only slower.
    """

    def __init__(self, engine: Engine, info: dict[Any, Any]) -> None:
        super().__init__(info=info, expire_on_commit=False)
        self.sync_session.bind = engine

    async def execute(self, statement: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement; the rows of the result are already fetched."""
        given = options.pop("execution_options", {})
        return self.sync_session.execute(
            statement, params, execution_options={**given, **_BUFFERED}, **options
        )

    async def run_sync(
        self, fn: Callable[Concatenate[Session, Given], Result], *arg: Given.args, **kw: Given.kwargs
    ) -> Result:
        """Call `fn` with the synchronous session."""
        return fn(self.sync_session, *arg, **kw)


def open_sqlite(url: str, begin: str, synchronous: str) -> Engine:
    """An engine for one SQLite file: WAL, explicit `BEGIN {begin}`, no waiting in C for a file lock."""
    # One connection per open session: a suspended reader must not block the next one.
    engine = create_engine(url, pool_size=4, max_overflow=-1, connect_args={"timeout": 0})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # `start` below begins transactions explicitly
        settings = ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", "cache_size=-2000")
        for pragma in settings:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine
