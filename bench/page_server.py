"""An ASGI application of this process, served on a port of the loopback for a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn

from gateway.pages.assets import Send

STARTED_S: Final = 30.0


async def reply(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a 200 without compression, as the gateway sends pages."""
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(site: Any) -> AsyncIterator[str]:
    """Serve an application on a free port of the loopback, and yield its origin.

    It ends once the application has answered every request.
    """
    config = uvicorn.Config(site, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(STARTED_S):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
