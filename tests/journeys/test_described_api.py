"""Real answers and real frames of the stream satisfy the schemas of `/openapi.json`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.described import check_answer, check_frame
from tests.journeys.embedded_system import EmbeddedSystem
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOARDS = ("creators", "donors", "teams?window=24h", "sources?window=1h")
MILESTONES = [{"title": {"en": "First"}, "amount": {"currency": "USD", "value": "30.00"}}]


async def test_frames_of_the_stream_satisfy_their_schema(system: EmbeddedSystem) -> None:
    document = (await system.request("GET", "/openapi.json")).body
    await system.open_drive("framed", milestones=MILESTONES)
    seen: set[str] = set()
    async with system.client.get(f"{system.url}/v1/drives/framed/live") as reply:
        frames = frames_of(reply)
        await system.donate("framed", donor={"name": "Layla"}, message="For warm nights", creator="star")
        await system.donate("framed", donor={"anonymous": True})
        async with asyncio.timeout(PATIENCE_S):
            while not {"totals", "donation", "milestone"} <= seen:
                seen.add(check_frame(document, await anext(frames)))


async def test_replayed_frames_satisfy_the_same_schema(system: EmbeddedSystem) -> None:
    document = (await system.request("GET", "/openapi.json")).body
    await system.open_drive("replayed", milestones=MILESTONES)
    await system.donate("replayed", "35.00")
    await system.wait_for_raised("replayed", "35.00")
    seen: set[str] = set()
    async with system.client.get(f"{system.url}/v1/drives/replayed/live?last_event_id=1") as reply:
        frames = frames_of(reply)
        async with asyncio.timeout(PATIENCE_S):
            while not {"totals", "donation", "milestone"} <= seen:
                seen.add(check_frame(document, await anext(frames)))


async def test_answers_about_a_paid_pledge_satisfy_their_schemas(system: EmbeddedSystem) -> None:
    document = (await system.request("GET", "/openapi.json")).body
    drive = await system.open_drive("described", milestones=MILESTONES)
    pledge = await system.donate("described", creator="star")
    await system.wait_for_raised("described", "25.00")
    board = "/v1/drives/{drive}/leaderboards/{board}"
    boards = {f"{board}#{one}": f"/v1/drives/described/leaderboards/{one}" for one in BOARDS}
    reads = boards | {
        "/v1/drives/{drive}": "/v1/drives/described",
        "/v1/drives/{drive}/creators": "/v1/drives/described/creators",
        "/v1/drives/{drive}/totals": f"/v1/drives/{drive['id']}/totals",
        "/v1/totals": "/v1/totals?drives=described",
        "/v1/drives/{drive}/donations": "/v1/drives/described/donations",
        "/v1/drives/{drive}/events": "/v1/drives/described/events",
        "/v1/drives/{drive}/audit": "/v1/drives/described/audit",
        "/v1/pledges": "/v1/pledges?drive=described",
        "/v1/pledges/{pledge}": f"/v1/pledges/{pledge['id']}",
        "/v1/webhooks": "/v1/webhooks",
        "/v1/keys": "/v1/keys",
    }
    for path, address in reads.items():
        reply = await system.admin("GET", address)
        assert reply.status == 200, (path, reply.body)
        check_answer(document, path.partition("#")[0], "get", 200, reply.body)


async def frames_of(reply: Any) -> AsyncIterator[bytes]:
    """The events of a stream; comments and bare fields are left out, as a browser does."""
    held = b""
    async for chunk in reply.content.iter_any():
        held += chunk
        while b"\n\n" in held:
            block, _, held = held.partition(b"\n\n")
            if b"data: " in block:
                yield block
