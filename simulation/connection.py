"""A client's connection to a node, without sockets: uvicorn's protocol of the product serves it.

A node in another process would have a transport with a socket. This one carries the bytes to the client
after `latency_s`, holds them back while the client does not read, and asks the product to pause as a full
socket does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from backbone.service import Server, server
from simulation.nodes import Incarnation, Node

HIGH_WATER: Final = 3_000
"""Bytes not yet read that pause the writer: about two frames, so that a run of seconds gets to pauses.
64 KiB in production, and the kernel's buffers."""
LOW_WATER: Final = 750

_servers: Final[WeakKeyDictionary[Incarnation, Server]] = WeakKeyDictionary()


class Client(Protocol):
    """The other end. Both are called outside of the node."""

    def received(self, data: bytes) -> None:
        """Bytes of the response."""
        ...

    def lost(self) -> None:
        """Nothing more will come. Called once, unless the client itself ended the connection."""
        ...


class Connection(asyncio.Transport):
    """The node's end of a connection, and what the client does to it.

    Raises ConnectionRefusedError where the node accepts none.
    """

    def __init__(self, node: Node, client: Client, latency_s: float) -> None:
        super().__init__({"peername": ("192.0.2.1", 50_000), "sockname": ("192.0.2.2", 80)})
        incarnation = node.incarnation
        if incarnation is None or not incarnation.ready:
            raise ConnectionRefusedError(f"{node.name} accepts no connections")
        self._incarnation = incarnation
        self._client: Client | None = client
        self._clients_context = copy_context()
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._unread: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._reads = True
        self._paused = self._closing = self._ended = False
        self._protocol: Any = None
        incarnation.connections[self] = None
        self._in_node(self._accept, incarnation)

    def _accept(self, incarnation: Incarnation) -> None:
        served = _servers.get(incarnation)
        if served is None:
            served = _servers[incarnation] = server(incarnation.service.app)
            served.config.load()
        make: Any = served.config.http_protocol_class
        self._protocol = make(config=served.config, server_state=served.server_state, app_state={})
        self._protocol.connection_made(self)

    # What the client does.

    def send(self, data: bytes) -> None:
        """Bytes of a request."""
        if not self._ended:
            self._in_node(self._protocol.data_received, data)

    def stop_reading(self) -> None:
        """Leave what comes unread."""
        self._reads = False

    def read_on(self) -> None:
        """Read again, first what has come meanwhile."""
        self._reads = True
        self._deliver()

    def end(self, error: Exception | None) -> None:
        """Close the connection; with an `error` the network broke it. What is unread is lost."""
        self._client = None
        self._end(error)

    def abandon(self) -> None:
        """Abandon the connection: the node gets no end of it, and nothing is read."""
        self._client, self._reads = None, False

    # What the node does.

    def get_protocol(self) -> Any:
        """See `asyncio.BaseTransport`. None once the connection is lost."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """See `asyncio.BaseTransport`."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing or self._ended

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`. A client sends one short request, so reading is never paused."""

    def write(self, data: Any) -> None:
        """See `asyncio.WriteTransport`."""
        if self.is_closing():
            return
        due = self._loop.time() + self._latency_s
        self._unread.append((due, bytes(data)))
        self._size += len(data)
        if not self._paused and self._size > HIGH_WATER:
            self._paused = True
            self._protocol.pause_writing()
        self._loop.call_at(due, self._deliver, context=self._clients_context)

    def close(self) -> None:
        """See `asyncio.BaseTransport`. Bytes that no pause holds back count as sent, and are delivered."""
        if not self.is_closing():
            self._closing = True
            if not self._paused:
                self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        if not self._ended:
            self._closing = True
            self._unread.clear()
            self._loop.call_soon(self._end, None)

    def reset(self) -> None:
        """The process has ended: it learns nothing more, and the client gets no more of it."""
        self._ended = True
        self._tell_client()

    def _deliver(self) -> None:
        now = self._loop.time()
        while self._reads and self._client is not None and self._unread and self._unread[0][0] <= now:
            _, data = self._unread.popleft()
            self._size -= len(data)
            self._client.received(data)
        if self._paused and self._size <= LOW_WATER and not self._ended:
            self._paused = False
            self._in_node(self._protocol.resume_writing)
            if self._closing:
                self._end(None)
        if self._ended and not self._unread:
            self._tell_client()

    def _end(self, error: Exception | None) -> None:
        """End the node's side."""
        if self._ended:
            return
        self._ended = True
        self._incarnation.connections.pop(self, None)
        protocol, self._protocol = self._protocol, None
        self._in_node(protocol.connection_lost, error)
        if not self._unread:
            self._tell_client()

    def _tell_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._loop.call_soon(client.lost, context=self._clients_context)

    def _in_node(self, act: Callable[..., None], *arguments: Any) -> None:
        self._incarnation.context().run(act, *arguments)
