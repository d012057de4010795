"""Connections of live streams: slow, idle, draining, lost; and what an open one keeps."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backbone.http.pushed_response import PushedResponse
from gateway.live import connection as connections
from gateway.live.connection import Batch, Row
from tests.gateway.fake_viewer import Viewer
from tests.gateway.harness import DRIVE, Harness, hub_of, log_row
from tests.gateway.test_http import send_raw
from tests.gateway.test_stream import LIVE, rows, serve_log, view_of, watching
from tests.gateway.test_totals import TOTALS, sequence
from tests.waiting import PATIENCE_S, until

DRAIN = b"event: drain\ndata: {}\n\n"
END = b"17\r\n%b\r\n0\r\n\r\n" % DRAIN
"""The last bytes of a drained stream."""
REQUEST = f"GET {LIVE} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def clients(harness: Harness) -> int:
    return hub_of(harness).fan_out.clients


@asynccontextmanager
async def opened(
    harness: Harness, request: bytes = REQUEST
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """An open stream of `request`, read up to its first frame."""
    before = clients(harness)
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"event: totals")
    assert clients(harness) == before + 1
    try:
        yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def unread(harness: Harness) -> AsyncIterator[socket.socket]:
    """An open stream whose client does not read; the gateway's buffers of it are full."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", harness.port))
        await loop.sock_sendall(sock, REQUEST)
        await until(lambda: clients(harness) == 1)
        (connection,) = view_of(harness).connections
        filler = Batch([], b": " + b"x" * 200_000 + b"\n\n")

        def filled() -> bool:
            connection.push(filler)
            return connection._response.is_paused

        await until(filled)
        yield sock


async def rest_of(sock: socket.socket) -> bytes:
    """Everything that a client receives until the end of its connection."""
    loop, received = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while part := await loop.sock_recv(sock, 2**18):
            received += part
    return bytes(received)


def count(*kinds: type[Any]) -> int:
    """The objects of these types that are not freed."""
    return sum(isinstance(one, kinds) for one in gc.get_objects())


async def test_open_stream_has_no_task_and_nothing_of_its_request(harness: Harness) -> None:
    await harness.snapshot(1)
    await sequence(harness, 1)
    async with opened(harness):
        tasks = len(asyncio.all_tasks())
    await until(lambda: clients(harness) == 0)
    await harness.session.close()  # its idle connections have a protocol each
    state, of_a_request = (
        harness.server.server_state,
        (HttpToolsProtocol, HttpRequestParser, RequestResponseCycle),
    )
    await until(lambda: not state.connections)
    gc.collect()
    requests, responses = count(*of_a_request), count(PushedResponse)
    gc.disable()  # what is left must be freed without it
    try:
        streams = [opened(harness) for _ in range(50)]
        for stream in streams:
            await stream.__aenter__()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert not state.tasks
        assert {type(one) for one in state.connections} == {PushedResponse}
        assert count(*of_a_request) <= requests  # one of before may be freed only now
        for stream in streams:
            await stream.__aexit__(None, None, None)
        await until(lambda: clients(harness) == 0)
        assert not view_of(harness).connections
        await until(lambda: not state.connections)
        await until(lambda: count(PushedResponse) <= responses)
    finally:
        gc.enable()


async def test_disconnected_client_is_removed(harness: Harness) -> None:
    tasks = len(asyncio.all_tasks())
    streams = [opened(harness) for _ in range(30)]
    writers = [(await stream.__aenter__())[1] for stream in streams]
    for number, writer in enumerate(writers):
        if number % 3 == 0:
            writer.close()
        elif number % 3 == 1:
            writer.transport.abort()
        else:
            writer.write_eof()  # a client that closes only its side has left, as with uvicorn
    await until(lambda: clients(harness) == 0)
    assert not view_of(harness).connections
    assert not {one for one in harness.server.server_state.connections if isinstance(one, PushedResponse)}
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    for stream in streams:
        await stream.__aexit__(None, None, None)


@pytest.mark.parametrize("reset", [False, True])
async def test_client_that_left_before_its_stream_began_leaves_nothing(harness: Harness, reset: bool) -> None:
    hub, state = hub_of(harness), harness.server.server_state
    await until(hub.streaming.is_set)
    hub.streaming.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", harness.port)
    writer.write(REQUEST)
    await until(lambda: hub.streaming._waiters)  # type: ignore[attr-defined]
    connected = len(state.connections)
    if reset:
        writer.transport.abort()
    else:
        writer.close()
    await until(lambda: len(state.connections) < connected)
    hub.streaming.set()
    await until(lambda: not state.tasks)
    assert clients(harness) == 0
    assert not view_of(harness).connections


