"""What the edge shares, for how long, and what it passes on; the gateway is scripted, nginx is real."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.edge.nginx import Edge, need_nginx, running_edge
from tests.edge.scripted_gateway import CACHE, ScriptedGateway
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CDN = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Edge, ScriptedGateway]]:
    need_nginx()
    gateway = ScriptedGateway()
    await gateway.start()
    folder = tmp_path_factory.mktemp("edge") / "edge"
    async with running_edge(folder, gateway.port, site={"client_address.conf": CDN}) as edge:
        yield edge, gateway
    await gateway.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def edge(started: tuple[Edge, ScriptedGateway]) -> Edge:
    return started[0]


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(started: tuple[Edge, ScriptedGateway]) -> AsyncIterator[ScriptedGateway]:
    gateway = started[1]
    gateway.seen.clear()
    yield gateway
    gateway.status, gateway.cache, gateway.etag, gateway.state = "200 OK", CACHE, 'W/"1.5.0.live"', "live"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


async def read(
    client: aiohttp.ClientSession, url: str, **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("Accept-Encoding", "identity")
    async with client.get(URL(url, encoded=True), headers=named) as answer:
        return answer, await answer.read()


async def test_unknown_parameters_reach_neither_the_key_nor_the_gateway(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    queries = ["", "?t=1700000000001", "?t=1700000000002", "?x=%00&since=no", "?T=3&_=4"]
    bodies = {(await read(client, f"{edge.url}/v1/drives/unknown-p/totals{query}"))[1] for query in queries}
    assert len(bodies) == 1
    assert [seen.target for seen in gateway.seen] == ["/v1/drives/unknown-p/totals"]


async def test_known_parameters_are_kept(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    asked = {
        "/v1/totals?t=1&drives=a,b%2Cc": "/v1/totals?drives=a,b%2Cc",
        "/v1/totals?drives=d&t=2": "/v1/totals?drives=d",
        "/v1/drives/kept/totals?since=41&t=3": "/v1/drives/kept/totals?since=41",
        "/v1/drives/kept/events?t=4&after=7&limit=100": "/v1/drives/kept/events?&limit=100&after=7",
        "/v1/drives/kept/leaderboards/creators?window=1h&around=crt_1&t=5": (
            "/v1/drives/kept/leaderboards/creators?&window=1h&around=crt_1"
        ),
    }
    for target in asked:
        await read(client, edge.url + target)
    assert [seen.target for seen in gateway.seen] == list(asked.values())


@pytest.mark.parametrize("path", ["events", "totals", "leaderboards/creators"])
async def test_line_feed_in_an_address_does_not_reach_the_request_line(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession, path: str
) -> None:
    target = f"/v1/drives/broken/{path}%0aX-Forged:%201%0a"
    for asked in (target, f"/v1/drives/broken/{path}%0a"):
        await read(client, edge.url + asked)
        assert gateway.seen[-1].target == asked
        assert "x-forged" not in gateway.seen[-1].headers


async def test_readers_share_an_answer_whatever_their_encodings(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    url = f"{edge.url}/v1/drives/encodings/totals"
    lists = ["gzip", "gzip, deflate", "gzip, deflate, br, zstd", "br;q=1.0, GZIP;q=0.8"]
    zipped = [await read(client, url, Accept_Encoding=accepted) for accepted in lists]
    plain = [await read(client, url, Accept_Encoding=accepted) for accepted in ("br", "gzip;q=0", "identity")]
    assert len(gateway.seen) == 2
    assert {answer.headers.get("Content-Encoding") for answer, _ in zipped} == {"gzip"}
    assert {answer.headers.get("Content-Encoding") for answer, _ in plain} == {None}
    assert {answer.headers["Vary"] for answer, _ in [*zipped, *plain]} == {"Accept-Encoding"}
    assert b'"state":"live"' in gzip.decompress(zipped[0][1])


async def test_reader_with_the_newest_version_gets_304(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    url = f"{edge.url}/v1/drives/unchanged/totals"
    first, _ = await read(client, url)
    again, body = await read(client, url, If_None_Match=first.headers["ETag"])
    other, _ = await read(client, url, If_None_Match='W/"1.4.0.live"')
    assert (again.status, body, other.status) == (304, b"", 200)
    assert first.headers["Cache-Control"] == "public, max-age=1, s-maxage=1, stale-while-revalidate=5"


async def test_request_with_a_key_is_answered_by_the_gateway_and_not_shared(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    url = f"{edge.url}/v1/drives/keyed/totals"
    keyed = [await read(client, url, Authorization="Bearer pk_live_1") for _ in range(2)]
    assert [seen.headers.get("authorization") for seen in gateway.seen] == ["Bearer pk_live_1"] * 2
    assert {answer.headers["Cache-Status"] for answer, _ in keyed} == {"ataa-edge; fwd=bypass"}
    _, public = await read(client, url)
    assert public not in {body for _, body in keyed}
    assert "authorization" not in gateway.seen[-1].headers


async def test_shared_answer_carries_the_request_id_of_its_reader(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    url = f"{edge.url}/v1/drives/identified/totals"
    shown = [
        (await read(client, url, X_Request_Id=one))[0].headers.getall("X-Request-Id") for one in ("a", "b")
    ]
    assert shown == [["a"], ["b"]]
    assert len(gateway.seen) == 1


async def test_client_address_is_the_trusted_proxys_word_or_the_connections(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    other = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=other) as stranger:
        for session in (client, stranger):
            await read(
                session, f"{edge.url}/v1/pledges/plg_1", X_Forwarded_For="203.0.113.7", Forwarded="for=1"
            )
    assert [seen.headers["x-forwarded-for"] for seen in gateway.seen] == ["203.0.113.7", "127.0.0.2"]
    assert [seen.headers.get("forwarded") for seen in gateway.seen] == [None, None]


async def test_changes_and_private_reads_are_passed_on_each_time(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    pledges = f"{edge.url}/v1/drives/winter/pledges"
    for _ in range(2):
        async with client.post(
            f"{pledges}?t=1", data=b'{"amount": 1}', headers={"Idempotency-Key": "k"}
        ) as answer:
            assert answer.status == 200
        await read(client, f"{edge.url}/v1/pledges/plg_1?token=secret")
        await read(client, f"{edge.url}/donate/winter?creator=star")
    assert [seen.target for seen in gateway.seen[:3]] == [
        "/v1/drives/winter/pledges?t=1",
        "/v1/pledges/plg_1?token=secret",
        "/donate/winter?creator=star",
    ]
    assert len(gateway.seen) == 6
    assert (gateway.seen[0].body, gateway.seen[0].headers["idempotency-key"]) == (b'{"amount": 1}', "k")
    assert "secret" not in "".join(file.read_text() for file in (edge.folder / "run").glob("access.log"))


async def test_unknown_drive_is_asked_for_once(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    gateway.status, gateway.cache = "404 Not Found", "no-store"
    answers = await asyncio.gather(*(read(client, f"{edge.url}/v1/drives/nobodys/totals") for _ in range(20)))
    assert {answer.status for answer, _ in answers} == {404}
    assert len(gateway.seen) == 1


async def test_refusal_of_one_client_is_not_shared(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    gateway.status, gateway.cache = "429 Too Many Requests", "no-store"
    url = f"{edge.url}/v1/drives/limited/events?after=1"
    refused, _ = await read(client, url, X_Forwarded_For="203.0.113.7")
    gateway.status, gateway.cache = "200 OK", "public, max-age=1"
    answered, _ = await read(client, url, X_Forwarded_For="203.0.113.8")
    assert (refused.status, answered.status) == (429, 200)
    assert gateway.seen[-1].headers["x-forwarded-for"] == "203.0.113.8"


async def test_each_frame_of_a_stream_passes_before_the_next_is_there(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        gateway.frames.put_nowait(b":\n\n")
        async with client.get(f"{edge.url}/v1/drives/winter/live") as answer:
            assert await answer.content.readline() == b":\n"
            for number in range(3):
                gateway.frames.put_nowait(b"data: %d\n\n" % number)
                shown = [await answer.content.readline() for _ in range(2)]
                assert shown == [b"\n", b"data: %d\n" % number]
    assert answer.content_type == "text/event-stream"


async def test_too_large_body_gets_a_problem_document(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    headers = {"Content-Length": str(2 * 1024 * 1024)}
    async with client.post(f"{edge.url}/v1/drives", data=bytes(2 * 1024 * 1024), headers=headers) as answer:
        shown = await answer.json(content_type="application/problem+json")
    assert (answer.status, shown["type"]) == (413, "/problems/body-too-large")
    assert gateway.seen == []


async def test_unreadable_requests_get_problem_documents(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    long = "a" * 9000
    asked = {
        414: {"url": f"{edge.url}/v1/{long}"},
        431: {"url": f"{edge.url}/v1/pledges", "headers": {"X-Long": long}},
        400: {"url": f"{edge.url}/v1/pledges", "headers": {"Host": "a b"}},
    }
    for status, request in asked.items():
        async with client.get(**request) as answer:
            shown = await answer.json(content_type="application/problem+json")
            assert (answer.status, shown["status"]) == (status, status)
            assert shown["request_id"] == answer.headers["X-Request-Id"]
    assert gateway.seen == []


async def test_without_a_gateway_kept_figures_turn_frozen_and_then_end(
    edge: Edge, gateway: ScriptedGateway, client: aiohttp.ClientSession
) -> None:
    """The times are the gateway's; here they are short: 0 s as it is, 1 s as frozen."""
    gateway.cache = "public, max-age=1, s-maxage=1, stale-while-revalidate=0, stale-if-error=1"
    url, etag = f"{edge.url}/v1/drives/away/totals", gateway.etag
    _, before = await read(client, url)
    await gateway.stop()
    seen: list[tuple[int, bytes, str | None]] = []

    async def unavailable() -> bool:
        answer, body = await read(client, url, If_None_Match='W/"0"')
        seen.append((answer.status, body, answer.headers.get("ETag")))
        return answer.status != 200

    try:
        await until(unavailable)
    finally:
        await gateway.start()
    frozen = before.replace(b'"state":"live"', b'"state":"frozen"')
    kept = list(dict.fromkeys(seen))
    assert kept[:-1] == [(200, before, etag), (200, frozen, 'W/"1.5.0.frozen"')]
    assert kept[-1][0] == 503
    assert frozen.count(b"live") == 1  # a donor's text is left alone
