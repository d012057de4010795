"""What the donate form costs the browser that shows it: first paint, time until it can be sent, and bytes.

A server of this process serves the form and, on another port, a page that has it in a frame. Both are loaded
with an empty cache, without a limit and on a slow mobile connection that Chromium emulates.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from playwright.async_api import Browser, Page, ViewportSize

from bench import single_figure
from bench.page_server import STARTED_S, reply, serving
from bench.progress import Progress
from bench.results import Detail
from gateway.pages import Creators, assets_app, donate_page, embed_script, page_headers
from gateway.pages.assets import Receive, Scope, Send
from gateway.pages.frames import Frame

LOADS: Final = 5
SLOW_LOADS: Final = 3
SLOW_3G: Final = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
"""400 ms before each response, 400 kbit/s each way."""
KEY: Final = "pk_live_of_the_benchmark"
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
DRIVE: Final[dict[str, object]] = {
    "id": "drv_01winter", "slug": "winter", "title": {"en": "Winter", "ar": "لنجعل شتاءهم أدفأ"},
    "description": {"ar": "مدافئ وبطانيات وملابس شتوية."}, "currency": "USD", "zakat_eligible": True,
    "raised": {"currency": "USD", "value": "4560123.45"}, "goal": {"currency": "USD", "value": "10000000.00"},
    "donations": 97012, "state": "live",
}  # fmt: skip
MOMENTS: Final = """
const ready = () => {
  if (document.querySelector("#give")?.disabled === false) window.readyAt = performance.now();
  else requestAnimationFrame(ready);
};
requestAnimationFrame(ready);"""
READ_MOMENTS: Final = """() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  if (!paint || !window.readyAt) return null;
  const assets = performance.getEntriesByType("resource").filter((one) => one.name.includes("/assets/"));
  const bytes = assets.reduce((sum, one) => sum + one.encodedBodySize, 0);
  return { origin: performance.timeOrigin, paint: paint.startTime, ready: window.readyAt, bytes };
}"""


@dataclass(frozen=True, slots=True)
class Load:
    """Milliseconds until the first paint and until the button sends, and kB of everything, gzipped."""

    paint_ms: float
    ready_ms: float
    kb: float


@dataclass(slots=True)
class FormSite:
    """The form as an ASGI application. `page_origin` is that of the page that may frame it."""

    page_origin: str = ""

    def html(self, query: Mapping[str, str]) -> bytes:
        """The form, framed where the address names a key."""
        frame = Frame(self.page_origin, KEY, "key_1", (self.page_origin,)) if "key" in query else None
        fee = {"bps": 290, "fixed": 30, "step": 1}
        return donate_page(DRIVE, Creators(), query, "f1.1." + "a" * 64, frame=frame, fee=fee)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the form, its assets, `/embed.js` and the drive's totals."""
        if scope["type"] != "http":
            return
        path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
        if path.startswith("/assets/"):
            await assets_app(scope, receive, send)
        elif path == "/embed.js":
            await reply(send, [(b"content-type", b"text/javascript")], embed_script()[0])
        elif path.endswith("/totals"):
            await reply(send, [(b"content-type", b"application/json")], json.dumps(DRIVE).encode())
        else:
            ancestors = (self.page_origin,) if "key" in query else ()
            await reply(send, page_headers("donate", ancestors), self.html(query))


@dataclass(slots=True)
class PartnerSite:
    """A page with nothing but the form in a frame, as an ASGI application."""

    form: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page at every path."""
        if scope["type"] != "http":
            return
        script = f'<script src="{self.form}/embed.js" data-drive="winter" data-key="{KEY}" async></script>'
        head = (
            '<!doctype html><html lang="ar" dir="rtl"><meta charset="utf-8"><link rel="icon" href="data:,">'
        )
        await reply(send, [(b"content-type", b"text/html; charset=utf-8")], f"{head}{script}".encode())


async def _load(browser: Browser, address: str, slow: bool, html_bytes: int) -> Load:
    context = await browser.new_context(viewport=PHONE, locale="ar")
    await context.add_init_script(MOMENTS)
    page = await context.new_page()
    if slow:
        session = await context.new_cdp_session(page)
        await session.send("Network.emulateNetworkConditions", SLOW_3G)
    await page.goto(address, wait_until="commit")
    began = float(await page.evaluate("performance.timeOrigin"))
    found = await _moments(page)
    await context.close()
    before = found["origin"] - began
    return Load(before + found["paint"], before + found["ready"], (found["bytes"] + html_bytes) / 1_000)


async def _moments(page: Page) -> dict[str, float]:
    """What the form's document measured of itself, once it can be sent."""
    async with asyncio.timeout(STARTED_S):
        while True:
            for frame in page.frames:
                if "/winter" in frame.url and (found := await frame.evaluate(READ_MOMENTS)):
                    moments: dict[str, float] = found
                    return moments
            await asyncio.sleep(0.05)


async def figures(browser: Browser, progress: Progress) -> dict[str, dict[str, Detail]]:
    """The form's figures, hosted and in a frame; their aims are those of the hosted form."""
    site, partner = FormSite(), PartnerSite()
    async with AsyncExitStack() as stack:
        form, page = [await stack.enter_async_context(serving(one)) for one in (site, partner)]
        site.page_origin, partner.form = page, form
        query = {"key": KEY, "origin": page, "lang": "ar"}
        bytes_of = {
            f"{form}/donate/winter?lang=ar": len(gzip.compress(site.html({"lang": "ar"}))),
            page: len(gzip.compress(site.html(query))) + len(gzip.compress(embed_script()[0])),
        }
        found: list[list[Load]] = []
        for slow, loads in ((False, LOADS), (True, SLOW_LOADS)):
            for address, size in bytes_of.items():
                progress.begin(f"loads of the form at {address}{' on slow 3G' if slow else ''}")
                found.append([await _load(browser, address, slow, size) for _ in range(loads)])
    return _as_figures(*found)


def _as_figures(
    hosted: list[Load], framed: list[Load], slow: list[Load], slow_framed: list[Load]
) -> dict[str, dict[str, Detail]]:
    def paint(what: str, own: list[Load], in_frame: list[Load], most: float) -> dict[str, Detail]:
        return _times(what, [one.paint_ms for one in own], [one.paint_ms for one in in_frame], most)

    def ready(what: str, own: list[Load], in_frame: list[Load], most: float) -> dict[str, Detail]:
        return _times(what, [one.ready_ms for one in own], [one.ready_ms for one in in_frame], most)

    in_frame: dict[str, Detail] = {"framed_kb": framed[0].kb}
    return {
        "form_paint": paint("first paint of the form, median", hosted, framed, 1_000),
        "form_ready": ready("until the form can be sent, median", hosted, framed, 1_500),
        "form_paint_slow": paint("first paint of the form on slow 3G", slow, slow_framed, 3_000),
        "form_ready_slow": ready("until the form can be sent on slow 3G", slow, slow_framed, 5_000),
        "form_bytes": single_figure.of("form and its assets, gzipped", hosted[0].kb, "kB", 60, in_frame),
    }


def _times(what: str, own: list[float], in_frame: list[float], most: float) -> dict[str, Detail]:
    details: dict[str, Detail] = {
        "worst_ms": max(own),
        "loads": len(own),
        "framed_ms": statistics.median(in_frame),
    }
    return single_figure.of(what, statistics.median(own), "ms", most, details)
