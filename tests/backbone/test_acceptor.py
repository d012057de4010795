"""Tests of backbone/http/acceptor.py: a crowd of new connections is accepted, and none is lost."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvloop

from backbone.http import acceptor
from backbone.http.acceptor import Acceptor
from backbone.service import listen

CROWD = 300


class Greeting(asyncio.Protocol):
    """Sends one byte to its client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"!")


@contextmanager
def crowd(port: int, size: int) -> Iterator[list[socket.socket]]:
    """So many clients whose connections wait in the kernel's queue."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(size)]
    try:
        yield clients
    finally:
        for one in clients:
            one.close()


def run(scenario: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


async def turns_until_greeted(clients: list[socket.socket]) -> int:
    """How many turns the event loop takes until every client has its byte."""
    turns = 0
    for one in clients:
        one.setblocking(False)
    waiting = list(clients)
    async with asyncio.timeout(20):
        while waiting:
            await asyncio.sleep(0)
            turns += 1
            waiting = [one for one in waiting if not _has_byte(one)]
    return turns


def _has_byte(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b"!"
    except BlockingIOError:
        return False


def test_a_crowd_is_accepted_in_a_few_turns_of_the_event_loop() -> None:
    async def scenario() -> None:
        sock = listen("127.0.0.1", 0, "the test's port")
        accepting = Acceptor(sock, Greeting)
        with crowd(sock.getsockname()[1], CROWD) as clients:
            assert await turns_until_greeted(clients) < CROWD / 10
        accepting.close()
        await accepting.wait_closed()
        sock.close()

    run(scenario())


def test_no_connection_is_lost_when_the_process_has_no_file_descriptor_left(monkeypatch: Any) -> None:
    class Exhausted:
        """A listening socket of a process that has no descriptor left, for one attempt."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock
            self.refused = False

        def accept(self) -> tuple[socket.socket, Any]:
            if not self.refused:
                self.refused = True
                raise OSError(errno.EMFILE, "Too many open files")
            return self._sock.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

    async def scenario() -> None:
        monkeypatch.setattr(acceptor, "PAUSE_S", 0.01)
        sock = listen("127.0.0.1", 0, "the test's port")
        exhausted: Any = Exhausted(sock)
        accepting = Acceptor(exhausted, Greeting)
        with crowd(sock.getsockname()[1], 3) as clients:
            await turns_until_greeted(clients)
        assert exhausted.refused
        accepting.close()
        await accepting.wait_closed()
        sock.close()

    run(scenario())


def test_a_connection_whose_protocol_fails_does_not_stop_the_others() -> None:
    made: list[Greeting] = []

    def make() -> Greeting:
        made.append(Greeting())
        if len(made) == 1:
            raise RuntimeError("the first one")
        return made[-1]

    async def scenario() -> None:
        sock = listen("127.0.0.1", 0, "the test's port")
        accepting = Acceptor(sock, make)
        with crowd(sock.getsockname()[1], 3) as clients:
            await turns_until_greeted(clients[1:])
            clients[0].setblocking(True)
            assert clients[0].recv(1) == b""
        accepting.close()
        await accepting.wait_closed()
        sock.close()

    run(scenario())


def test_a_connection_accepted_before_the_end_has_its_protocol_after_it() -> None:
    async def scenario() -> None:
        sock = listen("127.0.0.1", 0, "the test's port")
        accepting = Acceptor(sock, Greeting)
        with crowd(sock.getsockname()[1], 5) as clients:
            accepting._accept()
            accepting.close()
            await accepting.wait_closed()
            await turns_until_greeted(clients)
            later = socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=10)
            sock.close()
            later.close()

    run(scenario())
