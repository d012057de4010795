"""Overlays as they run in OBS and browsers: many in one profile, hidden, reloaded, restyled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from tests.gateway.pages_stage import SEQUENCE, Stage, a_gift, on_stage, the_totals, usd
from tests.gateway.stage import Stage as Door
from tests.gateway.stage import drive, gateway
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path
from tests.gateway.test_stream import hub_of, serve_log
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=PATIENCE_S * 1_000)

SHARED = "no-op"
WITHOUT_WORKER = "delete window.SharedWorker"
WITHOUT_ANY = "delete window.SharedWorker; delete window.BroadcastChannel"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def profile(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A browser profile of its own, as the one that all browser sources of an OBS share."""
    context = await chromium.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_S * 1_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A real gateway whose drive has one gift, and whose figures are complete up to now."""
    async with gateway(tmp_path) as served:
        serve_log(served, [])
        await served.snapshot(1, "10.00")
        beating = asyncio.create_task(beat(served))
        yield served
        beating.cancel()


async def beat(door: Door) -> None:
    while True:
        await door.heartbeat()
        await asyncio.sleep(1)


@pytest_asyncio.fixture(loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with on_stage(Stage()) as served:
        yield served


async def overlays(door: Door, profile: BrowserContext, count: int) -> list[Page]:
    pages = [await profile.new_page() for _ in range(count)]
    for page in pages:
        await page.goto(f"{door.url}/overlay/winter?lang=en", wait_until="commit")
    return pages


async def all_show(pages: list[Page], value: str) -> None:
    for page in pages:
        await expect(page.locator(".raised")).to_have_attribute("data-value", value)
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")


# --- many pages of one profile ---


@pytest.mark.parametrize(("missing", "streams"), [(SHARED, 1), (WITHOUT_WORKER, 1), (WITHOUT_ANY, 0)])
async def test_eight_overlays_of_one_profile_show_the_live_total_over_one_stream(
    door: Door, profile: BrowserContext, missing: str, streams: int
) -> None:
    await profile.add_init_script(missing if missing != SHARED else "")
    pages = await overlays(door, profile, 8)
    await all_show(pages, "10.00")
    await until(lambda: hub_of(door).clients == streams)
    await door.snapshot(2, "35.00")
    await all_show(pages, "35.00")
    assert hub_of(door).clients == streams
    donor = await profile.new_page()
    await donor.goto(f"{door.url}/donate/winter?lang=en")
    await expect(donor.locator("#give")).to_be_enabled()
