"""What an overlay costs the browser that shows it: first paint, bytes, frames, and memory over days.

A server of this process serves the overlay and streams made-up frames to it. Chromium runs headless and
draws without a GPU, so that frames cost more than in a streaming tool. Twelve days of frames are sent as fast
as the page takes them: its memory is measured with all frames of the days, but not with twelve days of its
timers.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from playwright.async_api import Browser, CDPSession, Page, async_playwright

from bench import form_screens, single_figure
from bench.machine import load_average
from bench.progress import Progress
from bench.results import Detail
from gateway.pages import assets_app, overlay_page, page_headers
from gateway.pages.assets import Receive, Scope, Send

DAYS: Final = 12
GIFTS: Final = 155_102
"""Gifts of the drive of docs/load-model.md in so many days."""
WARM_GIFTS: Final = 5_000
PAINTS: Final = 5
UPDATES_PER_S: Final = 4
FRAMES_S: Final = 15.0
BATCH: Final = 50
NOW: Final = "2026-01-07T12:00:00Z"
STARTED_S: Final = 30.0
TAKEN_S: Final = 600.0
ARGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--enable-precise-memory-info",
)
COSTS: Final = {"Script": "script", "RecalcStyle": "style", "Layout": "layout"}
PAGE_READS_THE_STREAM: Final = "delete window.SharedWorker"
"""So that the memory measured contains the stream's reader."""

FIRST_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
INTERVALS: Final = """(seconds) => new Promise((done) => {
  const at = [];
  const frame = (now) => {
    at.push(now);
    if (now - at[0] < seconds * 1000) requestAnimationFrame(frame);
    else done(at.slice(1).map((time, i) => time - at[i]));
  };
  requestAnimationFrame(frame) })"""


