"""A minimal HTTP/1.1 server: httptools parses, one coroutine per connection answers.

aiohttp's server takes about 100 µs of CPU a request. The sandbox often shares two cores with the system under
test, so its own CPU time reduces what that system can reach.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

import httptools

MAX_BODY: Final = 1 << 20
MAX_HEAD: Final = 32 << 10
MAX_PIPELINED: Final = 16
IDLE_TIMEOUT_S: Final = 75.0
HOLD_S: Final = 60.0
REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
log = logging.getLogger("sandbox")


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is the raw path and query; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; a `held` one is never sent, as if the network had lost it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    held: bool = False

    def encoded(self, request: Request) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\nContent-Type: {self.content_type}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        if not request.keep_alive:
            lines.append("Connection: close\r\n")
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        head = "".join(lines).encode("latin-1", "replace")
        return head if request.method == "HEAD" else head + self.body


Handler = Callable[[Request], Awaitable[Reply]]


class Connection(asyncio.Protocol):
    """One client connection; its requests are answered one at a time, in order."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._transport: asyncio.Transport | None = None
        self._worker: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._start()
        self.since = time.monotonic()

    def _start(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._head_size = self._body_size = 0

    @property
    def busy(self) -> bool:
        return self._worker is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        self._closed.set()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)

    def on_url(self, url: bytes) -> None:
        """httptools callback: a part of the request target."""
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools callback: one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """httptools callback: the headers are complete; answers `Expect: 100-continue`."""
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """httptools callback: a part of the body."""
        self._body_size += len(part)
        if self._body_size > MAX_BODY:
            self._refuse(413)
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        """httptools callback: the request is complete."""
        if self._transport is None or self._transport.is_closing():
            return
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            self._parser.should_keep_alive(),
        )
        self._start()
        self._waiting.append(request)
        if len(self._waiting) > MAX_PIPELINED:
            self._refuse(429)
        elif self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._answer_all())

    def _refuse(self, status: int) -> None:
        """Answer a malformed or oversized request, and close the connection."""
        if self._transport is not None and not self._transport.is_closing():
            reason = REASONS[status]
            head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            self._transport.write(head.encode())
            self._transport.close()

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                request = self._waiting.popleft()
                reply = await self._server.answer(request)
                if reply.held:
                    await self._hold()
                    return
                if self._transport is None:
                    return
                self._transport.write(reply.encoded(request))
                if not request.keep_alive:
                    self.close()
                    return
        finally:
            self._worker = None
            self.since = time.monotonic()

    async def _hold(self) -> None:
        """Leave the client without a response until it disconnects or HOLD_S have passed; then close."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                await self._closed.wait()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once and cancel the request in progress."""
        if self._worker is not None:
            self._worker.cancel()
        if self._transport is not None:
            self._transport.abort()


class HttpServer:
    """Passes requests to `handler`; an exception is logged and answered with `server_error`."""

    def __init__(self, handler: Handler, server_error: Reply) -> None:
        self._handler = handler
        self._server_error = server_error
        self._listening: asyncio.Server | None = None
        self.connections: set[Connection] = set()

    async def listen(self, host: str, port: int) -> int:
        """Start listening and return the port. Raises OSError when the port is in use."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    async def answer(self, request: Request) -> Reply:
        try:
            return await self._handler(request)
        except Exception:
            log.exception("%s %s failed", request.method, request.target)
            return self._server_error

    def sweep(self) -> None:
        """Close connections that have been idle for IDLE_TIMEOUT_S; call it every second."""
        oldest = time.monotonic() - IDLE_TIMEOUT_S
        for connection in [each for each in self.connections if not each.busy and each.since < oldest]:
            connection.close()

    async def close(self) -> None:
        """Stop listening and close all connections; every response sent so far is durable."""
        if self._listening is not None:
            self._listening.close()
        for connection in list(self.connections):
            connection.abort()
        if self._listening is not None:
            await self._listening.wait_closed()
