"""A minimal HTTP/1.1 client for webhooks: keep-alive connections, callbacks instead of tasks.

A general client takes more CPU per POST than everything else the sandbox does for a donation, and the sandbox
often shares two cores with the system under test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

Done = Callable[[int | None], None]  # the status, or None without a response

ANSWER_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 2.0  # below the 5 s after which uvicorn closes an idle connection


class Connection(asyncio.Protocol):
    """One connection with at most one request in flight."""

    def __init__(self, client: WebhookClient) -> None:
        self._client = client
        self._execute: Done | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def send(self, request: bytes, done: Done) -> None:
        assert self._transport is not None
        self._execute = done
        self.since = time.monotonic()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_complete(self) -> None:
        """httptools callback: the response is complete."""
        status, keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        done, self._execute = self._execute, None
        if keep:
            self._parser = httptools.HttpResponseParser(self)
            self.since = time.monotonic()
        else:
            self.close()
        self._client.finished(self, reusable=keep)
        if done is not None:
            done(status)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self)
        done, self._execute = self._execute, None
        if done is not None:
            done(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class WebhookClient:
    """POSTs JSON to one http:// address. Raises ValueError for any other address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the webhook address must be http://host[:port]/path, not {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n"
            "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
        )
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    def post(self, body: bytes, signature: str, done: Done) -> None:
        """Send one webhook; `done` is called once, later, with the outcome."""
        head = f"{self._head}Stripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        if self._idle:
            connection = self._idle.pop()
            self._busy.add(connection)
            connection.send(request, done)
            return
        task = asyncio.get_running_loop().create_task(self._open(request, done))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, request: bytes, done: Done) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError:  # TimeoutError is one
            done(None)
            return
        self._busy.add(connection)
        connection.send(request, done)

    def finished(self, connection: Connection, reusable: bool) -> None:
        self._busy.discard(connection)
        if reusable:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close connections that wait too long for a response or are idle; call it every second."""
        now = time.monotonic()
        for connection in [each for each in self._busy if now - each.since > ANSWER_TIMEOUT_S]:
            connection.abort()
        for connection in [each for each in self._idle if now - each.since > IDLE_TIMEOUT_S]:
            self._idle.remove(connection)
            connection.close()

    async def close(self) -> None:
        for connection in [*self._busy, *self._idle]:
            connection.abort()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
