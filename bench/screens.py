"""What an overlay costs the browser that shows it: first paint, bytes, frames, and memory over days.

A server of this process serves the overlay and streams made-up frames to it. Chromium runs headless and
draws without a GPU, so that frames cost more than in a streaming tool. The twelve days pass in minutes, on a
clock that the frames move (`screen_clock.js`): with all gifts and totals, with the page's timers, and with a
broken stream each hour; numbers roll in five frames a second of that clock.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, CDPSession, async_playwright

from bench import form_screens, single_figure
from bench.machine import load_average
from bench.page_server import STARTED_S
from bench.progress import Progress
from bench.results import Detail
from bench.screen_days import Memory, open_screen, pass_hours, slope
from bench.screen_server import Screen, frame, serving_overlay
from gateway.pages import overlay_page

DAYS: Final = 12
HOURS: Final = 24
GIFTS: Final = 155_102
"""Gifts of the drive of docs/load-model.md in so many days."""
PAINTS: Final = 5
UPDATES_PER_S: Final = 4
FRAMES_S: Final = 15.0
ARGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--enable-precise-memory-info",
)
COSTS: Final = {"Script": "script", "RecalcStyle": "style", "Layout": "layout"}

FIRST_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
INTERVALS: Final = """(seconds) => new Promise((done) => {
  const at = [];
  const frame = (now) => {
    at.push(now);
    if (now - at[0] < seconds * 1000) requestAnimationFrame(frame);
    else done(at.slice(1).map((time, i) => time - at[i]));
  };
  requestAnimationFrame(frame) })"""


async def _paints(browser: Browser, address: str) -> tuple[list[float], int]:
    """Milliseconds until the first paint with an empty cache, and the bytes of page and assets."""
    found, size = [], 0
    for _ in range(PAINTS):
        context = await browser.new_context(viewport={"width": 1920, "height": 1080})
        page = await context.new_page()
        await page.goto(address)
        await page.wait_for_selector(".raised[data-value]")
        found.append(float(await page.evaluate(FIRST_PAINT)))
        entries = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/assets/'))"
        assets = await page.evaluate(f"{entries}.reduce((sum, one) => sum + one.encodedBodySize, 0)")
        size = int(assets) + len(gzip.compress(overlay_page("winter", {"en": "Winter"}, {})))
        await context.close()
    return found, size


async def _frames(browser: Browser, address: str, screen: Screen) -> tuple[list[float], dict[str, float]]:
    """Milliseconds between two frames while the totals change four times a second, and what each frame cost.

    The cost is the main thread's: scripts, style and layout. Painting without a GPU is not in it.
    """
    page = await browser.new_page(viewport={"width": 1920, "height": 1080})
    await page.goto(address)
    async with asyncio.timeout(STARTED_S):
        while not screen.queues:  # noqa: ASYNC110  the page opens its stream
            await asyncio.sleep(0.05)
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    before = await _metrics(session)
    measuring = asyncio.create_task(page.evaluate(INTERVALS, FRAMES_S))
    while not measuring.done():
        gift = screen.gift()
        await screen.send(gift + frame("totals", screen.totals()))
        await asyncio.sleep(1 / UPDATES_PER_S)
    intervals = list(await measuring)
    after = await _metrics(session)
    await page.close()
    spent = {name: after[f"{name}Duration"] - before[f"{name}Duration"] for name in COSTS}
    return sorted(intervals), {f"{COSTS[name]}_ms": 1_000 * s / len(intervals) for name, s in spent.items()}


async def _metrics(session: CDPSession) -> dict[str, float]:
    """What Chromium counts for the page since the session enabled it."""
    found = (await session.send("Performance.getMetrics"))["metrics"]
    return {one["name"]: float(one["value"]) for one in found}


async def _days(browser: Browser, progress: Progress, gifts: int) -> list[Memory]:
    """The memory after each day, in which so many gifts are spread over all days."""
    screen, found = Screen(), []
    async with serving_overlay(screen) as address:
        page = await browser.new_page(viewport={"width": 1920, "height": 1080})
        session = await open_screen(page, screen, address)
        for day in range(1, DAYS + 1):
            progress.begin(f"day {day} with {gifts // DAYS:,} gifts")
            found.append(await pass_hours(page, session, screen, HOURS, gifts // DAYS // HOURS))
        await page.close()
    return found


async def _measure(progress: Progress, gifts: int) -> dict[str, dict[str, Detail]]:
    screen = Screen()
    async with async_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGS))
        async with serving_overlay(screen) as address:
            progress.begin("first paints of the overlay")
            paints, size = await _paints(browser, address)
            screen.end_streams()
            progress.begin("frames", FRAMES_S)
            intervals, costs = await _frames(browser, address, screen)
        days = await _days(browser, progress, gifts)
        form = await form_screens.figures(browser, progress)
        await browser.close()
    return {**_figures(paints, size, intervals, costs, days, gifts), **form}


def _figures(
    paints: Sequence[float],
    size: int,
    intervals: Sequence[float],
    costs: Mapping[str, float],
    days: Sequence[Memory],
    gifts: int,
) -> dict[str, dict[str, Detail]]:
    frames: dict[str, Detail] = {
        "frames_per_s": 1_000 * len(intervals) / sum(intervals),
        "p50_ms": statistics.median(intervals),
        "p99_ms": intervals[int(len(intervals) * 0.99)],
        "updates_per_s": UPDATES_PER_S,
        **costs,
    }
    grown = days[-1].heap_mb - days[0].heap_mb
    return {
        "overlay_paint": single_figure.of(
            "first paint of the overlay, empty cache, median", statistics.median(paints), "ms", 1_000,
            {"worst_ms": max(paints), "loads": len(paints)},
        ),
        "overlay_bytes": single_figure.of("overlay and its assets, gzipped", size / 1_000, "kB", 60, {}),
        "overlay_frames": single_figure.of(
            "time between two frames of the overlay, mean", sum(intervals) / len(intervals), "ms", 17, frames
        ),
        "overlay_heap": single_figure.of(
            "heap grown from the end of the first day to that of the last", grown, "MB", 1,
            _by_day(days) | {"gifts": gifts, "days": len(days)},
        ),
    }  # fmt: skip


def _by_day(days: Sequence[Memory]) -> dict[str, Detail]:
    """Heap, nodes and listeners at the end of each day, and what they grow by each day after the first."""
    series: Mapping[str, Sequence[float]] = {
        "heap_mb": [day.heap_mb for day in days],
        "nodes": [day.nodes for day in days],
        "listeners": [day.listeners for day in days],
    }
    found: dict[str, Detail] = {}
    for name, values in series.items():
        found[f"{name}_by_day"] = " ".join(f"{value:.4g}" for value in values)
        found[f"{name}_a_day"] = slope(values[1:])
    return found


def measure(file: Path, note: str, progress: Progress, gifts: int = GIFTS) -> None:
    """Measure the overlay and the donate form in Chromium, and write the results file."""
    before = load_average()
    found = asyncio.run(_measure(progress, gifts))
    conditions: dict[str, Detail] = {"load_average_before": before, "load_average_after": load_average()}
    single_figure.write(file, found, {**conditions, "note": note} if note else conditions)
