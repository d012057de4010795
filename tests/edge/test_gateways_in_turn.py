"""Viewers at the edge while the two real gateways behind it are stopped and killed in turn."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import aiohttp

from bench.viewers import Audience, Viewer, read_log, summary
from tests.edge.nginx import need_nginx, running_edge
from tests.edge.test_two_gateways import site_of
from tests.gateway.test_rolling_restarts import all_connected, leaderboard, replicas
from tests.leaderboard import builders
from tests.leaderboard.builders import DRIVE, Leaderboard
from tests.waiting import until

__all__ = ["leaderboard"]  # a fixture

VIEWERS = 20


async def test_viewers_of_the_edge_miss_no_donation_while_its_gateways_end_in_turn(
    leaderboard: Leaderboard, tmp_path: Path
) -> None:
    need_nginx()
    numbers = itertools.count()

    async def donate(count: int) -> None:
        await leaderboard.publish(*(builders.payment(f"pay_{next(numbers):05}") for _ in range(count)))

    await leaderboard.publish(builders.drive())
    async with replicas(leaderboard, tmp_path) as (first, second), aiohttp.ClientSession() as session:
        site = site_of(first.port, second.port)
        async with running_edge(tmp_path / "edge", first.port, site=site) as edge:
            viewers, audience = [Viewer() for _ in range(VIEWERS)], Audience([edge.port], DRIVE, hurry=0.01)
            watching = [
                asyncio.create_task(viewer.watch(audience, session, random.Random(number)))  # noqa: S311
                for number, viewer in enumerate(viewers)
            ]
            try:
                await all_connected(viewers)
                for one, killed in ((first, False), (second, True)):
                    await one.end(killed=killed)
                    await donate(20)
                    await all_connected(viewers)  # at the other one, through the edge
                    await donate(20)
                    await one.start()
                await until(leaderboard.is_drained)
                log = await read_log(session, [f"http://127.0.0.1:{first.port}/v1/drives/{DRIVE}/events"])
                await until(lambda: summary(viewers, log)["missed"] == 0)
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
    found = summary(viewers, log)
    assert found["rows_with_a_frame"] == 80
    assert found["missed"] == found["frames_repeated"] == found["totals_that_went_back"] == 0
    assert found["drains"] >= 1  # the first was told to stop, the second was killed
