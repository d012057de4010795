"""A load balancer in front of a service's replicas, like a Kubernetes Service: one replica per connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Balancer:
    """Distributes connections among the `ready` replicas in turn; one that refuses is skipped."""

    def __init__(self) -> None:
        self.ready: list[int] = []
        self.port = 0
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.close()

    def take_out(self, port: int) -> None:
        """Stop using a replica, and close its connections."""
        self.ready.remove(port)
        for writer in list(self._open):
            if writer.get_extra_info("peername", ("", 0))[1] == port:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            self._turn += 1
            turn = self._turn % max(1, len(self.ready))
            for port in [*self.ready[turn:], *self.ready[:turn]]:
                with suppress(OSError):
                    onward = await asyncio.open_connection("127.0.0.1", port)
                    self._open.add(onward[1])
                    try:
                        await asyncio.gather(_carry(reader, onward[1]), _carry(onward[0], writer))
                    finally:
                        self._open.discard(onward[1])
                    return
        finally:
            self._open.discard(writer)
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes in one direction, until either side closes."""
    with suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()
