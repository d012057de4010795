"""A live stream's connection without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

from backbone.http.pushed_response import PushedResponse
from gateway.live.connection import SseConnection
from tests.gateway.harness import DRIVE


class _Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_reset = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_reset = True


class Viewer:
    """A client of one `SseConnection`, which may stop reading: `response.pause_writing()`."""

    def __init__(self) -> None:
        self.transport = _Transport()
        self.response = PushedResponse(self.transport, set())
        self.ended: list[SseConnection] = []
        self.connection = SseConnection(DRIVE, self.response, self.ended.append)

    def received(self) -> bytes:
        """The body that was written since the last call."""
        written, body = b"".join(self.transport.written), b""
        self.transport.written.clear()
        while written:
            size, _, rest = written.partition(b"\r\n")
            length = int(size, 16)
            assert rest[length : length + 2] == b"\r\n"
            body, written = body + rest[:length], rest[length + 2 :]
        return body
