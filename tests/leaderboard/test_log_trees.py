"""Trees of drives' logs, on both stores, compared with the recursive definition."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from backbone.database.database import Database
from backbone.transparency import merkle
from services.leaderboard import queries
from services.leaderboard.transparency.reading import LogTreeReader
from services.leaderboard.transparency.tables import log_tiles, log_trees, logged_gifts
from services.leaderboard.transparency.tiling import TILE, Tiling, tile_rows
from tests.backbone.test_merkle import path, subproof, tree_hash
from tests.engines import fresh_postgres
from tests.leaderboard.builders import DRIVE, drive, handle_events, open_database
from tests.leaderboard.log_trees import append, rows_of
from tests.waiting import until

LOG = (DRIVE, 1)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(tmp_path) as opened:
            await handle_events(opened, drive(state="draft"))
            yield opened
        return
    async with fresh_postgres("services.leaderboard") as url, open_database(tmp_path, url) as opened:
        await handle_events(opened, drive(state="draft"))
        yield opened


def tiling(database: Database) -> Tiling:
    return Tiling(database, lambda: False)


async def tiles(database: Database) -> list[Any]:
    async with database.reading() as session:
        order = (log_tiles.c.level, log_tiles.c.number)
        return [tuple(row) for row in await session.execute(select(log_tiles).order_by(*order))]


async def forget(database: Database) -> None:
    async with database.transaction() as session:
        for table in (log_tiles, log_trees, logged_gifts):
            await session.execute(delete(table))


async def entries(database: Database) -> list[bytes]:
    """The entries as a stranger makes them of the replies of `events`."""
    async with database.reading() as session:
        shown, _ = await queries.log_page(session, queries.DriveHead(DRIVE, "USD", 1, 0), 0, 10_000)
    return [json.dumps(row, sort_keys=True, separators=(",", ":")).encode() for row in shown]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1_100])
async def test_roots_and_proofs_are_those_of_the_recursive_definition(database: Database, count: int) -> None:
    await append(database, rows_of(count))
    await tiling(database).bring_up_to_date(LOG)
    expected = await entries(database)
    async with database.reading() as session:
        tree = await LogTreeReader.open(session, LOG)
        assert tree.size == count
        for size in {0, 1, count // 2, count - 1, count} & set(range(count + 1)):
            assert await tree.root(size) == tree_hash(expected[:size])
            proof = subproof(size, expected, True) if size else []
            assert await tree.consistency(size, count) == proof
        for index in {0, 1, 255, 256, count // 2, count - 1} & set(range(count)):
            assert await tree.inclusion(index, count) == path(index, expected)


async def test_tiles_do_not_depend_on_the_steps_in_which_rows_arrived(database: Database) -> None:
    rows = rows_of(4 * TILE + 9)
    for at in range(0, len(rows), 100):
        await append(database, rows[at : at + 100])
        await tiling(database).bring_up_to_date(LOG)
    step_by_step = await tiles(database)
    assert [row[2:4] for row in step_by_step] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    await forget(database)
    await Tiling(database, lambda: False, rows=TILE).bring_up_to_date(LOG)
    assert await tiles(database) == step_by_step


async def test_replicas_that_tile_at_the_same_time_store_each_row_once(database: Database) -> None:
    await append(database, rows_of(8 * TILE))
    await asyncio.gather(*(tiling(database).bring_up_to_date(LOG) for _ in range(4)))
    expected = await entries(database)
    async with database.reading() as session:
        tree = await LogTreeReader.open(session, LOG)
        assert (tree.size, await tree.root(8 * TILE)) == (8 * TILE, tree_hash(expected))


async def test_crash_before_the_commit_leaves_the_tree_as_it_was(database: Database) -> None:
    await append(database, rows_of(TILE))
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as session:
            assert await tile_rows(session, LOG) == TILE
            raise ZeroDivisionError
    assert await tiles(database) == []
    assert not await tiling(database).advance(LOG)
    assert len(await tiles(database)) == 2


async def test_gift_is_found_by_its_pledge_in_tiles_and_after_them(database: Database) -> None:
    await append(database, rows_of(TILE + 5))
    await tiling(database).bring_up_to_date(LOG)
    expected = await entries(database)
    async with database.reading() as session:
        tree = await LogTreeReader.open(session, LOG)
        for sequence in (1, TILE, TILE + 1, TILE + 5):
            gift = await tree.gift(f"plg_{sequence}")
            assert gift is not None
            assert gift.leaf == merkle.leaf_hash(expected[sequence - 1])
            assert gift.position == sequence - 1
        assert await tree.gift("plg_nobody") is None


async def test_tiles_and_bundles_have_the_width_of_the_tree_and_no_more(database: Database) -> None:
    await append(database, rows_of(TILE + 5))
    await tiling(database).bring_up_to_date(LOG)
    expected = await entries(database)
    hashes = [merkle.leaf_hash(entry) for entry in expected]
    async with database.reading() as session:
        tree = await LogTreeReader.open(session, LOG)
        assert await tree.tile(0, 0, TILE) == b"".join(hashes[:TILE])
        assert await tree.tile(0, 0, 7) == b"".join(hashes[:7])
        assert await tree.tile(0, 1, 5) == b"".join(hashes[TILE:])
        assert await tree.tile(1, 0, 1) == tree_hash(expected[:TILE])
        bundle = b"".join(len(one).to_bytes(2, "big") + one for one in expected[TILE : TILE + 3])
        assert await tree.entries(1, 3) == bundle
        for level, number, width in ((0, 1, 6), (0, 2, 1), (1, 0, 2), (2, 0, 1), (63, 2**53, 1)):
            assert await tree.tile(level, number, width) is None
        assert await tree.entries(1, 6) is None


async def test_only_drives_of_committed_events_are_tiled_in_the_background(database: Database) -> None:
    await append(database, rows_of(TILE))
    working, stop = tiling(database), asyncio.Event()

    async def nothing(events: Any, session: Any) -> None:
        stop.set()

    handlers = working.after({type(drive()): nothing})
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as session:
            await handlers[type(drive())]([drive()], session)
            raise ZeroDivisionError
    stop.clear()
    background = asyncio.create_task(working.run(stop))
    await asyncio.sleep(0)
    assert await tiles(database) == []
    stop.set()
    await background
    async with database.transaction() as session:
        await handlers[type(drive())]([drive()], session)
    stop.clear()
    background = asyncio.create_task(working.run(stop))

    async def tiled() -> bool:
        return bool(await tiles(database))

    await until(tiled)
    stop.set()
    await background
