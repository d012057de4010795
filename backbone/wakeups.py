"""Waiting for an event with a bound, without delaying a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def wake_on_stop(stop: asyncio.Event, news: asyncio.Event) -> AsyncIterator[None]:
    """Within the block, `stop` sets `news` too: whoever waits for news notices the stop."""

    async def pass_on() -> None:
        await stop.wait()
        news.set()

    passing = asyncio.create_task(pass_on())
    try:
        yield
    finally:
        passing.cancel()


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until `event` is set, at most `timeout_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
