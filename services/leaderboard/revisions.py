"""Raising a drive's `revision`: what it shows has changed, although no row was added to its log."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import literal_column, select, update

from backbone.database.database import Database
from backbone.database.one_of import one_of
from services.leaderboard.freshness import ChangedDrives
from services.leaderboard.tables import drives

DRIVES_PER_STATEMENT: Final = 1_000


_wanted = select(drives.c.drive_id).where(one_of(drives.c.drive_id, "wanted")).order_by(drives.c.drive_id)
RAISE_REVISIONS: Final = (
    update(drives)
    .where(drives.c.drive_id.in_(_wanted.with_for_update()))
    .values(revision=drives.c.revision + literal_column("1"))
)
"""Raises `revision` of the `wanted` drives; locks their rows in the order that every other statement uses."""


async def raise_revisions(database: Database, changed: ChangedDrives, drive_ids: Collection[str]) -> None:
    """Make the current state of these drives newer than any published one, and mark them as changed."""
    wanted = sorted(drive_ids)
    for start in range(0, len(wanted), DRIVES_PER_STATEMENT):
        some = wanted[start : start + DRIVES_PER_STATEMENT]
        async with database.transaction() as session:
            await session.execute(RAISE_REVISIONS, {"wanted": some})
    changed.mark(wanted)
