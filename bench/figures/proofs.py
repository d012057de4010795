"""The time of a donor's inclusion proof in a long log."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, update

from backbone.clock import rfc3339
from backbone.database.database import Database
from backbone.transparency.merkle import includes
from bench import single_figure
from bench.results import Detail
from bench.steps import Advance, Steps
from services.leaderboard.app import MIGRATIONS
from services.leaderboard.hash_chain import hash_new_row
from services.leaderboard.sequencer import placeholder_row
from services.leaderboard.tables import MESSAGING_TABLES, drive_log, drives
from services.leaderboard.transparency.reading import LogTreeReader
from services.leaderboard.transparency.tiling import READ_TILE, ROWS, TILE, Tiling, tile_key

AIM_MS: Final = 5.0
PROOFS: Final = 500
_DRIVE: Final = "drv_01frtz5n00000000000000000a"
_LOG: Final = (_DRIVE, 1)
_PIECE: Final = 5_000
_BEGAN: Final = datetime(2022, 1, 7, tzinfo=UTC)


class Took(NamedTuple):
    """Milliseconds on the clock and of CPU."""

    wall_ms: float
    cpu_ms: float

    @classmethod
    def since(cls) -> Took:
        """The clocks now."""
        return cls(time.perf_counter() * 1_000, time.process_time() * 1_000)

    def until_now(self) -> Took:
        """What has passed since."""
        now = Took.since()
        return Took(now.wall_ms - self.wall_ms, now.cpu_ms - self.cpu_ms)


def measure(folder: Path, rows: int, steps: Steps) -> Mapping[str, Detail]:
    """`proof`: CPU of an inclusion proof on SQLite; its floor only reads the tiles on the leaf's way.

    The log's last rows are in no tile: a proof hashes 255 of them.
    """
    return asyncio.run(_measure(folder, rows - rows % TILE + TILE - 1, steps))


async def _measure(folder: Path, rows: int, steps: Steps) -> Mapping[str, Detail]:
    database = Database(f"sqlite:///{folder / 'leaderboard.db'}", MESSAGING_TABLES, synchronous="OFF")
    await database.migrate(MIGRATIONS)
    try:
        with steps.step(f"proof: storing {rows:,} rows", rows) as advance:
            await _fill(database, rows, advance)
        began = time.perf_counter()
        tiling = Tiling(database, lambda: False)
        with steps.step("proof: tiles", rows) as advance:
            while await tiling.advance(_LOG):
                advance(ROWS)
        tiling_s = time.perf_counter() - began
        chosen = random.Random(1)  # noqa: S311 - the same leaves each time
        indexes = [chosen.randrange(rows) for _ in range(PROOFS)]
        cold = await _prove(database, 0, rows, lambda _: None)
        with steps.step("proofs", PROOFS) as advance:
            proofs = [await _prove(database, index, rows, advance) for index in indexes]
        floors = [await _read_tiles(database, index) for index in indexes]
    finally:
        await database.close()
    details: dict[str, Detail] = {
        "p50_ms": _quantile([one.wall_ms for one in proofs], 0.5),
        "p99_ms": _quantile([one.wall_ms for one in proofs], 0.99),
        "cold_cpu_ms": cold.cpu_ms,
        "rows": rows,
        "tiling_rows_per_s": rows / tiling_s,
        "floor_is": "reading the tiles on the leaf's way to the root",
    }
    cpu, floor = (statistics.fmean(one.cpu_ms for one in side) for side in (proofs, floors))
    return single_figure.of("CPU of an inclusion proof", cpu, "ms", AIM_MS, details, floor)


async def _prove(database: Database, index: int, size: int, advance: Advance) -> Took:
    """Make a proof, and verify it afterwards."""
    took = Took.since()
    async with database.reading() as session:
        tree = await LogTreeReader.open(session, _LOG)
        gift = await tree.gift(f"plg_{index + 1}")
        path = await tree.inclusion(index, size)
    took = took.until_now()
    async with database.reading() as session:
        root = await (await LogTreeReader.open(session, _LOG)).root(size)
    if gift is None or not includes(gift.leaf, index, size, path, root):
        raise RuntimeError(f"the proof of leaf {index} is not valid")
    advance(1)
    return took


async def _read_tiles(database: Database, index: int) -> Took:
    took = Took.since()
    async with database.reading() as session:
        for level in range(3):
            key = tile_key(_LOG, level, index >> 8 * (level + 1))
            (await session.execute(READ_TILE, key)).scalar_one_or_none()
    return took.until_now()


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def _fill(database: Database, rows: int, advance: Advance) -> None:
    named = {"drive_id": _DRIVE, "version": 1, "currency": "USD"}
    async with database.transaction() as session:
        await session.execute(insert(drives), [placeholder_row(_DRIVE) | named])
    piece: list[dict[str, Any]] = []
    for row in _rows(rows):
        piece.append(row)
        if len(piece) == _PIECE or row["sequence"] == rows:
            async with database.transaction() as session:
                await session.execute(insert(drive_log), piece)
            advance(len(piece))
            piece.clear()
    async with database.transaction() as session:
        await session.execute(update(drives).values(sequence=rows))


def _rows(count: int) -> Iterator[dict[str, Any]]:
    previous, raised = "", 0
    for sequence in range(1, count + 1):
        raised += 2_500
        at = _BEGAN + timedelta(milliseconds=sequence)
        payment, pledge = f"pay_{sequence}", f"plg_{sequence}"
        previous = hash_new_row(
            *(_DRIVE, 1, sequence, "donation.counted", rfc3339(at), payment, pledge, None),
            *(2_500, raised, "USD", previous),
        )
        yield {
            "drive_id": _DRIVE, "epoch": 1, "sequence": sequence, "type": "donation.counted", "at": at,
            "payment_id": payment, "pledge_id": pledge, "creator_id": None, "amount": 2_500,
            "raised_after": raised, "currency": "USD", "hash": previous,
        }  # fmt: skip
