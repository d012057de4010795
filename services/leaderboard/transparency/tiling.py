"""Stores the hashes of logs' rows in tiles, once a second for drives whose log grew, and on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from backbone.database.database import Database
from backbone.database.transaction import Transaction, after_commit
from backbone.database.transient import is_transient
from backbone.messaging.consumer import Handler, Handlers
from backbone.transparency.merkle import HASH_BYTES, complete_root, leaf_hash
from backbone.wakeups import wait_for
from services.leaderboard.tables import drives
from services.leaderboard.transparency.entries import Row, entry_of, rows_after
from services.leaderboard.transparency.tables import log_tiles, log_trees, logged_gifts

TILE: Final = 256
INTERVAL_S: Final = 1.0
REST_RATIO: Final = 9.0
"""The rest after a transaction while events are waiting, as a multiple of what it took."""
ROWS: Final = 4 * TILE
"""Rows that one transaction hashes, in about 15 ms."""
ROUNDS: Final = 8
"""Transactions that a request waits for."""

log = structlog.get_logger()
Log = tuple[str, int]
"""(drive_id, epoch)"""


class TilesDamaged(RuntimeError):
    """A tile that was stored is missing or too short. Deleting the tiles of the log has them made again."""


class Tiling:
    """Brings the tiles of logs up to date, on the replica that stored the rows."""

    def __init__(
        self, database: Database, are_events_waiting: Callable[[], bool], *, rows: int = ROWS
    ) -> None:
        self._database = database
        self._are_events_waiting = are_events_waiting
        self._rows = rows
        self._grown: dict[str, None] = {}

    def after(self, handlers: Handlers) -> Handlers:
        """`handlers` that note the drives of their events once they are committed."""
        return {kind: self._noting(handle) for kind, handle in handlers.items()}

    def _noting(self, handle: Handler) -> Handler:
        async def handle_and_note(events: Sequence[Any], session: Transaction) -> None:
            await handle(events, session)
            touched = dict.fromkeys(event.drive_id for event in events)
            after_commit(session, lambda: self._grown.update(touched))

        return handle_and_note

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, tile the logs of drives with new events. Others are tiled when they are read."""
        while not stop.is_set():
            grown, self._grown = self._grown, {}
            for drive_id in grown:
                if stop.is_set():
                    return
                await self._tile_or_leave(drive_id)
            await wait_for(stop, INTERVAL_S)

    async def _tile_or_leave(self, drive_id: str) -> None:
        try:
            async with self._database.reading() as session:
                due = await _epoch_due(session, drive_id)
            if due is not None:
                await self._tile_all((drive_id, due))
        except Exception as error:
            if not is_transient(error):
                log.exception("log_tree.cannot_be_tiled", drive=drive_id)
                return
            self._grown[drive_id] = None
            log.warning("log_tree.not_tiled", error=f"{type(error).__name__}: {error}")

    async def _tile_all(self, of: Log) -> None:
        """Tile a log in pieces, with a rest after each while events are waiting, which come first."""
        loop, more = asyncio.get_running_loop(), True
        while more:
            began = loop.time()
            more = await self.advance(of)
            waits = self._are_events_waiting()
            await asyncio.sleep(min(REST_RATIO * (loop.time() - began), INTERVAL_S) if waits else 0)

    async def bring_up_to_date(self, of: Log) -> None:
        """Tile what a request needs, within `ROUNDS` transactions: the tree may be shorter than the log."""
        for _ in range(ROUNDS):
            if not await self.advance(of):
                return

    async def advance(self, of: Log) -> bool:
        """One transaction's worth of rows; whether there may be more."""
        async with self._database.transaction() as session:
            return await tile_rows(session, of, self._rows) == self._rows


async def _epoch_due(session: Transaction, drive_id: str) -> int | None:
    """The epoch of a drive whose log has a tile's worth of rows that are in none."""
    row = (await session.execute(_DUE, {"of_drive": drive_id})).first()
    return None if row is None or row.sequence - row.tiled < TILE else int(row.epoch)


_OF_LOG: Final = (
    log_trees.c.drive_id == bindparam("of_drive"),
    log_trees.c.epoch == bindparam("of_epoch"),
)
_LOCK: Final = select(log_trees.c.tiled).where(*_OF_LOG).with_for_update()
_ADVANCE: Final = update(log_trees).where(*_OF_LOG).values(tiled=bindparam("new_tiled"))
_DUE: Final = (
    select(drives.c.epoch, drives.c.sequence, func.coalesce(log_trees.c.tiled, 0).label("tiled"))
    .select_from(
        drives.outerjoin(
            log_trees,
            (log_trees.c.drive_id == drives.c.drive_id) & (log_trees.c.epoch == drives.c.epoch),
        )
    )
    .where(drives.c.drive_id == bindparam("of_drive"))
)