@dataclass(slots=True)
class Screen:
    """A drive whose frames this process makes, as an ASGI application."""

    sequence: int = 1
    queues: list[asyncio.Queue[bytes | None]] = field(default_factory=list)

    def totals(self) -> dict[str, Any]:
        """Totals after `sequence` gifts of 25 dollars, with leaders and recent gifts."""
        names = [f"Donor {self.sequence - n}" for n in range(10)]
        leaders = [
            {"rank": n + 1, "creator": f"crt_{n}", "slug": f"c{n}", "name": f"Creator {n}",
             "raised": _usd(self.sequence * (9 - n)), "donations": self.sequence}
            for n in range(8)
        ]  # fmt: skip
        recent = [
            {"id": f"don_{self.sequence - n}", "name": name, "message": "", "amount": _usd(25),
             "creator": "crt_1", "at": NOW}
            for n, name in enumerate(names)
        ]  # fmt: skip
        return {
            "drive": "drv_01winter", "slug": "winter", "title": {"en": "Winter"}, "currency": "USD",
            "raised": _usd(self.sequence * 25), "goal": _usd(10_000_000), "donations": self.sequence,
            "per_minute": {"donations": 41, "raised": _usd(1_025)}, "leaders": leaders, "recent": recent,
            "milestones": [{"title": "Half way", "amount": _usd(5_000_000), "reached_at": None}],
            "epoch": 1, "sequence": self.sequence, "as_of": NOW, "state": "live", "lag_ms": 9,
        }  # fmt: skip

    def gift(self) -> bytes:
        """The frame of the next gift."""
        self.sequence += 1
        row = {
            "id": f"don_{self.sequence}", "payment": f"pay_{self.sequence}", "sequence": self.sequence,
            "type": "donation.counted", "name": f"Donor {self.sequence}", "message": "May they be warm.",
            "amount": _usd(self.sequence % 600 + 1), "creator": "crt_1", "at": NOW,
        }  # fmt: skip
        return _frame("donation", row, self.sequence)

    async def send(self, frames: bytes) -> None:
        """Send frames to every stream, and wait for room where a client is slow."""
        for queue in self.queues:
            await queue.put(frames)

    def end_streams(self) -> None:
        """End all streams, where a frame still waits without it."""
        for queue in self.queues:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self.queues.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the overlay, its assets, its totals and its stream."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith("/assets/"):
            await assets_app(scope, receive, send)
        elif path.endswith("/live"):
            await self._stream(send)
        elif path.endswith("/totals"):
            body = json.dumps(self.totals()).encode()
            await _reply(send, [(b"content-type", b"application/json")], body)
        else:
            await _reply(send, page_headers("overlay"), overlay_page("winter", {"en": "Winter"}, {}))

    async def _stream(self, send: Send) -> None:
        mine: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=8)
        mine.put_nowait(_frame("totals", self.totals()))
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.queues.append(mine)
        while (frames := await mine.get()) is not None:
            await send({"type": "http.response.body", "body": frames, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _usd(whole: int) -> dict[str, str]:
    return {"currency": "USD", "value": f"{whole}.00"}


def _frame(event: str, data: Mapping[str, Any], identifier: int | None = None) -> bytes:
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"event: {event}\n{head}data: {json.dumps(data)}\n\n".encode()


async def _reply(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _serving(screen: Screen) -> AsyncIterator[str]:
    config = uvicorn.Config(screen, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(STARTED_S):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/overlay/winter"
    finally:
        screen.end_streams()
        server.should_exit = True
        await task


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


async def _intervals(page: Page, session: CDPSession, screen: Screen) -> tuple[list[float], dict[str, float]]:
    """Milliseconds between two frames while the totals change four times a second, and what each frame cost.

    The cost is the main thread's: scripts, style and layout. Painting without a GPU is not in it.
    """
    before = await _metrics(session)
    measuring = asyncio.create_task(page.evaluate(INTERVALS, FRAMES_S))
    while not measuring.done():
        gift = screen.gift()
        await screen.send(gift + _frame("totals", screen.totals()))
        await asyncio.sleep(1 / UPDATES_PER_S)
    intervals = list(await measuring)
    after = await _metrics(session)
    spent = {name: after[f"{name}Duration"] - before[f"{name}Duration"] for name in COSTS}
    return intervals, {f"{COSTS[name]}_ms": 1_000 * s / len(intervals) for name, s in spent.items()}


async def _give(page: Page, screen: Screen, gifts: int) -> None:
    """Send gifts, each followed by its totals, and wait until the page shows the last."""
    last = screen.sequence + gifts
    while screen.sequence < last:
        count = min(BATCH, last - screen.sequence)
        pairs = [screen.gift() + _frame("totals", screen.totals()) for _ in range(count)]
        await screen.send(b"".join(pairs))
    async with asyncio.timeout(TAKEN_S):
        while int(await page.evaluate("document.body.dataset.sequence")) < last:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _memory(session: CDPSession) -> dict[str, float]:
    """The page's heap in MB and its DOM nodes, after a garbage collection."""
    await session.send("HeapProfiler.collectGarbage")
    values = await _metrics(session)
    return {"heap_mb": values["JSHeapUsedSize"] / 1e6, "nodes": values["Nodes"]}


async def _metrics(session: CDPSession) -> dict[str, float]:
    """What Chromium counts for the page since the session enabled it."""
    found = (await session.send("Performance.getMetrics"))["metrics"]
    return {one["name"]: float(one["value"]) for one in found}


async def _measure(progress: Progress, gifts: int) -> dict[str, dict[str, Detail]]:
    screen = Screen()
    async with _serving(screen) as address, async_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGS))
        progress.begin("first paints of the overlay")
        paints, size = await _paints(browser, address)
        screen.end_streams()
        page = await browser.new_page(viewport={"width": 1920, "height": 1080})
        await page.add_init_script(PAGE_READS_THE_STREAM)
        await page.goto(address)
        async with asyncio.timeout(STARTED_S):
            while not screen.queues:  # noqa: ASYNC110  the page opens its stream
                await asyncio.sleep(0.05)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        progress.begin("frames", FRAMES_S)
        intervals, costs = await _intervals(page, session, screen)
        progress.begin(f"{gifts:,} gifts")
        await _give(page, screen, WARM_GIFTS)
        before = await _memory(session)
        await _give(page, screen, gifts)
        after = {**await _memory(session), "gifts": gifts}
        form = await form_screens.figures(browser, progress)
        await browser.close()
    return {**_figures(paints, size, sorted(intervals), costs, before, after), **form}


def _figures(
    paints: list[float],
    size: int,
    intervals: list[float],
    costs: Mapping[str, float],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> dict[str, dict[str, Detail]]:
    frames: dict[str, Detail] = {
        "frames_per_s": 1_000 * len(intervals) / sum(intervals),
        "p50_ms": statistics.median(intervals),
        "p99_ms": intervals[int(len(intervals) * 0.99)],
        "updates_per_s": UPDATES_PER_S,
        **costs,
    }
    heap: dict[str, Detail] = {
        "heap_mb_before": before["heap_mb"],
        "heap_mb_after": after["heap_mb"],
        "nodes_before": before["nodes"],
        "nodes_after": after["nodes"],
        "gifts": after["gifts"],
        "days": DAYS * after["gifts"] / GIFTS,
    }
    grown = after["heap_mb"] - before["heap_mb"]
    return {
        "overlay_paint": single_figure.of(
            "first paint of the overlay, empty cache, median", statistics.median(paints), "ms", 1_000,
            {"worst_ms": max(paints), "loads": len(paints)},
        ),
        "overlay_bytes": single_figure.of("overlay and its assets, gzipped", size / 1_000, "kB", 60, {}),
        "overlay_frames": single_figure.of(
            "time between two frames of the overlay, mean", sum(intervals) / len(intervals), "ms", 17, frames
        ),
        "overlay_heap": single_figure.of("heap grown by days of gifts and totals", grown, "MB", 1, heap),
    }  # fmt: skip


def measure(file: Path, note: str, progress: Progress, gifts: int = GIFTS) -> None:
    """Measure the overlay and the donate form in Chromium, and write the results file."""
    before = load_average()
    found = asyncio.run(_measure(progress, gifts))
    conditions: dict[str, Detail] = {"load_average_before": before, "load_average_after": load_average()}
    single_figure.write(file, found, {**conditions, "note": note} if note else conditions)
