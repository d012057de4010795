"""The publisher's parts: frames as they came, what waits for an nchan that does not answer, positions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edge.channel import MAX_ROWS, Channel
from edge.frames import BrokenStream, Frame, frames
from edge.positions import Positions
from tests.edge.scripted_gateway import ScriptedGateway
from tests.waiting import until

TOTALS = Frame("totals", 0, b"event: totals\ndata: {}\n\n")


def row(sequence: int) -> Frame:
    return Frame("donation", sequence, b"event: donation\nid: %d\ndata: {}\n\n" % sequence)


@asynccontextmanager
async def publishing(nchan: ScriptedGateway, frames_per_s: float = 20.0) -> AsyncIterator[Channel]:
    """A channel whose loop runs."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        channel = Channel(session, f"http://127.0.0.1:{nchan.port}/publish/winter", "winter", frames_per_s)
        running = asyncio.create_task(channel.run(stop))
        try:
            yield channel
        finally:
            stop.set()
            await running
            await nchan.stop()


async def test_frames_are_passed_on_as_they_came_however_they_were_cut() -> None:
    text = b"retry: 1\n\n:\n\nevent: totals\ndata: {}\n\nevent: donation\nid: 7\ndata: {}\n\nevent: dr"

    async def chunks() -> AsyncIterator[bytes]:
        for place in range(0, len(text), 5):
            yield text[place : place + 5]

    assert [frame async for frame in frames(chunks())] == [TOTALS, row(7)]


async def test_endless_frame_breaks_the_stream() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    with pytest.raises(BrokenStream):
        await anext(frames(chunks()))


async def test_message_is_the_newest_totals_and_then_the_rows() -> None:
    nchan = ScriptedGateway(status="201 Created")
    await nchan.start()
    async with publishing(nchan) as channel:
        for frame in (TOTALS, row(1), row(2), TOTALS._replace(text=b"event: totals\ndata: 2\n\n")):
            channel.offer(frame)
        await until(lambda: nchan.seen)
    assert [request.body for request in nchan.seen] == [
        b"event: totals\ndata: 2\n\n" + row(1).text + row(2).text
    ]
    assert channel.published == 2


async def test_rows_that_nchan_did_not_take_are_published_again() -> None:
    nchan = ScriptedGateway(status="500 Internal Server Error")
    await nchan.start()
    async with publishing(nchan) as channel:
        channel.offer(TOTALS)
        channel.offer(row(5))
        await until(lambda: nchan.seen)
        assert channel.published == 0
        nchan.status = "202 Accepted"
        await until(lambda: channel.published == 5)
    assert row(5).text in nchan.seen[-1].body


async def test_too_many_waiting_rows_become_a_gap() -> None:
    nchan = ScriptedGateway(status="201 Created")
    await nchan.start()
    async with publishing(nchan) as channel:
        channel.published = 3
        for sequence in range(4, 4 + MAX_ROWS + 1):
            channel.offer(row(sequence))
        channel.offer(row(5000))
        channel.offer(TOTALS)
        await until(lambda: channel.published == 5000)
    gap = b'event: gap\ndata: {"after": 3, "events": "/v1/drives/winter/events?after=3"}\n\n'
    assert [request.body for request in nchan.seen] == [TOTALS.text + gap + row(5000).text]


async def test_position_of_the_slowest_nchan_is_kept(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        channels = [Channel(session, "http://127.0.0.1:9/", "winter", 4.0) for _ in range(2)]
        file = tmp_path / "edge" / "winter.json"
        assert Positions(file, channels).read() is None
        channels[0].published, channels[1].published = 9, 7
        stop = asyncio.Event()
        running = asyncio.create_task(Positions(file, channels).keep(stop))
        await asyncio.sleep(0)
        stop.set()
        await running
        assert Positions(file, channels).read() == 7
        assert [channel.published for channel in channels] == [7, 7]
