"""A pledges service that accepts connections and never answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backbone.http.service_client import ServiceClient, ServiceClientPools, ServiceResponse


@dataclass
class NeverAnswering:
    """A `ServiceClient` whose requests never end by themselves."""

    hanging: int = 0
    ended: int = 0

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        self.hanging += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.hanging -= 1
            self.ended += 1
        raise AssertionError("nothing ends this wait but a cancellation")


@dataclass
class HangingService:
    """How often it was asked, and how to ask it over HTTP."""

    peer: ServiceClient
    asked: int = 0


@asynccontextmanager
async def hanging_service() -> AsyncIterator[HangingService]:
    """A listening socket whose requests are read and left without an answer."""
    stop = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        hanging.asked += 1
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    pools = ServiceClientPools()
    hanging = HangingService(pools.to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 10))
    try:
        yield hanging
    finally:
        stop.set()
        await pools.close()
        server.close()
