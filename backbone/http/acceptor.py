"""Accepts every waiting connection in each turn of the event loop.

libuv, and so uvloop, accepts one connection per turn since version 1.49. In a surge a turn of a busy process
takes tens of milliseconds. Hundreds of connections a second then wait in the kernel's queue until it is full,
further ones are dropped without an answer, and their clients try again after 1, 3, 7, 15 and 31 seconds.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

import structlog

BACKLOG: Final = 65_535
"""Connections that may wait to be accepted. Linux lowers it to `net.core.somaxconn`."""
MOST_A_TURN: Final = 1_000
"""Connections that are accepted in one turn, so that those that are open have their turn too."""
PAUSE_S: Final = 1.0
"""How long no connection is accepted after the process ran out of something that one needs."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = structlog.get_logger()


class Acceptor:
    """Listens on a bound socket and connects each client to a protocol from `make_protocol`.

    It is closed as an `asyncio.Server` is, so that uvicorn can have it in place of one.
    The running loop must be the one that serves the connections.
    """

    def __init__(self, sock: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._sock = sock
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._closed = False
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept no more. The socket stays open."""
        if self._closed:
            return
        self._closed = True
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock)

    async def wait_closed(self) -> None:
        """Wait until each accepted connection has its protocol."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _accept(self) -> None:
        for _ in range(MOST_A_TURN):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                log.error("connections.not_accepted", error=str(error), retry_s=PAUSE_S)
                self._loop.remove_reader(self._sock)
                self._resume = self._loop.call_later(PAUSE_S, self._accept_again)
                return
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _accept_again(self) -> None:
        self._resume = None
        self._loop.add_reader(self._sock, self._accept)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except Exception as error:  # the client is gone, or its protocol failed: the others are served
            log.warning("connections.not_served", error=f"{type(error).__name__}: {error}")
            connection.close()
