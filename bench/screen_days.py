"""An overlay that is open for days: its memory after each, with all gifts, timers and reconnections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.async_api import CDPSession, Page

from bench.page_server import STARTED_S
from bench.screen_server import Screen, frame

CLOCK: Final = Path(__file__).with_name("screen_clock.js")
HOUR_MS: Final = 3_600_000
MISSED: Final = 3
"""Gifts while the stream is broken, at the end of each hour."""
CROWD: Final = 15
CROWD_EVERY: Final = 60
"""Every so many gifts, as many as a crowd's arrive at once."""
TOTALS_EVERY_MS: Final = 8_000
"""Totals arrive this often without a gift; the page trusts a stream for 12 s."""
BATCH: Final = 50
TAKEN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Memory:
    """The page's heap, DOM nodes and event listeners after a garbage collection."""

    heap_mb: float
    nodes: int
    listeners: int


async def open_screen(page: Page, screen: Screen, address: str) -> CDPSession:
    """Load the overlay with the clock of the days, and wait for its stream."""
    await page.add_init_script(path=CLOCK)
    await page.goto(address)
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    await _streaming(screen)
    return session


async def pass_hours(page: Page, session: CDPSession, screen: Screen, hours: int, gifts: int) -> Memory:
    """Hours with so many gifts each, evenly spread but for crowds, each gift followed by its totals."""
    for _ in range(hours):
        await _pass_hour(screen, gifts - MISSED)
        await screen.break_streams()
        for _ in range(MISSED):
            screen.gift()
        await _streaming(screen)
    return await _memory(page, session, screen)


async def _pass_hour(screen: Screen, gifts: int) -> None:
    batch: list[bytes] = []
    for frames in hour_of(screen, gifts):
        batch.append(frames)
        if len(batch) >= BATCH:
            await screen.send(b"".join(batch))
            batch.clear()
    await screen.send(b"".join(batch))


def hour_of(screen: Screen, gifts: int) -> Iterator[bytes]:
    """The frames of an hour: gifts with their totals, and the time that passes after them."""
    each_ms = HOUR_MS // gifts
    left = gifts
    while left:
        count = min(left, CROWD if left % CROWD_EVERY == 0 else 1)
        left -= count
        for _ in range(count):
            gift = screen.gift()
            totals = frame("totals", screen.totals())
            yield gift + totals
        for ms in _steps(count * each_ms):
            yield frame("tick", ms) + (totals if ms == TOTALS_EVERY_MS else b"")


def _steps(ms: int) -> Iterator[int]:
    while ms > TOTALS_EVERY_MS:
        yield TOTALS_EVERY_MS
        ms -= TOTALS_EVERY_MS
    yield ms


async def _streaming(screen: Screen) -> None:
    async with asyncio.timeout(STARTED_S):
        while not screen.queues:  # noqa: ASYNC110  the page opens its stream
            await asyncio.sleep(0.005)


async def _memory(page: Page, session: CDPSession, screen: Screen) -> Memory:
    """What the page holds once it shows the newest totals."""
    async with asyncio.timeout(TAKEN_S):
        while int(await page.evaluate("document.body.dataset.sequence ?? 0")) < screen.sequence:
            await screen.send(frame("totals", screen.totals()) + frame("tick", 1_000))
            await asyncio.sleep(0.1)
    for _ in range(2):  # what the first collection finalizes holds other objects until the second
        await session.send("HeapProfiler.collectGarbage")
    values = {one["name"]: one["value"] for one in (await session.send("Performance.getMetrics"))["metrics"]}
    return Memory(values["JSHeapUsedSize"] / 1e6, int(values["Nodes"]), int(values["JSEventListeners"]))


def slope(values: Sequence[float]) -> float:
    """By how much the values grow from one to the next, by least squares."""
    middle = (len(values) - 1) / 2
    spread = sum((n - middle) ** 2 for n in range(len(values)))
    return sum((n - middle) * value for n, value in enumerate(values)) / spread if spread else 0.0
