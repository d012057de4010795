"""Donors' texts: asked for beside the figures, shown once they are there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from backbone.bus import PARTITIONS
from backbone.clock import SystemClock
from backbone.database import Database
from services.leaderboard.words import Words
from tests.leaderboard.builders import SECRET, PledgesDoor, drive, payment, pledge, running
from tests.leaderboard.hanging import NeverAnswering, hanging_service
from tests.leaderboard.test_snapshots import listening
from tests.real import fresh_postgres
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    async with fresh_postgres() as server:
        yield server


async def test_figures_and_heartbeats_are_published_while_the_request_for_texts_hangs(
    tmp_path: Path, url: str
) -> None:
    """Without clocks: the request never ends, so whoever waits for it is never seen."""
    clock, pledges = SystemClock(), NeverAnswering()
    async with (
        running(tmp_path, peer=pledges, ask_s=3600.0, database_url_leaderboard=url) as board,
        listening(board) as heard,
    ):
        await board.say(drive(), pledge("plg_0"))
        await until(lambda: pledges.hanging)
        for number in range(1, 11):
            await board.say(payment(f"pay_{number}", pledge_id=f"plg_{number}"))
            await heard.showing(donations=number)
        for topic in ("pledges", "payments"):
            await board.bus.publish_watermarks(topic, clock.now(), range(PARTITIONS))
        await until(lambda: {beat.partition for beat in heard.beats} == set(range(PARTITIONS)))
        await until(lambda: heard.newest is not None and heard.newest.totals["recent"])
        shown = heard.newest
        assert shown is not None
        assert {gift["name"] for gift in shown.totals["recent"]} == {None}
        assert (pledges.hanging, pledges.ended) == (1, 0)
    assert (pledges.hanging, pledges.ended) == (0, 1)  # cut off by the shutdown, which did not wait


async def test_texts_are_kept_before_the_gift_is_paid(tmp_path: Path) -> None:
    door = PledgesDoor({"plg_1": {"name": "Huda", "message": None}})
    async with running(tmp_path, pledges=door) as board, listening(board) as heard:
        await board.say(drive(), pledge("plg_1"))
        await until(lambda: door.asked == [["plg_1"]])
        with closing(sqlite3.connect(tmp_path / "leaderboard.db")) as store:
            await until(lambda: store.execute("SELECT pledge_id FROM words").fetchall() == [("plg_1",)])
        door.away = True
        await board.say(payment("pay_1", pledge_id="plg_1"))
        await heard.showing(donations=1)
        first = next(one for one in heard.snapshots if one.totals["donations"] == 1)
        assert [gift["name"] for gift in first.totals["recent"]] == ["Huda"]
        assert door.asked == [["plg_1"]]


async def test_a_pledges_that_never_answers_is_asked_ever_more_seldom(
    database: Database, tmp_path: Path
) -> None:
    async with hanging_service() as pledges:
        words = Words(database, pledges.peer, SECRET, ask_s=0.05, again_s=0.2)
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 1.5:
            assert await words.of(["plg_1"]) == {}
            await asyncio.sleep(0.01)
        assert 2 <= pledges.asked <= 4  # after 0, 0.25 and 0.7 s; then not before 1.55 s


async def test_texts_already_kept_are_answered_while_pledges_hangs(database: Database) -> None:
    door = PledgesDoor({"plg_1": {"name": "Huda", "message": None}})
    assert (await Words(database, door, SECRET).of(["plg_1"]))["plg_1"].name == "Huda"
    async with hanging_service() as pledges:
        words = Words(database, pledges.peer, SECRET, ask_s=0.05)
        assert (await words.of(["plg_1", "plg_2"])).keys() == {"plg_1"}


async def test_a_gift_is_never_shown_without_its_name_while_pledges_answers(tmp_path: Path) -> None:
    """Overlays announce a gift once, under the name it is first shown with."""
    people = {f"plg_{number}": {"name": "Huda", "message": None} for number in range(10)}
    async with running(tmp_path, pledges=PledgesDoor(people)) as board, listening(board) as heard:
        await board.say(drive())
        for number in range(10):
            await board.say(payment(f"pay_{number}", pledge_id=f"plg_{number}"))
            await heard.showing(donations=number + 1)
            await asyncio.sleep(0.1)
        await until(lambda: heard.newest is not None and len(heard.newest.totals["recent"]) == 10)
    assert {gift["name"] for one in heard.snapshots for gift in one.totals["recent"]} == {"Huda"}


async def test_texts_of_gifts_are_asked_for_when_they_are_tallied_not_when_they_are_shown(
    tmp_path: Path,
) -> None:
    """So that under load, when a drive has its turn 50 ms later, they are mostly there."""
    async with running(tmp_path) as board, listening(board) as heard:
        await board.say(payment("pay_1", pledge_id="plg_1"))  # of a drive that is not shown yet
        await until(lambda: board.pledges.asked == [["plg_1"]])
        await board.say(drive())
        await heard.showing(donations=1)
        assert board.pledges.asked == [["plg_1"]]


async def test_no_more_texts_are_waited_for_than_can_be_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as board, listening(board) as heard:
        gifts = [payment(f"pay_{number:03}", pledge_id=f"plg_{number:03}") for number in range(200)]
        await board.say(drive(), *gifts)
        await heard.showing(donations=200)
        newest = {f"plg_{number:03}" for number in range(180, 200)}
        await until(lambda: newest <= {one for each in board.pledges.asked for one in each})
        assert len({one for each in board.pledges.asked for one in each}) < 200
