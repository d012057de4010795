"""Each step of the ladder through the public API: what gives way, what stays, and that it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gateway.overload.ladder import Step
from gateway.overload.shedding import LEAST_PLEDGES
from tests.gateway.harness import ADMIN, DRIVE, Harness, bearer, hub_of
from tests.gateway.overload.conftest import Loaded
from tests.gateway.test_http import send_raw
from tests.waiting import PATIENCE_S, until

TOTALS = "/v1/drives/winter/totals"
BOARDS = "/v1/drives/winter/leaderboards"
PLEDGES = f"/v1/drives/{DRIVE}/pledges"
ORDER = ["recent", "boards", "snapshots", "streams", "pledges"]


async def shown(harness: Harness, raised: str = "25.00") -> dict[str, Any]:
    """The totals, once a snapshot was received."""
    found: dict[str, Any] = {}

    async def are_shown() -> bool:
        found.update((await harness.get(TOTALS))[1:][1])
        return bool(found["raised"]["value"] == raised)

    await until(are_shown)
    return found


def is_refused(reply: tuple[int, Any, Any]) -> bool:
    """Whether a reply is a 503 that says when to come back."""
    status, headers, problem = reply
    return status == 503 and problem["type"] == "/problems/overloaded" and int(headers["Retry-After"]) >= 1


@pytest.mark.parametrize("step", list(Step), ids=lambda step: step.word)
async def test_totals_and_metrics_name_what_gives_way(loaded: Loaded, step: Step) -> None:
    await loaded.harness.snapshot(1)
    await shown(loaded.harness)
    await loaded.load.reach(step)
    totals = (await loaded.harness.get(TOTALS))[2]
    several = (await loaded.harness.get("/v1/totals?drives=winter"))[2]["data"][0]
    assert totals.get("degraded", []) == several.get("degraded", []) == ORDER[:step]
    assert ("degraded" in totals) == bool(step)
    on = {name: REGISTRY.get_sample_value("ataa_gateway_shedding", {"lane": name}) for name in ORDER}
    assert on == {name: float(place < step) for place, name in enumerate(ORDER)}


async def test_recent_donations_give_way_first_and_come_back(loaded: Loaded) -> None:
    harness = loaded.harness
    harness.leaderboard.answers["GET /v1/drives/winter/"] = (200, {"data": []})
    await harness.snapshot(1)
    before = await shown(harness)
    assert before["recent"]
    etag = (await harness.get(TOTALS))[1]["ETag"]
    assert etag == 'W/"1.1.0.live"'
    await loaded.load.reach(Step.RECENT)
    status, headers, totals = await harness.get(TOTALS, **{"If-None-Match": etag})
    assert (status, headers["ETag"]) == (200, 'W/"1.1.0.live-recent"')
    assert totals["recent"] == []
    assert totals["leaders"] == before["leaders"]
    assert is_refused(await harness.get("/v1/drives/winter/donations"))
    assert (await harness.get("/v1/drives/winter/events"))[0] == 200
    assert (await harness.get(f"{BOARDS}/donors"))[0] == 200
    await loaded.load.reach(Step.NOTHING)
    status, headers, totals = await harness.get(TOTALS, **{"If-None-Match": headers["ETag"]})
    assert (status, headers["ETag"], totals["recent"]) == (200, etag, before["recent"])
    assert (await harness.get("/v1/drives/winter/donations"))[0] == 200


async def test_boards_of_donors_and_windows_give_way_to_those_of_all_time(loaded: Loaded) -> None:
    harness = loaded.harness
    harness.leaderboard.answers["GET /v1/drives/winter/"] = (200, {"data": []})
    await loaded.load.reach(Step.BOARDS)
    for board in ("donors", "donors?window=all", "creators?window=24h", "teams?limit=5&window=1h"):
        assert is_refused(await harness.get(f"{BOARDS}/{board}")), board
    for board in ("creators", "teams?window=all", "sources"):
        assert (await harness.get(f"{BOARDS}/{board}"))[0] == 200, board
    await loaded.load.reach(Step.RECENT)
    assert (await harness.get(f"{BOARDS}/creators?window=24h"))[0] == 200


async def test_board_that_was_read_before_is_answered_while_boards_give_way(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = loaded.harness
    harness.leaderboard.answers["GET /v1/drives/winter/"] = (200, {"data": [{"rank": 1}]})
    for read in (f"{BOARDS}/donors", "/v1/drives/winter/donations"):
        assert (await harness.get(read))[0] == 200
    await loaded.load.reach(Step.BOARDS)
    monkeypatch.setattr("gateway.proxy.leaderboards.CACHE_S", 0.0)  # as if a second had passed
    asked = len(harness.leaderboard.received)
    assert is_refused(
        await harness.get("/v1/drives/winter/donations")
    )  # a message in it may be hidden by now
    assert (await harness.get(f"{BOARDS}/donors"))[2]["data"] == [{"rank": 1}]
    assert len(harness.leaderboard.received) == asked


@asynccontextmanager
async def stream(harness: Harness) -> AsyncIterator[asyncio.Queue[tuple[float, str]]]:
    """The `data` of the totals frames of a stream, each with the time of its arrival."""
    frames: asyncio.Queue[tuple[float, str]] = asyncio.Queue()
    async with harness.session.get("/v1/drives/winter/live") as reply:
        assert reply.status == 200

        async def read() -> None:
            async for line in reply.content:
                if line.startswith(b"data: "):
                    frames.put_nowait((time.monotonic(), line.decode()))

        reading = asyncio.create_task(read())
        try:
            yield frames
        finally:
            reading.cancel()


async def test_frames_come_once_a_second_while_the_rate_of_snapshots_gives_way(loaded: Loaded) -> None:
    harness = loaded.harness
    await harness.snapshot(1)
    await shown(harness)
    await loaded.load.reach(Step.SNAPSHOTS)
    assert hub_of(harness).fan_out.push_interval_s() == 1.0
    async with stream(harness) as frames:
        await frames.get()
        await harness.snapshot(2, "50.00")
        first_at, first = await asyncio.wait_for(frames.get(), 5)
        while '"50.00"' not in first:
            first_at, first = await asyncio.wait_for(frames.get(), 5)
        for sequence in range(3, 8):
            await harness.snapshot(sequence, "75.00")
        second_at, second = await asyncio.wait_for(frames.get(), 5)
    assert '"sequence":7' in second
    assert second_at - first_at >= 0.9


async def test_new_streams_give_way_and_open_ones_and_polls_do_not(loaded: Loaded) -> None:
    harness = loaded.harness
    await harness.snapshot(1)
    await shown(harness)
    async with stream(harness) as frames:
        await frames.get()
        await loaded.load.reach(Step.STREAMS)
        assert is_refused(await harness.get("/v1/drives/winter/live"))
        assert (await harness.get(TOTALS))[0] == 200
        _, frame = await asyncio.wait_for(frames.get(), 5)  # the change of the step is pushed
        assert '"degraded":["recent","boards","snapshots","streams"]' in frame
    await loaded.load.reach(Step.SNAPSHOTS)
    async with stream(harness) as frames:
        await frames.get()


def arrived(harness: Harness) -> int:
    """The pledges that were admitted, and so reached the service."""
    return harness.pledges.lines().count(f"POST {PLEDGES}")


async def pledge(harness: Harness, number: int, **headers: str) -> tuple[int, Any, Any]:
    return await harness.post(PLEDGES, {}, **bearer(ADMIN), **{"Idempotency-Key": f"k{number}"}, **headers)


@asynccontextmanager
async def every_place_taken(loaded: Loaded) -> AsyncIterator[None]:
    """The last step, with as many pledges under way as are admitted there."""
    harness = loaded.harness
    harness.pledges.gate.clear()
    await loaded.load.reach(Step.PLEDGES)
    asking = [asyncio.create_task(pledge(harness, number)) for number in range(LEAST_PLEDGES)]
    await until(lambda: arrived(harness) == LEAST_PLEDGES)
    yield
    harness.pledges.gate.set()
    await asyncio.gather(*asking)


async def test_pledges_give_way_last_and_only_beyond_what_can_be_stored_in_time(loaded: Loaded) -> None:
    harness = loaded.harness
    harness.pledges.gate.clear()
    held = LEAST_PLEDGES + 20
    await loaded.load.reach(Step.STREAMS)
    asking = [asyncio.create_task(pledge(harness, number)) for number in range(held)]
    await until(lambda: arrived(harness) == held)  # all are admitted
    await loaded.load.reach(Step.PLEDGES)
    request = {"X-Request-Id": 'from "me"', "Origin": "https://give.example"}
    status, headers, problem = await pledge(harness, held, **request)
    assert is_refused((status, headers, problem))
    assert problem["request_id"] == headers["X-Request-Id"]
    assert problem["status"] == 503
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    assert headers["traceparent"].startswith("00-")
    assert (await harness.post("/webhooks/stripe", {}))[0] == 200  # money that was paid is still recorded
    await loaded.load.give(1.0, pledges_per_s=held + 5.0)
    more = asyncio.create_task(pledge(harness, held + 1))
    await until(lambda: arrived(harness) == held + 1)
    harness.pledges.gate.set()
    assert {(await one)[0] for one in [*asking, more]} == {201}


def raw(method: bytes, target: str, body: bytes = b"", *fields: bytes, version: bytes = b"1.1") -> bytes:
    """A request as it is sent."""
    lines = b"".join(b"%s\r\n" % field for field in (b"Host: x", b"Content-Length: %d" % len(body), *fields))
    return b"%s %s HTTP/%s\r\n%s\r\n%s" % (method, target.encode(), version, lines, body)


async def test_the_body_of_a_refused_pledge_is_not_taken_for_the_next_request(loaded: Loaded) -> None:
    harness = loaded.harness
    async with every_place_taken(loaded):
        body = b"GET /livez HTTP/1.1\r\n\r\n"
        whole = (
            raw(b"POST", PLEDGES, body)
            + raw(b"POST", PLEDGES + "?a=b", body)
            + raw(b"POST", "/webhooks/stripe", b"abcde")
        )
        closing = raw(b"GET", "/livez", b"", b"Connection: close")
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.port)
        for place in range(0, len(whole), 50):  # headers and bodies arrive in parts
            writer.write(whole[place : place + 50])
            await asyncio.sleep(0)
        writer.write(closing)
        async with asyncio.timeout(PATIENCE_S):
            answers = await reader.read()
        writer.close()
        statuses = [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"503", b"503", b"200", b"200"]
        assert harness.payments.received[-1].body == b"abcde"


@pytest.mark.parametrize(
    "sent",
    [
        raw(b"POST", PLEDGES, b"{}", version=b"1.0"),
        raw(b"POST", PLEDGES, b"{}", b"Connection: close"),
        raw(b"POST", PLEDGES, b"{}", b"Expect: 100-continue", b"Connection: close"),
    ],
    ids=["1.0", "close", "expect"],
)
async def test_uncommon_requests_are_refused_with_the_same_reply(loaded: Loaded, sent: bytes) -> None:
    harness = loaded.harness
    async with every_place_taken(loaded):
        common = await send_raw(
            harness, raw(b"POST", PLEDGES, b"{}") + raw(b"GET", "/livez", b"", b"Connection: close")
        )
        uncommon = await send_raw(harness, sent)
        assert uncommon.startswith(b"HTTP/1.1 503 ")
        assert names_of_headers(uncommon) - {b"connection"} == names_of_headers(common)
        assert b'"type": "/problems/overloaded"' in uncommon
        assert arrived(harness) == LEAST_PLEDGES


def names_of_headers(answer: bytes) -> set[bytes]:
    return {line.partition(b":")[0] for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}


async def test_refusals_spread_the_moments_to_come_back(loaded: Loaded) -> None:
    harness = loaded.harness
    async with every_place_taken(loaded):
        after = [int((await pledge(harness, 500 + number))[1]["Retry-After"]) for number in range(8)]
        assert sorted(after) == [1, 1, 2, 2, 3, 3, 4, 4]
        large = await harness.session.post(PLEDGES, data=b"x" * 70_000, headers=bearer(ADMIN))
        assert large.status == 413  # as ever: the reply is sent once the body was read
