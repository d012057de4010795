"""Viewers of two gateways that are restarted in turn miss no donation: rows are replayed or told by `gap`."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from backbone.bus.protocol import EventBus
from backbone.http.service_client import InProcessServiceClient
from backbone.service import Server, Service, listen, run_workers, server
from bench.viewers import Audience, Viewer, read_log, summary
from gateway.app import compose
from gateway.settings import GatewaySettings
from tests.gateway.harness import FakeService
from tests.leaderboard import builders
from tests.leaderboard.builders import DRIVE, SECRET, Leaderboard
from tests.ports import free_port
from tests.waiting import until

VIEWERS = 40


@dataclass
class RunningGateway:
    """One gateway with its server."""

    service: Service
    server: Server
    serving: asyncio.Task[None]
    working: asyncio.Task[None]
    stop: asyncio.Event


class Replica:
    """A gateway that can be stopped and started again on its port, with a memory of nothing."""

    def __init__(self, folder: Path, bus: EventBus, leaderboard: Service, port: int) -> None:
        self.port = port
        self._settings = GatewaySettings(
            data_dir=folder, internal_secret=SecretStr(SECRET), database_synchronous="OFF"
        )
        self._bus = bus
        self._leaderboard = leaderboard
        self._running: RunningGateway | None = None

    async def start(self) -> None:
        """Start it. Clients may connect before it has read the snapshots."""
        other = FakeService({"POST /internal/drives": (200, {"data": {}})})
        clients = {name: InProcessServiceClient(other) for name in ("pledges", "payments")}
        clients["leaderboard"] = InProcessServiceClient(self._leaderboard.app)
        service = compose(self._settings, self._bus, clients)
        await service.start()
        one, stop = server(service.app), asyncio.Event()
        serving = asyncio.create_task(one.serve(sockets=[listen("127.0.0.1", self.port, "the test's port")]))
        working = asyncio.create_task(run_workers([service], stop))
        self._running = RunningGateway(service, one, serving, working, stop)
        await until(lambda: one.started)

    async def end(self, *, killed: bool = False) -> None:
        """Stop it as SIGTERM does, or drop every connection as SIGKILL does."""
        assert self._running is not None
        found, self._running = self._running, None
        if killed:
            for listening in found.server.servers:
                listening.close()
            for connection in list(found.server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]
        else:
            found.service.drain.set()
        found.server.should_exit = True
        await found.serving
        found.stop.set()
        await found.working
        await found.service.close()


@pytest.fixture
async def leaderboard(tmp_path: Path) -> AsyncIterator[Leaderboard]:
    async with builders.running(tmp_path) as running:
        yield running


@asynccontextmanager
async def replicas(leaderboard: Leaderboard, folder: Path) -> AsyncIterator[list[Replica]]:
    """Two gateways on the bus of `leaderboard`."""
    found = []
    for number in range(2):
        (folder / f"gateway-{number}").mkdir()
        one = Replica(folder / f"gateway-{number}", leaderboard.bus, leaderboard.service, free_port())
        await one.start()
        found.append(one)
    try:
        yield found
    finally:
        for one in found:
            await one.end()


async def test_viewers_miss_no_donation_while_gateways_are_restarted(
    leaderboard: Leaderboard, tmp_path: Path
) -> None:
    numbers = itertools.count()

    async def donate(count: int) -> None:
        await leaderboard.publish(*(builders.payment(f"pay_{next(numbers):05}") for _ in range(count)))

    await leaderboard.publish(builders.drive(milestones=[builders.milestone(2500 * 100, "a hundred")]))
    async with replicas(leaderboard, tmp_path) as (first, second), aiohttp.ClientSession() as session:
        viewers = [Viewer() for _ in range(VIEWERS)]
        audience = Audience([first.port, second.port], DRIVE, hurry=0.01)
        watching = [
            asyncio.create_task(viewer.watch(audience, session, random.Random(number)))  # noqa: S311 - tests
            for number, viewer in enumerate(viewers)
        ]
        try:
            await all_connected(viewers)
            # Stopped in turn, the first one before any viewer has received a row.
            for one, killed in ((first, False), (second, False), (first, True)):
                await one.end(killed=killed)
                await donate(30)
                await all_connected(viewers)
                await donate(30)
                await one.start()
            # Both at once, with fewer donations than are replayed, and with more.
            for count in (60, 520):
                await first.end()
                await second.end()
                await donate(count)
                await until(leaderboard.is_drained)
                await first.start()
                await second.start()
                await all_connected(viewers)
            await donate(10)
            addresses = [f"http://127.0.0.1:{port}/v1/drives/{DRIVE}/events" for port in audience.ports]
            await until(leaderboard.is_drained)
            log = await read_log(session, addresses)
            await until(lambda: summary(viewers, log)["missed"] == 0)
            await all_connected(viewers)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    found = summary(viewers, log)
    assert found["rows_with_a_frame"] == 3 * 60 + 60 + 530 + 1
    assert found["missed"] == found["frames_repeated"] == found["totals_that_went_back"] == 0
    assert found["frames_expected"] == VIEWERS * found["rows_with_a_frame"]
    assert found["gaps_told"] >= VIEWERS
    assert found["frames_replayed"] >= VIEWERS * 60
    assert found["drains"] >= VIEWERS


async def all_connected(viewers: list[Viewer]) -> None:
    """Wait until every viewer has a stream that has begun."""
    await until(lambda: all(viewer.is_connected and viewer.last_id is not None for viewer in viewers))


@pytest.mark.parametrize("lost", ["a row", "an order"])
def test_summary_shows_what_a_viewer_lost(lost: str) -> None:
    log: list[dict[str, Any]] = [{"sequence": n, "type": "donation.counted"} for n in range(1, 7)]
    change: dict[str, Callable[[Viewer], None]] = {
        "a row": lambda viewer: viewer.rows.remove(3),
        "an order": lambda viewer: viewer.rows.append(3),
    }
    viewer = Viewer(rows=[2, 3, 4], told={5, 6}, began=1)
    assert (summary([viewer], log)["missed"], summary([viewer], log)["frames_repeated"]) == (0, 0)
    change[lost](viewer)
    found = summary([viewer], log)
    assert (found["missed"], found["frames_repeated"]) == ((1, 0) if lost == "a row" else (0, 1))
