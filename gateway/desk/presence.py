"""Who has a drive's desk open, and which message each of them looks at.

Desks are rows of the gateway's database, so that moderators whom different processes serve see each other.
They are no lock: a conflicting decision is refused by pledges in any case. While the database does not
answer, nobody is known to be present, and everything else of the desk goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.periodic import BATCH, delete_oldest, pruning_worker
from backbone.service import Worker
from gateway.tables import DESKS, OpenDesk

GONE: Final = timedelta(seconds=8)
"""A desk without a poll for so long is closed. A page in the background polls every 4 s (desk.js); the clocks
of two processes may differ by the rest."""
MAX_DESKS: Final = 50
"""Desks of a drive that are shown to each other: those that polled last."""
MAX_NAME: Final = 40
TIMEOUT_S: Final = 1.0
PAUSE: Final = timedelta(seconds=5)
"""After a failure the database is left alone for so long: a poll is not to wait for it each time."""
PRUNE_EVERY_S: Final = 60.0

log = structlog.get_logger()


class Presence:
    """The open desks of every drive."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._paused_until = clock.now()

    async def see(self, drive: str, desk: str, name: str, looking: str) -> list[dict[str, str]] | None:
        """Note that a desk is open; the other open ones. None while the database does not answer."""
        now = self._clock.now()
        if now < self._paused_until:
            return None
        row = OpenDesk(drive=drive, desk=desk, name=visible_name(name), looking=looking, seen_at=now)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                rows = await self._store_and_read(row.model_dump())
        except Exception as error:
            if not is_transient(error):
                raise
            self._paused_until = self._clock.now() + PAUSE
            log.warning("desk.presence_unavailable", error=type(error).__name__)
            return None
        others = [{"desk": one.desk, "name": one.name, "looking": one.looking} for one in rows]
        return sorted(others, key=lambda one: (one["name"], one["desk"]))

    async def _store_and_read(self, row: dict[str, Any]) -> Sequence[Any]:
        async with self._database.lossy_transaction() as session:
            await session.execute(_UPSERTS[session.dialect.name], row)
            found = await session.execute(
                _OTHERS, {"at": row["drive"], "own": row["desk"], "since": row["seen_at"] - GONE}
            )
            return found.all()

    async def delete_gone(self, at_most: int = BATCH) -> int:
        """Delete up to `at_most` desks that are closed; how many."""
        return await delete_oldest(self._database, DESKS.c.seen_at, self._clock.now() - GONE, at_most)

    def pruning(self) -> Worker:
        """The worker that deletes closed desks."""
        return pruning_worker("gateway.desk", {"desks": self.delete_gone}, PRUNE_EVERY_S)


def visible_name(name: str) -> str:
    """A moderator's name without control and bidirectional characters."""
    return "".join(letter for letter in name if letter.isprintable())[:MAX_NAME].strip()


_OTHERS: Final = (
    select(DESKS.c.desk, DESKS.c.name, DESKS.c.looking)
    .where(
        DESKS.c.drive == bindparam("at"), DESKS.c.desk != bindparam("own"),
        DESKS.c.seen_at >= bindparam("since"),
    )
    .order_by(DESKS.c.seen_at.desc())
    .limit(MAX_DESKS - 1)
)  # fmt: skip


def _upsert(insert: Any) -> Any:
    statement = insert(DESKS)
    seen = {name: statement.excluded[name] for name in ("name", "looking", "seen_at")}
    return statement.on_conflict_do_update(index_elements=["drive", "desk"], set_=seen)


_UPSERTS: Final = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
