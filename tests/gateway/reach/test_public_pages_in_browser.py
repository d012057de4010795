"""The public pages in a real Chromium, in front of the gateway."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from tests.gateway.harness import DRIVE, Harness, gateway
from tests.gateway.reach.drive_page import ABOFLAH, HOSTILE, know, leader, milestone, show, usd
from tests.gateway.reach.test_funnel import visits_of
from tests.gateway.test_pages_in_browser import browser, tab
from tests.waiting import until

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def shown(tmp_path: Path) -> AsyncIterator[Harness]:
    """A gateway that knows the drive and its totals."""
    async with gateway(tmp_path) as harness:
        know(harness, ABOFLAH)
        await show(harness)
        await received(harness, 1)
        yield harness


async def received(harness: Harness, sequence: int) -> None:
    async def has() -> bool:
        return (await harness.get("/v1/drives/winter/totals"))[2]["sequence"] == sequence

    await until(has)


async def poll(page: Page) -> None:
    """Let the page poll now, as when its tab is shown again."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_page_follows_the_totals_and_says_when_it_cannot(
    browser: BrowserContext, shown: Harness
) -> None:
    await shown.heartbeat()
    async with tab(browser) as page:
        await page.goto(f"{shown.url}/d/winter?lang=en&platform=tiktok")
        await expect(page.locator("#raised")).to_have_text("$4,560,123.45")
        await expect(page.locator("#recent li")).to_have_text(
            ["أمل $25لكل طفل ليلة دافئة", "Anonymous $1,000"]
        )
        gift = {"id": "don_3", "name": "Sami", "message": "سلام", "amount": usd("7.50")}
        leaders = [leader(1, "crt_9", "zain", "Zain", "3000000.00")]
        reached = [
            milestone("First", "1000000.00", "2026-01-07T12:00:00Z"),
            milestone("Half way", "5000000.00", "x"),
        ]
        await show(
            shown,
            2,
            raised=usd("5000001.00"),
            donations=97013,
            recent=[gift],
            leaders=leaders,
            milestones=reached,
        )
        await received(shown, 2)
        await poll(page)
        await expect(page.locator("#raised")).to_have_text("$5,000,001")
        await expect(page.locator("#gifts")).to_have_text("97,013 gifts")
        await expect(page.locator("#recent li")).to_have_text(["Sami $7.50سلام"])
        await expect(page.locator("#leaders a")).to_have_attribute(
            "href", "/d/winter/zain?lang=en&platform=tiktok"
        )
        await expect(page.locator("#milestones .mark")).to_have_text(["reached", "reached"])
        assert await page.locator("progress").evaluate("bar => bar.value") == 50
        await page.context.set_offline(True)
        await poll(page)
        await expect(page.locator("#state")).to_have_text("No connection")
        await page.context.set_offline(False)
        await poll(page)
        await expect(page.locator("#freshness")).not_to_have_attribute("data-state", "offline")


async def test_creators_own_sum_follows_the_board(browser: BrowserContext, shown: Harness) -> None:
    async with tab(browser) as page:
        await page.goto(f"{shown.url}/d/winter/aboflah?lang=en")
        await expect(page.locator("#standing")).to_have_text("$2,500,000 raised Rank 1 among all creators")
        row = {"rank": 14, **ABOFLAH, "creator": "crt_205", "raised": usd("2500025.50"), "donations": 10}
        board = f"GET /v1/drives/{DRIVE}/leaderboards/creators"
        shown.leaderboard.answers[board] = (200, {"data": [row]})
        await show(shown, 2, leaders=[])
        await received(shown, 2)

        async def followed() -> bool:  # the gateway keeps a board for a second
            await show(shown, next(sequences), leaders=[])
            await poll(page)
            return "$2,500,025.50" in await page.locator("#standing").inner_text()

        sequences = itertools.count(3)
        await until(followed)
        await expect(page.locator("#standing")).to_have_text(
            "$2,500,025.50 raised Rank 14 among all creators"
        )
        await show(shown, 1000, leaders=[leader(3, "crt_205", "aboflah", "AboFlah", "2500100.00")])
        await received(shown, 1000)
        await poll(page)
        await expect(page.locator("#standing")).to_have_text("$2,500,100 raised Rank 3 among all creators")


async def test_texts_of_people_are_shown_as_text_by_the_script_too(
    browser: BrowserContext, shown: Harness
) -> None:
    async with tab(browser) as page:
        await page.goto(f"{shown.url}/d/winter/aboflah?lang=en")
        gift = {"id": "don_3", "name": HOSTILE, "message": HOSTILE, "amount": usd("7.50")}
        leaders = [leader(1, "crt_9", "zain", HOSTILE, "3000000.00")]
        await show(shown, 2, recent=[gift], leaders=leaders, title=HOSTILE)
        await received(shown, 2)
        await poll(page)
        await expect(page.locator("#recent p")).to_have_text(HOSTILE)
        await expect(page.locator("h1")).to_have_text(HOSTILE)
        assert await page.locator("img[src=x]").count() == 0


async def test_view_is_reported_and_the_donate_link_names_creator_source_and_origin(
    browser: BrowserContext, shown: Harness
) -> None:
    async with tab(browser) as page:
        await page.route(
            "https://social.example/**",
            lambda route: route.fulfill(content_type="text/html", body=_linking(shown.url)),
        )
        await page.goto("https://social.example/post/1?secret=1")
        await page.click("a")
        await expect(page.locator("#give")).to_have_text("Give with AboFlah")
        await expect(page.locator("#give")).to_have_attribute(
            "href",
            "/donate/winter?creator=aboflah&lang=en&platform=tiktok&campaign=winter"
            "&referrer=https%3A%2F%2Fsocial.example",
        )
        await page.click("#give")
        await expect(page.locator("#form")).to_be_visible()
        data = await page.locator("#page").evaluate("data => JSON.parse(data.textContent).source")
        assert data == {"platform": "tiktok", "campaign": "winter", "referrer": "https://social.example"}
        wanted = {("tiktok/winter", "seen"): 1, ("tiktok/winter", "opened"): 1}
        await until(lambda: counted(shown) == wanted)


def _linking(base: str) -> str:
    address = f"{base}/d/winter/aboflah?lang=en&utm_source=TikTok&hashtag=%23Winter"
    return f'<meta name="referrer" content="unsafe-url"><a href="{address}">give</a>'


def counted(harness: Harness) -> dict[tuple[str, str], int]:
    return {(source, step): count for (_, source, step), count in visits_of(harness)._pending.items()}


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_page_fits_every_width_and_its_links_work_by_keyboard(
    browser: BrowserContext, shown: Harness, lang: str
) -> None:
    long = "ﷺ" * 30 + "W" * 60
    await show(
        shown, 2, title={"en": long, "ar": long}, raised=usd("9999999999.99"),
        recent=[{"id": "don_3", "name": "W" * 80, "message": long, "amount": usd("9999999.99")}],
        leaders=[leader(1, "crt_205", "aboflah", "كـ" * 80, "9999999999.99")],
    )  # fmt: skip
    await received(shown, 2)
    async with tab(browser) as page:
        for width in (320, 768, 1920):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.goto(f"{shown.url}/d/winter/aboflah?lang={lang}")
            widths: Any = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], width
        await page.keyboard.press("Tab")
        focused = []
        for _ in range(5):
            focused.append(await page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            await page.keyboard.press("Tab")
        assert focused == ["A", "A", "give", "SUMMARY", "A"]
