"""Streams sent by a real nchan, to which `python -m edge` publishes the frames of a real gateway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.edge.nginx import Edge, need_nginx, running_edge
from tests.edge.stream_clients import StreamClient, stream_clients
from tests.forked_process import ForkedProcess
from tests.journeys.embedded_system import EmbeddedSystem
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 1000


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nchan(system: EmbeddedSystem, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """The edge of nginx-nchan.conf; it sends the streams of three drives itself."""
    need_nginx(nchan=True)
    folder = tmp_path_factory.mktemp("nchan") / "edge"
    drives = "".join(f"{slug} {slug};\n" for slug in ("crowded", "republished", "resumed"))
    site = {"nchan_drives.conf": drives}
    async with running_edge(folder, system.gateway_port, main="nginx-nchan.conf", site=site) as edge:
        yield edge


@contextmanager
def publisher(system: EmbeddedSystem, nchan: Edge, drive: str, folder: Path) -> Iterator[ForkedProcess]:
    """`python -m edge` for one drive."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    environment |= {
        "ATAA_DATA_DIR": str(folder),
        "ATAA_EDGE_DRIVES": drive,
        "ATAA_EDGE_GATEWAY": system.url,
        "ATAA_EDGE_NCHAN": f"http://127.0.0.1:{nchan.publisher_port}",
    }
    process = ForkedProcess("edge", [], environment, folder / "edge.log")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_thousand_clients_receive_every_frame(
    system: EmbeddedSystem, nchan: Edge, tmp_path: Path
) -> None:
    await system.open_drive("crowded")
    with publisher(system, nchan, "crowded", tmp_path):
        async with stream_clients(nchan.port, "crowded", CLIENTS) as clients:
            await until(lambda: all(client.totals for client in clients))
            for _ in range(3):
                await system.donate("crowded", "5.00")
            await system.wait_for_raised("crowded", "15.00")
            log = (await system.request("GET", "/v1/drives/crowded/events?after=0")).body["data"]
            donations = [row["sequence"] for row in log if row["type"] == "donation.counted"]
            await until(lambda: all(len(client.rows) >= len(donations) for client in clients))
    assert len(donations) == 3
    assert {tuple(client.rows) for client in clients} == {tuple(donations)}
    assert {client.first_event for client in clients} == {b"totals"}
    head = clients[0].head.decode().lower()
    assert head.startswith("http/1.1 200")
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert not any(client.closed for client in clients)


async def test_restarted_publisher_misses_no_donation(
    system: EmbeddedSystem, nchan: Edge, tmp_path: Path
) -> None:
    await system.open_drive("republished")
    with publisher(system, nchan, "republished", tmp_path):
        async with stream_clients(nchan.port, "republished", 1) as (client,):
            await until(lambda: client.totals)
            await system.donate("republished", "5.00")
            await until(lambda: client.rows and (tmp_path / "edge" / "republished.json").exists())
    async with stream_clients(nchan.port, "republished", 1) as (client,):
        await system.donate("republished", "6.00")
        await system.wait_for_raised("republished", "11.00")
        with publisher(system, nchan, "republished", tmp_path):
            await until(lambda: len(client.rows) >= 1 and client.rows[-1] == 3)


async def test_reconnecting_client_is_told_of_the_gap_and_comes_back_as_new(
    system: EmbeddedSystem, nchan: Edge
) -> None:
    url = f"{nchan.url}/v1/drives/resumed/live"
    for request in ({"url": url, "headers": {"Last-Event-ID": "41"}}, {"url": f"{url}?last_event_id=41"}):
        async with system.client.get(**request) as answer:
            retry, *lines = (await answer.text()).splitlines()
            assert answer.content_type == "text/event-stream"
        assert retry in {"retry: 1000", "retry: 2000", "retry: 3000", "retry: 4000"}
        assert lines == [
            "id",
            "event: gap",
            'data: {"after":41,"events":"/v1/drives/resumed/events?after=41"}',
            "",
        ]


async def test_drive_without_a_publisher_is_streamed_by_the_gateway(
    system: EmbeddedSystem, nchan: Edge
) -> None:
    await system.open_drive("small")
    async with stream_clients(nchan.port, "small", 1) as clients:
        await until(lambda: clients[0].totals)
        donated = asyncio.ensure_future(system.donate("small", "5.00"))
        await until(lambda: _has_rows(clients[0]))
        await donated


def _has_rows(client: StreamClient) -> bool:
    return bool(client.rows)
