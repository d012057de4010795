"""Ask a pooled connection whether it still lives only when it has been idle: busy ones show it by themselves.

SQLAlchemy's `pool_pre_ping` asks at each checkout; on PostgreSQL that is BEGIN, a query and ROLLBACK
before each transaction of ours.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

IDLE_S: Final = 1.0


def ask_idle_connections(engine: AsyncEngine) -> None:
    """Have `engine` ping what was not used for `IDLE_S`, and replace what does not answer."""
    dialect = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "checkout")
    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", 0.0) < IDLE_S:
            return
        try:
            alive = dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError(str(error)) from error
        if not alive:
            raise DisconnectionError("the connection does not answer")

    @event.listens_for(engine.sync_engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()
