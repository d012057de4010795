"""Expiry of the counts behind `per_minute`: they leave the last minute without any event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, delete, select

from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import after_commit
from services.leaderboard.freshness import ChangedDrives
from services.leaderboard.revisions import RAISE_REVISIONS
from services.leaderboard.tables import second_counts
from services.leaderboard.totals import MINUTE_S


async def delete_expired(
    database: Database, changed: ChangedDrives, owns: Callable[[str], bool], now: datetime
) -> None:
    """Delete counts older than a minute of the drives that `owns` accepts, and mark those drives as changed.

    The log does not record this, so the same transaction raises `revision`. After a restart, the rows not yet
    deleted are found again.
    """
    oldest = microseconds(now) // 1_000_000 - MINUTE_S
    async with database.reading() as session:
        expired = await session.execute(_EXPIRED, {"oldest": oldest})
        stale = {row.drive_id for row in expired if owns(row.drive_id)}
    if not stale:
        return
    async with database.transaction() as session:
        await session.execute(_DELETE, {"stale": stale, "oldest": oldest})
        await session.execute(RAISE_REVISIONS, {"wanted": stale})
        after_commit(session, lambda: changed.mark(stale))


_is_old: Final = second_counts.c.second <= bindparam("oldest")
_EXPIRED: Final = select(second_counts.c.drive_id).where(_is_old).distinct()
_DELETE: Final = delete(second_counts).where(one_of(second_counts.c.drive_id, "stale"), _is_old)
