"""Ask a pooled connection whether it still lives only when it has been idle: busy ones show it by themselves.

SQLAlchemy's `pool_pre_ping` asks at each checkout, without a bound of its own; on PostgreSQL that is BEGIN,
a query and ROLLBACK before each transaction of ours.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

IDLE_S: Final = 1.0
PING_S: Final = 2.0
"""How long an idle connection may take to answer before it is replaced."""


class PoolCheck:
    """Has `engine` ping what was not used for `IDLE_S`, and replace what does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._distrusted = float("-inf")
        event.listen(engine.sync_engine, "connect", self._connected)
        event.listen(engine.sync_engine, "checkout", self._check_out)
        event.listen(engine.sync_engine, "checkin", self._check_in)
        event.listen(engine.sync_engine, "close", self._closing)

    def distrust(self) -> None:
        """Replace every connection made before now at its next use: one hung, so the others may.

        Each would cost its own wait otherwise. A firewall that lost its state hangs all that it knew.
        """
        self._distrusted = time.monotonic()

    def _connected(self, _connection: Any, record: Any) -> None:
        record.info["made"] = record.info["used"] = time.monotonic()

    def _check_in(self, _connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def _check_out(self, connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["made"] < self._distrusted:
            raise DisconnectionError("another connection hung after this one was made")
        if time.monotonic() - record.info["used"] < IDLE_S:
            return
        try:
            connection.run_async(lambda raw: raw.execute("SELECT 1", timeout=PING_S))
        except TimeoutError as error:
            self.distrust()
            raise DisconnectionError("the connection does not answer") from error
        except Exception as error:
            raise DisconnectionError(str(error)) from error

    def _closing(self, connection: Any, record: Any) -> None:
        if record.info.get("made", 0.0) < self._distrusted:
            connection.driver_connection.terminate()  # at once: a polite end would wait for an answer
