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

CHECK_AFTER_IDLE_S: Final = 1.0
PING_TIMEOUT_S: Final = 2.0
"""How long an idle connection may take to answer before it is replaced."""


class PoolCheck:
    """Has `engine` ping what was not used for `CHECK_AFTER_IDLE_S`, and replace what does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._trusted_since = float("-inf")
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        event.listen(engine.sync_engine, "checkin", self._on_checkin)
        event.listen(engine.sync_engine, "close", self._on_close)

    def replace_existing(self) -> None:
        """Replace every connection made before now at its next use: one hung, so the others may.

        Each would cost its own wait otherwise. A firewall that lost its state hangs all that it knew.
        """
        self._trusted_since = time.monotonic()

    def _on_connect(self, _connection: Any, record: Any) -> None:
        record.info["made"] = record.info["used"] = time.monotonic()

    def _on_checkin(self, _connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def _on_checkout(self, connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["made"] < self._trusted_since:
            raise DisconnectionError("another connection hung after this one was made")
        if time.monotonic() - record.info["used"] < CHECK_AFTER_IDLE_S:
            return
        try:
            connection.run_async(lambda raw: raw.execute("SELECT 1", timeout=PING_TIMEOUT_S))
        except TimeoutError as error:
            self.replace_existing()
            raise DisconnectionError("the connection does not answer") from error
        except Exception as error:
            raise DisconnectionError(str(error)) from error

    def _on_close(self, connection: Any, record: Any) -> None:
        if record.info.get("made", 0.0) < self._trusted_since:
            connection.driver_connection.terminate()  # at once: a polite end would wait for an answer
