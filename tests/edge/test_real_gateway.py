"""The edge in front of a real embedded system: a surge of readers, a stream, a pledge, a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from tests.edge.nginx import Edge
from tests.edge.origin import origin_reads
from tests.journeys.embedded_system import EmbeddedSystem, live_frames, new_idempotency_key
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

WINDOW_S = 1.2
LIVE_FOR_S = 11.0
"""How old figures that say `live` may be (docs/operations/edge.md): 10 s while they are read."""


async def poll(edge: Edge, drive: str, clients: int) -> tuple[Counter[int], set[str]]:
    """Read a drive's totals by that many clients: the statuses, and each `as_of` that was shown."""
    loop = asyncio.get_running_loop()
    end, statuses, shown = loop.time() + WINDOW_S, Counter[int](), set[str]()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        for turn in range(1_000_000):
            url = f"{edge.url}/v1/drives/{drive}/totals?t={number}{turn}&nobody=knows"
            async with session.get(url) as answer:
                shown.add((await answer.json())["as_of"])
                statuses[answer.status] += 1
            if loop.time() > end:
                return

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session, number) for number in range(clients)))
    return statuses, shown


async def test_hundredfold_readers_cost_the_gateway_no_more_reads(system: EmbeddedSystem, edge: Edge) -> None:
    await system.open_drive("viral")
    await system.donate("viral")
    await system.wait_for_raised("viral", "25.00")
    loop, reads, as_of = asyncio.get_running_loop(), [], set[str]()
    for clients in (2, 200):
        before, began = await origin_reads(system), loop.time()
        statuses, shown = await poll(edge, "viral", clients)
        reads.append(await origin_reads(system) - before)
        assert reads[-1] <= loop.time() - began + 1
        assert statuses.keys() == {200}
        assert statuses[200] >= clients
        as_of |= shown
    assert sum(reads) >= 1
    assert len(as_of) > 1  # the figures' age is renewed though the drive is quiet


async def test_head_and_preflight_of_a_shared_read(system: EmbeddedSystem, edge: Edge) -> None:
    await system.open_drive("asked")
    url = f"{edge.url}/v1/drives/asked/totals"
    async with system.client.head(url) as head, system.client.get(url) as whole:
        assert (head.status, head.headers["ETag"]) == (200, whole.headers["ETag"])
    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "GET"}
    async with system.client.options(url, headers=preflight) as answer:
        assert answer.status == 204
        assert "If-None-Match" in answer.headers["Access-Control-Allow-Headers"]
    async with system.client.post(url) as refused:
        assert refused.status == 405
    both = await system.request("GET", f"{edge.url}/v1/totals?t=1&drives=asked,asked")
    assert [totals["slug"] for totals in both.body["data"]] == ["asked"]
    missing = await system.request("GET", f"{edge.url}/v1/totals?t=1")
    assert (missing.status, missing.body["type"]) == (422, "/problems/invalid-request")


async def test_frames_of_a_stream_pass_one_by_one(system: EmbeddedSystem, edge: Edge) -> None:
    await system.open_drive("streamed")
    frames: asyncio.Queue[tuple[str, str, Any]] = asyncio.Queue()
    through = SimpleNamespace(client=system.client, url=edge.url)
    stream = asyncio.create_task(live_frames(through, "streamed", frames))
    try:
        assert (await frames.get())[0] == "totals"  # a proxy that gathers frames keeps it: the stream is open
        pledge = await system.donate("streamed", "25.00")
        seen: dict[str, Any] = {}

        async def both() -> bool:
            event, _, data = await frames.get()
            seen[event] = data
            return "donation" in seen and seen["totals"]["donations"] == 1

        seen["totals"] = {"donations": 0}
        await until(both)
        assert seen["donation"]["pledge"] == pledge["id"]
    finally:
        stream.cancel()


async def test_gateway_limits_the_donors_address_and_not_the_edges(
    system: EmbeddedSystem, edge: Edge
) -> None:
    await system.open_drive("limited")
    keys = json.loads((system.folder / "data" / "keys.json").read_text())

    async def pledge(session: aiohttp.ClientSession, address: str) -> int:
        headers = {
            "Authorization": f"Bearer {keys['publishable']}",
            "Origin": system.url,
            "Idempotency-Key": new_idempotency_key(),
            "X-Forwarded-For": address,
        }
        body = {"amount": {"currency": "USD", "value": "5.00"}}
        async with session.post(f"{edge.url}/v1/drives/limited/pledges", json=body, headers=headers) as made:
            return made.status

    one = [await pledge(system.client, "203.0.113.7") for _ in range(4)]
    assert (one[:2], one[-1]) == ([201, 201], 429)
    assert await pledge(system.client, "203.0.113.8") == 201
    other = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=other) as stranger:
        assert await pledge(stranger, "203.0.113.7") == 201  # its own word is not taken


async def test_readers_do_not_see_a_restart_of_the_gateway(system: EmbeddedSystem, edge: Edge) -> None:
    await system.open_drive("restarted")
    await system.donate("restarted")
    await system.wait_for_raised("restarted", "25.00")
    statuses, newest = Counter[int](), SimpleNamespace(as_of="", state="", sequence=0)
    dishonest: list[float] = []

    async def one(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(f"{edge.url}/v1/drives/restarted/totals") as answer:
                statuses[answer.status] += 1
                totals = await answer.json(content_type=None)
            age = (datetime.now(UTC) - datetime.fromisoformat(totals["as_of"])).total_seconds()
            if totals["state"] == "live" and age > LIVE_FOR_S:
                dishonest.append(age)
            assert totals["sequence"] >= newest.sequence
            newest.__dict__.update({name: totals[name] for name in ("as_of", "state", "sequence")})

    async with aiohttp.ClientSession() as session:
        readers = [asyncio.create_task(one(session)) for _ in range(20)]
        try:
            await until(lambda: newest.state == "live")
            system.kill()
            await system.start()
            back = datetime.now(UTC)
            await until(lambda: newest.state == "live" and datetime.fromisoformat(newest.as_of) > back)
        finally:
            failed = [reader.exception() for reader in readers if reader.done()]
            for reader in readers:
                reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*readers)
    assert failed == []
    assert statuses.keys() == {200}
    assert dishonest == []
