"""Raising a drive's `revision`: what it shows has changed, although no row was added to its log."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Update, select, update

from backbone.database.database import Database
from services.leaderboard.freshness import ChangedDrives
from services.leaderboard.tables import drives

DRIVES_PER_STATEMENT: Final = 1_000


def revision_bump(drive_ids: Collection[str]) -> Update:
    """Raise `revision` of these drives; locks their rows in the order that every other statement uses."""
    wanted = select(drives.c.drive_id).where(drives.c.drive_id.in_(drive_ids)).order_by(drives.c.drive_id)
    in_order = drives.c.drive_id.in_(wanted.with_for_update())
    return update(drives).where(in_order).values(revision=drives.c.revision + 1)


async def raise_revisions(database: Database, changed: ChangedDrives, drive_ids: Collection[str]) -> None:
    """Make the current state of these drives newer than any published one, and mark them as changed."""
    wanted = sorted(drive_ids)
    for start in range(0, len(wanted), DRIVES_PER_STATEMENT):
        some = wanted[start : start + DRIVES_PER_STATEMENT]
        async with database.transaction() as session:
            await session.execute(revision_bump(some))
    changed.mark(wanted)
