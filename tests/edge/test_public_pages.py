"""What the edge shares of public pages; the gateway is scripted, nginx is real."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.edge.nginx import Edge, need_nginx, running_edge
from tests.edge.scripted_gateway import ScriptedGateway
from tests.edge.test_shared_reads import client, read

__all__ = ["client"]  # the fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE_CACHE = "public, max-age=60, stale-while-revalidate=10, stale-if-error=60"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Edge, ScriptedGateway]]:
    need_nginx()
    gateway = ScriptedGateway(cache=PAGE_CACHE, vary="Accept-Language", kind="text/html; charset=utf-8")
    await gateway.start()
    async with running_edge(tmp_path_factory.mktemp("edge") / "edge", gateway.port) as edge:
        yield edge, gateway
    await gateway.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def edge(started: tuple[Edge, ScriptedGateway]) -> Edge:
    return started[0]


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(started: tuple[Edge, ScriptedGateway]) -> ScriptedGateway:
    started[1].seen.clear()
    return started[1]


@pytest.mark.parametrize("path", ["/d/winter", "/d/winter/aboflah", "/d/winter/og.png"])
async def test_page_is_asked_for_once_whatever_a_network_adds_to_its_link(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession, path: str
) -> None:
    queries = ("?utm_source=tiktok", "?fbclid=1&utm_source=tiktok", "?utm_source=tiktok&t=2&token=secret")
    bodies = {(await read(client, f"{edge.url}{path}{query}"))[1] for query in queries}
    assert len(bodies) == 1
    assert [seen.target for seen in gateway.seen] == [f"{path}?&utm_source=tiktok"]


async def test_languages_sources_and_hosts_are_kept_apart(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    url = f"{edge.url}/d/apart"
    asked = [
        (url, {}), (url, {"Accept_Language": "ar"}), (f"{url}?lang=ar", {}), (f"{url}?platform=x", {}),
        (f"{url}?campaign=x&digits=arab", {}), (url, {"Host": "give.example"}),
    ]  # fmt: skip
    bodies = [(await read(client, one, **headers))[1] for one, headers in asked * 2]
    assert len(set(bodies)) == len(gateway.seen) == len(asked)
    assert bodies[: len(asked)] == bodies[len(asked) :]


async def test_cookies_do_not_reach_a_shared_page_and_keys_are_not_shared(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    await read(client, f"{edge.url}/d/plain", Cookie="ataa-session=x")
    await read(client, f"{edge.url}/d/plain", Authorization="Bearer x")
    first, second = gateway.seen
    assert ("cookie" in first.headers, second.headers["authorization"]) == (False, "Bearer x")


async def test_views_are_passed_on_with_their_source(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        async with client.post(f"{edge.url}/d/winter/visits?step=seen&platform=x", data=b"") as answer:
            assert answer.status == 200
    assert [(one.method, one.target) for one in gateway.seen] == [
        ("POST", "/d/winter/visits?step=seen&platform=x")
    ] * 2


async def test_page_is_compressed(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    answer, body = await read(client, f"{edge.url}/d/long", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == (await read(client, f"{edge.url}/d/long"))[1]
