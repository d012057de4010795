"""Rows of drives' logs, for tests of their trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, insert, update

from backbone.clock import rfc3339
from backbone.database.database import Database
from services.leaderboard.hash_chain import hash_new_row
from services.leaderboard.tables import drive_log, drives
from tests.leaderboard.builders import DRIVE, NOON

NO_PLEDGES: Mapping[int, str] = {}


def rows_of(
    count: int, *, epoch: int = 1, amount: int = 2500, pledges: Mapping[int, str] = NO_PLEDGES
) -> list[dict[str, Any]]:
    """A chain of `count` rows, each the gift of a pledge of its own, or of that in `pledges`."""
    rows: list[dict[str, Any]] = []
    previous, raised = "", 0
    for sequence in range(1, count + 1):
        raised += amount
        at = NOON + timedelta(seconds=sequence)
        about = (f"pay_{sequence}", pledges.get(sequence, f"plg_{sequence}"), None, amount, raised, "USD")
        previous = hash_new_row(
            DRIVE, epoch, sequence, "donation.counted", rfc3339(at), *about, previous
        )  # fmt: skip
        rows.append(
            {
                "drive_id": DRIVE, "epoch": epoch, "sequence": sequence, "type": "donation.counted", "at": at,
                "payment_id": about[0], "pledge_id": about[1], "creator_id": None, "amount": amount,
                "raised_after": raised, "currency": "USD", "hash": previous,
            }
        )  # fmt: skip
    return rows


async def append(database: Database, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to the log of a drive that exists, in pieces."""
    for at in range(0, len(rows), 1_000):
        piece = rows[at : at + 1_000]
        async with database.transaction() as session:
            await session.execute(insert(drive_log), piece)
            last = {name: piece[-1][name] for name in ("sequence", "epoch")}
            await session.execute(update(drives).where(drives.c.drive_id == DRIVE).values(**last))


async def remove_after(database: Database, sequence: int) -> None:
    """Restore the log, without its tiles, to an older state."""
    async with database.transaction() as session:
        await session.execute(delete(drive_log).where(drive_log.c.sequence > sequence))
        await session.execute(update(drives).where(drives.c.drive_id == DRIVE).values(sequence=sequence))
