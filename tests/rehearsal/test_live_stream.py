"""The live stream is parsed however it is split, and resumed after a loss."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.freshness import Freshness
from rehearsal.live_stream import Frame, LiveStream, frames
from tests.waiting import PATIENCE_S

STREAM = (
    b"retry: 2000\n\n: here\n\n"
    b'event: totals\r\ndata: {"sequence": 4}\r\n\r\n'
    b'event: donation\nid: 5\ndata: {"sequence": 5,\ndata: "x": 1}\n\n'
    b"data: plain\n\n"
    b"event: totals\ndata: half a fra"
)
FRAMES = [
    Frame("totals", None, b'{"sequence": 4}'),
    Frame("donation", "5", b'{"sequence": 5,\n"x": 1}'),
    Frame("message", None, b"plain"),
]


async def split(cuts: list[int]) -> AsyncIterator[bytes]:
    for before, after in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        yield STREAM[before:after]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_frames_do_not_depend_on_how_the_stream_is_split(cuts: list[int]) -> None:
    async def read() -> list[Frame]:
        return [frame async for frame in frames(split(cuts))]

    assert asyncio.run(read()) == FRAMES


async def test_lost_stream_resumes_after_the_last_event_id(
    session: aiohttp.ClientSession,
) -> None:
    last_ids: list[str | None] = []

    async def live(request: web.Request) -> web.StreamResponse:
        last_ids.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        sequence = 10 * len(last_ids)
        await response.write(b'event: totals\ndata: {"sequence": %d}\n\n' % sequence)
        await response.write(b"event: donation\nid: %d\ndata: {}\n\n" % sequence)
        await response.write(b"event: drain\ndata: {}\n\n")
        return response

    app = web.Application()
    app.router.add_get("/live", live)
    freshness = Freshness()
    async with TestServer(app) as server, asyncio.timeout(PATIENCE_S):
        stream = LiveStream(session, str(server.make_url("/live")), freshness)
        following = asyncio.create_task(stream.follow())
        while stream.frames < 3:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.01)
        following.cancel()

    assert last_ids[:3] == [None, "10", "20"]
    assert freshness.seen_at(11) == freshness.seen_at(20)
    assert stream.totals["sequence"] == 30