async def tile_rows(session: Transaction, of: Log, most: int = ROWS) -> int:
    """Store the hashes of up to `most` rows that are in no tile, as far as they fill tiles; their number.

    The tree's row is locked meanwhile, so that replicas continue after each other.
    """
    tiled = await _lock(session, of)
    rows = await rows_after(session, *of, tiled, most)
    complete = len(rows) - len(rows) % TILE
    if complete:
        hashes = [leaf_hash(entry_of(row)) for row in rows[:complete]]
        await _append(session, of, 0, tiled, hashes)
        await _note_gifts(session, of, rows[:complete])
        values = {"of_drive": of[0], "of_epoch": of[1], "new_tiled": tiled + complete}
        await session.execute(_ADVANCE, values)
    return complete


async def _lock(session: Transaction, of: Log) -> int:
    where = {"of_drive": of[0], "of_epoch": of[1]}
    tiled = (await session.execute(_LOCK, where)).scalar_one_or_none()
    if tiled is None:
        await _add(session, log_trees, [{"drive_id": of[0], "epoch": of[1], "tiled": 0}])
        tiled = (await session.execute(_LOCK, where)).scalar_one()
    return int(tiled)


async def _add(session: Transaction, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows and keep existing ones."""
    dialect = sqlite if session.dialect.name == "sqlite" else postgresql
    await session.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


async def _append(session: Transaction, of: Log, level: int, first: int, hashes: Sequence[bytes]) -> None:
    """Append hashes to a level, where the first gets number `first`, and the roots of full tiles above."""
    roots: list[bytes] = []
    first_full, left = first // TILE, list(hashes)
    while left:
        number, kept = divmod(first, TILE)
        before = await _stored(session, of, level, number, kept) if kept else b""
        added, left = left[: TILE - kept], left[TILE - kept :]
        first += len(added)
        tile = before + b"".join(added)
        await _store(session, of, level, number, tile, grown=bool(kept))
        if len(tile) == TILE * HASH_BYTES:
            roots.append(complete_root(split(tile)))
    if roots:
        await _append(session, of, level + 1, first_full, roots)


def split(tile: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]


_OF_TILE: Final = (
    log_tiles.c.drive_id == bindparam("of_drive"),
    log_tiles.c.epoch == bindparam("of_epoch"),
    log_tiles.c.level == bindparam("of_level"),
    log_tiles.c.number == bindparam("of_number"),
)
READ_TILE: Final = select(log_tiles.c.hashes).where(*_OF_TILE)
"""The hashes of a tile, by `tile_key`."""
_GROW: Final = update(log_tiles).where(*_OF_TILE).values(hashes=bindparam("new_hashes"))
_INSERT: Final = insert(log_tiles)


def tile_key(of: Log, level: int, number: int) -> dict[str, Any]:
    """The parameters of `READ_TILE`."""
    return {"of_drive": of[0], "of_epoch": of[1], "of_level": level, "of_number": number}


async def _stored(session: Transaction, of: Log, level: int, number: int, count: int) -> bytes:
    found = (await session.execute(READ_TILE, tile_key(of, level, number))).scalar_one_or_none()
    if found is None or len(found) != count * HASH_BYTES:
        raise TilesDamaged(f"tile {level}/{number} of {of[0]}, epoch {of[1]}, has not {count} hashes")
    return bytes(found)


async def _store(session: Transaction, of: Log, level: int, number: int, tile: bytes, *, grown: bool) -> None:
    if grown:
        await session.execute(_GROW, {**tile_key(of, level, number), "new_hashes": tile})
        return
    row = {"drive_id": of[0], "epoch": of[1], "level": level, "number": number, "hashes": tile}
    await session.execute(_INSERT, [row])


async def _note_gifts(session: Transaction, of: Log, rows: Sequence[Row]) -> None:
    """Note where the gifts of pledges are; the first of a pledge stays."""
    gifts = [
        {"pledge_id": row["pledge"], "drive_id": of[0], "epoch": of[1], "sequence": row["sequence"]}
        for row in rows
        if row["type"] == "donation.counted" and row["pledge"] is not None
    ]
    if gifts:
        await _add(session, logged_gifts, gifts)
