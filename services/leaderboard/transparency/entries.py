"""The entries of a log's tree: canonical JSON of its rows, as `GET /v1/drives/{drive}/events` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backbone.database.transaction import Transaction
from services.leaderboard.hash_chain import canonical
from services.leaderboard.queries import DriveHead, log_page

Row = Mapping[str, Any]


def entry_of(row: Row) -> bytes:
    """The bytes of a leaf: the row with its `hash`, which covers the drive, the epoch and the row before."""
    return canonical(row)


def bundle(rows: Sequence[Row]) -> bytes:
    """Entries as C2SP tlog-tiles bundles them, each after its length in two bytes."""
    entries = [entry_of(row) for row in rows]
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


async def rows_after(
    session: Transaction, drive_id: str, epoch: int, after: int, limit: int
) -> Sequence[Row]:
    """Rows of a log after sequence `after`, oldest first."""
    rows, _ = await log_page(session, DriveHead(drive_id, "", epoch, 0), after, limit)
    return rows
