"""Two gateways behind the edge: which one gets a request, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.edge.nginx import SOURCE, Edge, need_nginx, running_edge
from tests.edge.scripted_gateway import ScriptedGateway
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Pair = tuple[ScriptedGateway, ScriptedGateway]


def both_lines(gateways: Pair) -> str:
    """site/gateways.conf as it is shipped, with its second line in use."""
    shipped = (SOURCE / "site" / "gateways.conf").read_text().replace("# server ", "server ")
    for shown, gateway in zip(("8000", "8001"), gateways, strict=True):
        assert f"127.0.0.1:{shown} max_fails=1 fail_timeout=2s;" in shipped
        shipped = shipped.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{gateway.port}")
    return shipped


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Edge, Pair]]:
    need_nginx()
    gateways = ScriptedGateway(greeting=b":\n\n"), ScriptedGateway(greeting=b":\n\n")
    for gateway in gateways:
        await gateway.start()
    folder = tmp_path_factory.mktemp("edge") / "edge"
    site = {"gateways.conf": both_lines(gateways)}
    async with running_edge(folder, gateways[0].port, site=site) as edge:
        yield edge, gateways
    for gateway in gateways:
        await gateway.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def edge(started: tuple[Edge, Pair]) -> Edge:
    return started[0]


@pytest_asyncio.fixture(loop_scope="module")
async def gateways(started: tuple[Edge, Pair]) -> AsyncIterator[Pair]:
    for gateway in started[1]:
        gateway.seen.clear()
    yield started[1]
    for gateway in started[1]:
        gateway.status, gateway.full, gateway.breaks = "200 OK", False, False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


def streams_of(gateway: ScriptedGateway) -> int:
    """How many streams a gateway was asked for."""
    return sum(seen.target.endswith("/live") for seen in gateway.seen)


async def open_stream(client: aiohttp.ClientSession, edge: Edge, **headers: str) -> aiohttp.ClientResponse:
    """A stream that has sent its first line."""
    answer = await client.get(f"{edge.url}/v1/drives/winter/live", headers=headers)
    assert answer.status == 200
    assert await answer.content.readline() == b":\n"
    return answer


async def test_streams_are_spread_evenly(edge: Edge, gateways: Pair, client: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(PATIENCE_S):
        opened = [await open_stream(client, edge) for _ in range(6)]
    assert list(map(streams_of, gateways)) == [3, 3]
    for answer in opened:
        answer.close()


async def test_stream_of_a_failed_gateway_reconnects_to_the_other_at_once(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        stream = await open_stream(client, edge)
        failed, other = sorted(gateways, key=streams_of, reverse=True)
        await failed.stop()
        try:
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.content.read()
            again = await open_stream(client, edge, **{"Last-Event-ID": "7:41"})
        finally:
            await failed.start()
    assert other.seen[-1].headers["last-event-id"] == "7:41"
    again.close()


async def test_stream_that_a_gateway_refuses_is_opened_at_the_other(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    """A gateway that drains, or is full of streams, answers 503 to new ones."""
    full, other = gateways
    full.full = True
    for _ in range(4):
        (await open_stream(client, edge)).close()
    assert streams_of(other) == 4
    pledges = f"{edge.url}/v1/drives/winter/pledges"
    for _ in range(4):
        async with client.post(pledges, data=b"{}") as made:
            assert made.status == 200
    assert any(seen.method == "POST" for seen in full.seen)  # only its streams are refused


async def test_pledges_go_to_the_other_gateway_and_return(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    failed, other = gateways
    pledges = f"{edge.url}/v1/drives/winter/pledges"

    async def pledge() -> int:
        async with client.post(pledges, data=b"{}", headers={"Idempotency-Key": "k"}) as made:
            return made.status

    refused = edge.log.count("connect() failed")
    await failed.stop()
    try:
        assert [await pledge() for _ in range(40)] == [200] * 40
        assert (len(failed.seen), len(other.seen)) == (0, 40)
        # Passive health: a failed gateway is not tried for each request.
        assert edge.log.count("connect() failed") - refused <= 5
    finally:
        await failed.start()

    async def is_back() -> bool:
        assert await pledge() == 200
        return bool(failed.seen)

    await until(is_back)


async def test_pledge_that_a_gateway_received_is_not_sent_to_the_other(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    """Only its sender may repeat it, with the same key."""
    for gateway in gateways:
        gateway.breaks = True
    async with client.post(f"{edge.url}/v1/drives/winter/pledges", data=b'{"amount": 1}') as made:
        assert (made.status, made.headers["Retry-After"]) == (503, "2")
    assert sum(len(gateway.seen) for gateway in gateways) == 1


async def test_each_drive_is_read_from_one_gateway(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    """Another gateway may be a moment behind, so figures would step back."""
    for encoding in ("gzip", "identity"):
        for number in range(13):  # odd, so that taking turns would not give the same gateway twice
            url = f"{edge.url}/v1/drives/owned-{number}/totals"
            async with client.get(url, headers={"Accept-Encoding": encoding}) as answer:
                assert answer.status == 200
    first, second = ({seen.target for seen in gateway.seen} for gateway in gateways)
    assert first and second
    assert not first & second


async def test_reads_of_a_gateway_that_answers_503_come_from_the_other(
    edge: Edge, gateways: Pair, client: aiohttp.ClientSession
) -> None:
    drives = [f"drive-{number}" for number in range(12)]

    async def read(drive: str) -> tuple[int, str]:
        async with client.get(f"{edge.url}/v1/drives/{drive}/totals") as answer:
            return answer.status, (await answer.json())["state"]

    gateways[0].status = "503 Service Unavailable"
    assert [await read(drive) for drive in drives] == [(200, "live")] * 12
    assert {seen.target for seen in gateways[1].seen} == {f"/v1/drives/{drive}/totals" for drive in drives}
