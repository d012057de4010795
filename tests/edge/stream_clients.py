"""Many clients of one stream, each a bare connection: the count of frames that each received."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

_ROW = re.compile(rb"^event: (?:donation|milestone)\nid: (\d+)$", re.MULTILINE)


@dataclass
class StreamClient(asyncio.Protocol):
    """Reads a stream; `rows` are the ids of its donations and milestones, `totals` counts those frames."""

    drive: str
    rows: list[int] = field(default_factory=list)
    totals: int = 0
    received: int = 0
    head: bytes = b""
    first_event: bytes = b""
    closed: bool = False
    _waiting: bytes = b""
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"GET /v1/drives/{self.drive}/live HTTP/1.1\r\nHost: edge\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        data = self._waiting + data
        if not self.head:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._waiting = head
                return
            self.head = head
        *whole, self._waiting = data.split(b"\n\n")
        for block in whole:
            event = block[block.find(b"event: ") + 7 :].split(b"\n")[0]
            self.first_event = self.first_event or event
            self.totals += event == b"totals"
            self.rows += map(int, _ROW.findall(block))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _same(client: StreamClient) -> StreamClient:
    return client


@asynccontextmanager
async def stream_clients(port: int, drive: str, count: int) -> AsyncIterator[list[StreamClient]]:
    """`count` connected clients, at most 200 connecting at once, until the block ends."""
    loop = asyncio.get_running_loop()
    clients = [StreamClient(drive) for _ in range(count)]
    try:
        for first in range(0, count, 200):
            some = clients[first : first + 200]
            await asyncio.gather(
                *(loop.create_connection(partial(_same, one), "127.0.0.1", port) for one in some)
            )
        yield clients
    finally:
        for client in clients:
            client.close()