async def test_client_that_does_not_read_is_disconnected(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STUCK_S", 0.3)
    await harness.snapshot(1)
    async with unread(harness):
        view_of(harness).connections.copy().pop().push(Batch([], b"totals;"))
        await until(lambda: clients(harness) == 0)
        async with watching(harness) as live:
            assert (await live.next())[0] == "totals"


async def test_slow_client_gets_the_newest_totals_and_every_row_once_it_reads(harness: Harness) -> None:
    async with unread(harness) as sock:
        (connection,) = view_of(harness).connections
        for number in range(1, 6):
            connection.push(Batch(rows(number, number, b"row %d;" % number), b"totals %d;" % number))
        connection.drain()
        received = await rest_of(sock)
    whole = b"row 1;row 2;row 3;row 4;row 5;totals 5;"
    assert received.endswith(b"\r\n%x\r\n%b\r\n%b" % (len(whole), whole, END))


async def test_drain_of_a_client_that_does_not_read_disconnects_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop of the process waits for its connections."""
    monkeypatch.setattr(connections, "STUCK_S", 0.3)
    async with unread(harness):
        hub_of(harness).fan_out.drain()
        assert clients(harness) == 1
        await until(lambda: clients(harness) == 0)
        await until(
            lambda: not any(type(one) is PushedResponse for one in harness.server.server_state.connections)
        )


def replays_under_way() -> int:
    names = [one.get_coro().__qualname__ for one in asyncio.all_tasks()]  # type: ignore[union-attr]
    return names.count("LiveStreams._replay")


async def test_client_that_leaves_during_a_replay_ends_it(harness: Harness) -> None:
    serve_log(harness, [log_row(1), log_row(2)])
    await harness.snapshot(2)
    await until(lambda: view_of(harness).tail == 2)
    harness.leaderboard.gate.clear()
    resume = REQUEST.replace(b"Host: x", b"Host: x\r\nLast-Event-ID: 1")
    async with opened(harness, resume) as (_, leaving), opened(harness, resume) as (reader, _):
        await until(lambda: harness.leaderboard.received)
        await harness.log(3)  # is held back
        leaving.transport.abort()
        await until(lambda: clients(harness) == 1)
        await until(lambda: replays_under_way() == 1)
        harness.leaderboard.gate.set()
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"id: 3\n")
        await until(lambda: replays_under_way() == 0)


async def test_what_a_client_sends_after_its_request_is_discarded(harness: Harness) -> None:
    """The stream is the last response of its connection, which it says."""
    other = f"GET {TOTALS} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with_body = REQUEST.replace(b"Host: x", b"Host: x\r\nContent-Length: 200000")
    for request in (REQUEST + other, REQUEST + other + REQUEST, with_body, REQUEST):
        async with opened(harness, request) as (reader, writer):
            writer.write(b"z" * 200_000 + b"\r\n\r\n" + other)
            await writer.drain()
            await harness.snapshot(1)
            await asyncio.sleep(0.05)
            (connection,) = view_of(harness).connections
            connection.push(Batch([], b"last;"))
            connection.drain()
            async with asyncio.timeout(PATIENCE_S):
                received = await reader.read()
        assert b"HTTP/1.1" not in received
        assert received.endswith(b"5\r\nlast;\r\n" + END)
        await until(lambda: not view_of(harness).connections)
    answer = await send_raw(
        harness, REQUEST.replace(b"GET", b"HEAD") + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 ") == 2


async def test_client_that_pipelined_a_request_behind_its_stream_is_removed(harness: Harness) -> None:
    async with opened(harness, REQUEST * 3) as (_, writer):
        writer.transport.abort()
        await until(lambda: clients(harness) == 0)


async def test_stream_behind_an_early_answer_outlasts_the_keep_alive(harness: Harness) -> None:
    await harness.snapshot(1)
    await sequence(harness, 1)
    harness.server.config.timeout_keep_alive = 0  # of the connections that begin now
    request = f"GET {TOTALS} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + REQUEST
    async with opened(harness, request) as (reader, _):
        await asyncio.sleep(0.05)
        await harness.log(2)
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"event: donation")


async def test_head_of_a_stream_says_that_the_connection_ends_with_it(harness: Harness) -> None:
    async with harness.session.get(LIVE, headers={"X-Request-Id": "mine-1"}) as reply:
        assert (reply.status, reply.headers["X-Request-Id"]) == (200, "mine-1")
        assert reply.headers["Connection"] == "close"
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert {"traceparent", "Date", "Access-Control-Allow-Origin"} <= set(reply.headers)


async def test_slow_client_gets_only_the_newest_totals_and_is_disconnected_if_far_behind() -> None:
    viewer = Viewer()
    viewer.response.pause_writing()
    for number in range(10):
        viewer.connection.push(Batch([], b"totals %d" % number))
    viewer.connection.push(Batch(rows(1, 1), b"totals 10"))
    assert viewer.received() == b""
    viewer.response.resume_writing()
    assert viewer.received() == b"donation;totals 10"
    viewer.response.pause_writing()
    for number in range(2, 7):
        viewer.connection.push(Batch(rows(number, number, b"x" * (connections.MAX_QUEUED_BYTES // 4)), b""))
    assert not viewer.transport.is_reset
    viewer.connection.push(Batch(rows(7, 7), b""))
    assert viewer.transport.is_reset
    assert viewer.ended == [viewer.connection]
    viewer.connection.push(Batch(rows(8, 8), b"totals"))  # delivered in a later turn of the loop
    viewer.response.connection_lost(None)
    assert (viewer.received(), viewer.ended) == (b"", [viewer.connection])


async def test_client_is_stuck_five_seconds_after_something_waits_for_it() -> None:
    viewer = Viewer()
    viewer.response.pause_writing()
    now = asyncio.get_running_loop().time()
    viewer.connection.check_timeouts(now + 14.0)  # nothing waits: the client may have been slow and be idle
    assert not viewer.transport.is_reset
    viewer.connection.push(Batch([], b"totals;"))
    viewer.connection.check_timeouts(now + 4.9)
    assert not viewer.transport.is_reset
    viewer.response.resume_writing()
    viewer.response.pause_writing()
    viewer.connection.check_timeouts(now + 10.0)
    assert (viewer.transport.is_reset, viewer.received()) == (False, b"totals;")
    viewer.connection.push(Batch([], b"totals;"))
    viewer.connection.check_timeouts(now + 5.2)
    assert viewer.transport.is_reset
    assert viewer.ended == [viewer.connection]


async def test_drain_comes_after_what_is_queued_and_ends_the_connection() -> None:
    viewer = Viewer()
    viewer.response.pause_writing()
    viewer.connection.push(Batch(rows(1, 1), b"totals;"))
    viewer.connection.drain()
    viewer.connection.push(Batch(rows(2, 2), b"later;"))
    assert (viewer.received(), viewer.ended) == (b"", [])
    viewer.response.resume_writing()
    assert viewer.received() == b"donation;totals;" + DRAIN
    assert viewer.transport.is_closed
    assert viewer.ended == [viewer.connection]


async def test_up_to_date_clients_share_the_same_bytes() -> None:
    viewers = [Viewer() for _ in range(3)]
    batch = Batch(rows(1, 3), b"totals;")
    for viewer in viewers:
        viewer.connection.push(batch)
    written = [viewer.transport.written[0] for viewer in viewers]
    assert all(one is written[0] for one in written)
    assert {viewer.received() for viewer in viewers} == {b"donation;donation;donation;totals;"}


async def test_client_at_another_position_gets_the_rows_it_lacks() -> None:
    viewer = Viewer()
    viewer.connection.release((1, 2))
    viewer.connection.push(Batch([Row(1, n, n, b"%d;" % n) for n in range(1, 5)], b""))
    assert viewer.received() == b"3;4;"
    viewer.connection.push(Batch([Row(1, 9, 9, b"9;")], b""))
    assert viewer.received() == connections.gap_frame(DRIVE, 4) + b"9;"
    viewer.connection.push(Batch([Row(2, 1, 1, b"1;")], b""))
    assert viewer.received() == b"1;"


@pytest.mark.parametrize("last", [None, (1, 2)])
async def test_a_push_with_repeated_or_missing_rows_sends_each_once_and_reports_the_gap(
    last: tuple[int, int] | None,
) -> None:
    viewer = Viewer()
    viewer.connection.release(last)
    viewer.connection.push(Batch([Row(1, n, n, b"%d;" % n) for n in (3, 4, 4, 3, 5, 7)], b""))
    assert viewer.received() == b"3;4;5;" + connections.gap_frame(DRIVE, 5) + b"7;"


async def test_rows_are_held_back_during_a_replay_and_totals_are_not() -> None:
    viewer = Viewer()
    viewer.connection.replay(b"first;")
    viewer.connection.hold()
    viewer.connection.push(Batch([Row(1, 3, 3, b"3;"), Row(1, 4, 4, b"4;")], b"totals;"))
    assert viewer.received() == b"first;totals;"
    for shown in (b"2;", b"3;"):
        viewer.connection.replay(shown)
    viewer.connection.release((1, 3))
    assert viewer.received() == b"2;3;4;"


async def test_idle_stream_gets_a_comment_every_fifteen_seconds() -> None:
    viewer = Viewer()
    now = asyncio.get_running_loop().time()
    viewer.connection.check_timeouts(now + 14.9)
    assert viewer.received() == b""
    viewer.connection.check_timeouts(now + 15.1)
    assert viewer.received() == b":\n\n"


async def test_queued_totals_are_not_lost_to_a_push_of_donations() -> None:
    viewer = Viewer()
    viewer.response.pause_writing()
    viewer.connection.push(Batch([], b"totals;"))
    viewer.connection.push(Batch(rows(1, 1), b""))
    viewer.response.resume_writing()
    assert viewer.received() == b"donation;totals;"
