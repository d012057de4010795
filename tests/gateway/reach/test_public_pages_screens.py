"""The public pages at every width, in both languages: the usual ones, the longest, and hostile texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.gateway.harness import DRIVE, Harness, gateway
from tests.gateway.reach.drive_page import ABOFLAH, know, leader, milestone, show, usd
from tests.gateway.reach.test_public_pages_in_browser import received
from tests.gateway.screens import faults
from tests.gateway.test_pages_in_browser import browser, tab

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACK: Final = (
    """</script><img src=x onerror="document.title='owned'"><svg onload="document.title='owned'">"""
)
DESCRIPTION: Final = {
    "en": "Heaters, blankets and food for 100,000 families before the snow.\nEvery gift is counted live.",
    "ar": "مدافئ وبطانيات وغذاء لمئة ألف أسرة قبل الثلوج.\nكل تبرع يظهر مباشرة.",
}
LONG: Final = {"en": "Winter" * 10, "ar": "شتاء دافئ " * 6}


@pytest_asyncio.fixture(loop_scope="module")
async def served(tmp_path: Path) -> AsyncIterator[Harness]:
    async with gateway(tmp_path) as harness:
        yield harness


async def usual(harness: Harness, **changes: Any) -> None:
    know(harness, ABOFLAH, description=DESCRIPTION, **changes)
    await show(harness)
    await harness.heartbeat()


async def longest(harness: Harness) -> None:
    name = "W" * 30 + "ﷺ" * 30
    creator = {**ABOFLAH, "name": name}
    know(harness, creator, title=LONG, description={"en": "W" * 300, "ar": "ﷺ" * 300})
    teams = [{"rank": n, "team": "م" * 100, "raised": usd("9999999999.99"), "donations": 3} for n in (1, 2)]
    harness.leaderboard.answers[f"GET /v1/drives/{DRIVE}/leaderboards/teams"] = (200, {"data": teams})
    await show(
        harness, title=LONG, raised=usd("9999999999.99"), goal=usd("9999999999.99"), donations=999999999,
        leaders=[leader(n, f"crt_{n}", "aboflah", name, "9999999999.99") for n in range(1, 11)],
        recent=[{"id": "don_1", "name": name, "message": "W" * 280, "amount": usd("9999999.99")}] * 5,
        milestones=[milestone(LONG, "9999999999.99", "2026-01-07T12:00:00Z")],
    )  # fmt: skip


async def hostile(harness: Harness) -> None:
    know(harness, {**ABOFLAH, "name": ATTACK}, title=ATTACK, description=ATTACK)
    teams = [{"rank": 1, "team": ATTACK, "raised": usd("5.00"), "donations": 3}]
    harness.leaderboard.answers[f"GET /v1/drives/{DRIVE}/leaderboards/teams"] = (200, {"data": teams})
    await show(
        harness, title=ATTACK, leaders=[leader(1, "crt_205", "aboflah", ATTACK, "5.00")],
        recent=[{"id": "don_1", "name": ATTACK, "message": ATTACK, "amount": usd("5.00")}],
        milestones=[milestone(ATTACK, "5.00")],
    )  # fmt: skip


async def empty(harness: Harness) -> None:
    know(harness, ABOFLAH, test=True)
    harness.leaderboard.answers = {}
    await show(harness, raised=usd("0.00"), donations=0, leaders=[], recent=[], milestones=[])


SCREENS: Final = {
    "live": (usual, "/d/winter/aboflah"),
    "paused": (lambda harness: usual(harness, state="paused"), "/d/winter"),
    "closed": (lambda harness: usual(harness, state="closed"), "/d/winter"),
    "longest": (longest, "/d/winter/aboflah"),
    "hostile": (hostile, "/d/winter/aboflah"),
    "empty": (empty, "/d/winter"),
}


@pytest.mark.parametrize("lang", ["en", "ar"])
@pytest.mark.parametrize("name", SCREENS)
async def test_page_fits_every_width_axe_finds_nothing_serious_and_no_text_of_people_runs(
    browser: BrowserContext, served: Harness, name: str, lang: str
) -> None:
    prepare, path = SCREENS[name]
    await prepare(served)
    await received(served, 1)
    source = (
        f"&digits={'arab' if name == 'closed' else 'latn'}&platform={quote(ATTACK)}&campaign={quote(ATTACK)}"
    )
    async with tab(browser) as page:
        await page.goto(f"{served.url}{path}?lang={lang}{source}")
        await expect(page.locator("#no-gifts" if name == "empty" else "#recent li").first).to_be_visible()
        assert await faults(page, f"public-{name}", lang) == []
        assert await page.title() != "owned"
        assert await page.locator("img[src=x], svg").count() == 0


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_pages_of_nothing_fit_too(browser: BrowserContext, served: Harness, lang: str) -> None:
    know(served, ABOFLAH)
    async with tab(browser) as page:
        for name, path in (("no-drive", "/d/nowhere"), ("no-creator", "/d/winter/nobody")):
            await page.goto(f"{served.url}{path}?lang={lang}")
            assert await faults(page, f"public-{name}", lang) == []
