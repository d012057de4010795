"""A connection to a simulated process: uvicorn's protocol at one end, a client at the other, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from backbone.http import pushed_response
from backbone.http.pushed_response import PushedResponse, chunk
from backbone.service import Service
from simulation.connection import HIGH_WATER, Connection
from simulation.faults import FaultPlan
from simulation.nodes import CURRENT, Incarnation, Node, Operations, create_task
from simulation.trace import Trace
from simulation.virtual_time import repeatable, run

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LATENCY_S = 0.1


class _Client:
    def __init__(self) -> None:
        self.read = b""
        self.is_lost = False
        self.called_by: set[Incarnation | None] = set()

    def received(self, data: bytes) -> None:
        self.called_by.add(CURRENT.get())
        self.read += data

    def lost(self) -> None:
        self.called_by.add(CURRENT.get())
        self.is_lost = True


class _Writer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def flush(self) -> None:
        self.calls.append("flush")

    def lost(self) -> None:
        self.calls.append("lost")


class _Pair:
    """A client and the pushed response that it gets."""

    def __init__(self) -> None:
        self.client = _Client()
        self.writer = _Writer()
        self.response: PushedResponse = None  # type: ignore[assignment]  # `open` waits for it
        self.node = Node("one", lambda: Service("one", self), Operations(FaultPlan(1), Trace()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = await pushed_response.begin(send, [])
        assert begun is not None
        self.response, begun.writer = begun, self.writer

    async def open(self) -> None:
        await self.node.start()
        self.connection = Connection(self.node, self.client, LATENCY_S)
        self.connection.send(REQUEST)
        await asyncio.sleep(1)
        assert self.client.read.startswith(b"HTTP/1.1 200 OK\r\n")
        self.client.read = b""


def _with(work: Callable[[_Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = _Pair()
        await pair.open()
        await work(pair)
        await asyncio.sleep(1)
        assert pair.client.called_by == {None}

    with repeatable(1) as loop:
        loop.set_task_factory(create_task)
        run(loop, main())


def test_a_client_reads_after_the_latency_what_was_written_and_by_whom() -> None:
    async def work(pair: _Pair) -> None:
        pair.response.write(chunk(b"one"))
        await asyncio.sleep(LATENCY_S * 0.9)
        assert pair.client.read == b""
        await asyncio.sleep(LATENCY_S * 0.2)
        assert pair.client.read == chunk(b"one")

    _with(work)


def test_a_client_that_does_not_read_pauses_the_writer_and_gets_all_when_it_reads_on() -> None:
    async def work(pair: _Pair) -> None:
        pair.connection.stop_reading()
        pair.response.write(b"a" * HIGH_WATER)
        assert not pair.response.is_paused
        pair.response.write(b"b")
        assert pair.response.is_paused
        await asyncio.sleep(1)
        assert (pair.client.read, pair.writer.calls) == (b"", [])
        pair.connection.read_on()
        assert pair.client.read == b"a" * HIGH_WATER + b"b"
        assert (pair.response.is_paused, pair.writer.calls) == (False, ["flush"])

    _with(work)


@pytest.mark.parametrize("reads", [True, False])
def test_the_end_of_a_response_comes_after_all_of_it(reads: bool) -> None:
    async def work(pair: _Pair) -> None:
        if not reads:
            pair.connection.stop_reading()
        pair.response.write(chunk(b"one"))
        pair.response.end(chunk(b"two"))
        await asyncio.sleep(1)
        assert pair.writer.calls == ["lost"]
        assert pair.client.is_lost is reads
        pair.connection.read_on()
        await asyncio.sleep(0.1)
        assert pair.client.read == chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"
        assert pair.client.is_lost

    _with(work)


def test_a_client_that_is_reset_gets_nothing_more() -> None:
    async def work(pair: _Pair) -> None:
        pair.connection.stop_reading()
        pair.response.write(chunk(b"one"))
        pair.response.abort()
        await asyncio.sleep(1)
        pair.connection.read_on()
        assert (pair.client.read, pair.client.is_lost, pair.writer.calls) == (b"", True, ["lost"])

    _with(work)


@pytest.mark.parametrize("error", [None, ConnectionResetError("simulated")])
def test_a_process_learns_of_a_connection_that_ended(error: Exception | None) -> None:
    async def work(pair: _Pair) -> None:
        pair.response.write(chunk(b"one"))
        pair.connection.end(error)
        assert pair.writer.calls == ["lost"]
        pair.response.write(chunk(b"two"))
        await asyncio.sleep(1)
        assert (pair.client.read, pair.client.is_lost) == (b"", False)
        assert pair.node.incarnation is not None
        assert not pair.node.incarnation.connections

    _with(work)


def test_a_process_does_not_learn_of_an_abandoned_connection() -> None:
    async def work(pair: _Pair) -> None:
        pair.connection.abandon()
        pair.response.write(b"a" * (HIGH_WATER + 1))
        await asyncio.sleep(1)
        assert (pair.response.is_paused, pair.writer.calls, pair.client.read) == (True, [], b"")

    _with(work)


def test_a_crashed_process_sends_and_learns_nothing_more() -> None:
    async def work(pair: _Pair) -> None:
        pair.response.write(chunk(b"one"))
        pair.node.crash()
        pair.response.write(chunk(b"two"))
        await asyncio.sleep(0.02)
        assert (pair.client.read, pair.client.is_lost, pair.writer.calls) == (b"", True, [])
        with pytest.raises(ConnectionRefusedError):
            Connection(pair.node, pair.client, LATENCY_S)

    _with(work)
