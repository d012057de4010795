"""Donors' texts: asked for beside the figures, shown once they are there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from backbone.bus.protocol import PARTITIONS
from backbone.clock import SystemClock
from backbone.database.database import Database
from services.leaderboard.display_texts import DisplayTexts
from tests.engines import fresh_postgres
from tests.leaderboard.builders import SECRET, FakePledges, drive, payment, pledge, running
from tests.leaderboard.hanging_service import NeverAnswering, hanging_service
from tests.leaderboard.test_snapshots import reading_snapshots
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
        running(
            tmp_path, peer=pledges, request_timeout_s=3600.0, database_url_leaderboard=url
        ) as leaderboard,
        reading_snapshots(leaderboard) as reader,
    ):
        await leaderboard.publish(drive(), pledge("plg_0"))
        await until(lambda: pledges.hanging)
        for number in range(1, 11):
            await leaderboard.publish(payment(f"pay_{number}", pledge_id=f"plg_{number}"))
            await reader.showing(donations=number)
        for topic in ("pledges", "payments"):
            await leaderboard.bus.publish_watermarks(topic, clock.now(), range(PARTITIONS))
        await until(
            lambda: {heartbeat.partition for heartbeat in reader.heartbeats} == set(range(PARTITIONS))
        )
        await until(lambda: reader.newest is not None and reader.newest.totals["recent"])
        shown = reader.newest
        assert shown is not None
        assert {gift["name"] for gift in shown.totals["recent"]} == {None}
        assert (pledges.hanging, pledges.ended) == (1, 0)
    assert (pledges.hanging, pledges.ended) == (0, 1)  # cut off by the shutdown, which did not wait


async def test_texts_are_kept_before_the_gift_is_paid(tmp_path: Path) -> None:
    fake_pledges = FakePledges({"plg_1": {"name": "Huda", "message": None}})
    async with (
        running(tmp_path, pledges=fake_pledges) as leaderboard,
        reading_snapshots(leaderboard) as reader,
    ):
        await leaderboard.publish(drive(), pledge("plg_1"))
        await until(lambda: fake_pledges.asked == [["plg_1"]])
        with closing(sqlite3.connect(tmp_path / "leaderboard.db")) as store:
            await until(lambda: store.execute("SELECT pledge_id FROM words").fetchall() == [("plg_1",)])
        fake_pledges.unavailable = True
        await leaderboard.publish(payment("pay_1", pledge_id="plg_1"))
        await reader.showing(donations=1)
        first = next(one for one in reader.snapshots if one.totals["donations"] == 1)
        assert [gift["name"] for gift in first.totals["recent"]] == ["Huda"]
        assert fake_pledges.asked == [["plg_1"]]


async def test_requests_to_a_stalled_pledges_service_back_off(database: Database, tmp_path: Path) -> None:
    async with hanging_service() as pledges:
        display_texts = DisplayTexts(database, pledges.peer, SECRET, request_timeout_s=0.05, retry_s=0.2)
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < 1.5:
            assert await display_texts.of(["plg_1"]) == {}
            await asyncio.sleep(0.01)
        assert 2 <= pledges.asked <= 4  # after 0, 0.25 and 0.7 s; then not before 1.55 s


async def test_stored_texts_are_returned_while_pledges_is_stalled(database: Database) -> None:
    fake_pledges = FakePledges({"plg_1": {"name": "Huda", "message": None}})
    assert (await DisplayTexts(database, fake_pledges, SECRET).of(["plg_1"]))["plg_1"].name == "Huda"
    async with hanging_service() as pledges:
        display_texts = DisplayTexts(database, pledges.peer, SECRET, request_timeout_s=0.05)
        assert (await display_texts.of(["plg_1", "plg_2"])).keys() == {"plg_1"}


async def test_donation_is_not_shown_without_its_name_while_pledges_answers(tmp_path: Path) -> None:
    """Overlays announce a gift once, under the name it is first shown with."""
    people = {f"plg_{number}": {"name": "Huda", "message": None} for number in range(10)}
    async with (
        running(tmp_path, pledges=FakePledges(people)) as leaderboard,
        reading_snapshots(leaderboard) as reader,
    ):
        await leaderboard.publish(drive())
        for number in range(10):
            await leaderboard.publish(payment(f"pay_{number}", pledge_id=f"plg_{number}"))
            await reader.showing(donations=number + 1)
            await asyncio.sleep(0.1)
        await until(lambda: reader.newest is not None and len(reader.newest.totals["recent"]) == 10)
    assert {gift["name"] for one in reader.snapshots for gift in one.totals["recent"]} == {"Huda"}


async def test_texts_are_requested_when_a_donation_is_counted(
    tmp_path: Path,
) -> None:
    """So that under load, when a drive has its turn 50 ms later, they are mostly there."""
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(payment("pay_1", pledge_id="plg_1"))  # of a drive that is not shown yet
        await until(lambda: leaderboard.pledges.asked == [["plg_1"]])
        await leaderboard.publish(drive())
        await reader.showing(donations=1)
        assert leaderboard.pledges.asked == [["plg_1"]]


async def test_number_of_requested_texts_is_bounded(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        gifts = [payment(f"pay_{number:03}", pledge_id=f"plg_{number:03}") for number in range(200)]
        await leaderboard.publish(drive(), *gifts)
        await reader.showing(donations=200)
        newest = {f"plg_{number:03}" for number in range(180, 200)}
        await until(lambda: newest <= {one for each in leaderboard.pledges.asked for one in each})
        assert len({one for each in leaderboard.pledges.asked for one in each}) < 200
