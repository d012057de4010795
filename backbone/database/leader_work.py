"""Work that runs in one process at a time.

The lock on PostgreSQL is in `leader_lock.py`, which loads PostgreSQL's driver; this module does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from backbone.wakeups import wait_for

STANDBY_POLL_S: Final = 0.5
"""How often a standby process tries to take the lock."""

IDLE_TIMEOUT_S: Final = 15.0
"""The server ends a connection that was idle for so long (`idle_session_timeout`, PostgreSQL 14)."""

ADVISORY_LOCK: Final = 7355608
"""Identifies the advisory locks of Ataa: of migrations, and in the two-key form of leaders."""

IsLeader = Callable[[], Awaitable[bool]]
"""Whether this process is the leader; takes a free lock. Raises ConnectionError once the lock was lost."""

Work = Callable[[asyncio.Event], Awaitable[None]]


async def run_while_leader(is_leader: IsLeader, work: Work, stop: asyncio.Event) -> None:
    """Run `work` until `stop`, while this process is the leader.

    Cancels `work` and raises ConnectionError once the lock is lost.
    """
    while not stop.is_set():
        if not await is_leader():
            await wait_for(stop, STANDBY_POLL_S)
            continue
        working = asyncio.ensure_future(work(stop))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=STANDBY_POLL_S)
                await is_leader()
        finally:
            working.cancel()
            await asyncio.wait({working})
        working.result()
