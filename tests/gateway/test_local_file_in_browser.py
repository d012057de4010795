"""The local file in a real Chromium, as a source in OBS: opened before the server, and after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Error, FrameLocator, Page, async_playwright, expect

from gateway.pages.local_file import local_file
from tests.gateway.pages_harness import Harness, donation_row, serving_pages
from tests.gateway.test_pages_in_browser import FLAGS, HOSTILE, chromium_path
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CUSTOM_CSS = ".bar { opacity: 0.5 }"
AS_OBS_DOES = """(css) => { const style = document.createElement("style");
    style.appendChild(document.createTextNode(css)); document.querySelector("head").appendChild(style) }"""


FRAMED = """(address) => { window.received = 0; addEventListener("message", () => (window.received += 1));
    document.body.append(Object.assign(document.createElement("iframe"), { src: address })) }"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    """With site isolation, as by default: the frame of a file has a process of its own."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield await launched.new_context(reduced_motion="reduce")
        await launched.close()


async def open_file(browser: BrowserContext, folder: Path, port: int) -> Page:
    """The file for an overlay at `port`, in a page whose timers the test moves (`clock.run_for`)."""
    file = folder / "ataa-overlay-winter.html"
    file.write_bytes(local_file(f"http://127.0.0.1:{port}", "winter", {"en": HOSTILE}, {"lang": "en"}))
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    await page.goto(file.as_uri())
    return page


async def shows(page: Page) -> FrameLocator:
    """The overlay in the frame, once it is visible."""
    await expect(page.locator("iframe")).to_have_css("opacity", "1")
    inside = page.frame_locator("iframe")
    await expect(inside.locator(".raised")).to_have_attribute("data-value", "4560123.45")
    return inside


async def test_overlay_shows_once_the_server_answers(browser: BrowserContext, tmp_path: Path) -> None:
    port, failed = free_port(), []
    browser.on("requestfailed", lambda request: failed.append(request.url))
    page = await open_file(browser, tmp_path, port)
    await until(lambda: failed)
    await expect(page.locator("iframe")).to_have_css("opacity", "0")
    seen = "[document.documentElement, document.body].map((one) => getComputedStyle(one).backgroundColor)"
    assert set(await page.evaluate(seen)) == {"rgba(0, 0, 0, 0)"}
    assert await page.evaluate("document.body.innerText") == ""
    async with serving_pages(Harness(), port) as harness:
        inside = await shows(page)
        await until(lambda: harness.stream_queues)
        harness.push("donation", donation_row(1))
        await expect(inside.locator(".card .name")).to_have_text("Donor 1")
        assert await page.locator("iframe").count() == 1
    await page.close()


async def test_custom_css_of_obs_applies_to_the_framed_overlay(
    browser: BrowserContext, tmp_path: Path
) -> None:
    async with serving_pages(Harness(), free_port()) as harness:
        page = await open_file(browser, tmp_path, int(harness.base.rpartition(":")[2]))
        await page.evaluate(AS_OBS_DOES, CUSTOM_CSS)
        inside = await shows(page)
        await expect(inside.locator(".bar")).to_have_css("opacity", "0.5")
        await page.close()


async def test_crashed_overlay_is_loaded_again(browser: BrowserContext, tmp_path: Path) -> None:
    async with serving_pages(Harness()) as harness:
        page = await open_file(browser, tmp_path, int(harness.base.rpartition(":")[2]))
        await shows(page)
        crashing = await browser.new_cdp_session(page.frames[1])
        await until(lambda: harness.streams_opened == 1)
        with suppress(Error):  # the page that should answer is gone
            await crashing.send("Page.crash")
        await until(lambda: harness.streams_opened == 2)
        await page.close()


async def test_a_web_page_cannot_style_an_overlay(browser: BrowserContext) -> None:
    async with serving_pages(Harness()) as harness:
        page = await browser.new_page()
        await page.goto(f"{harness.base}/checkout")
        await page.evaluate(FRAMED, f"{harness.base}/overlay/winter?lang=en")
        inside = page.frame_locator("iframe")
        await expect(inside.locator(".raised")).to_have_attribute("data-value", "4560123.45")
        await page.evaluate("frames[0].postMessage({ css: '.bar { opacity: 0.5 }' }, '*')")
        await page.frames[1].evaluate(
            "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
        )
        await expect(inside.locator(".bar")).to_have_css("opacity", "1")
        assert await page.evaluate("window.received") == 0
        await page.close()
