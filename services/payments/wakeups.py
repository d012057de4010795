"""Waiting for work without being late for a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def wake_on_stop(stop: asyncio.Event, news: asyncio.Event) -> AsyncIterator[None]:
    """Within the block, `stop` sets `news` too, so that whoever waits for news hears of the stop."""

    async def pass_on() -> None:
        await stop.wait()
        news.set()

    passing = asyncio.create_task(pass_on())
    try:
        yield
    finally:
        passing.cancel()


async def wait_for(event: asyncio.Event, at_most_s: float) -> None:
    """Until `event` is set, or for `at_most_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
