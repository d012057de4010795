"""The overlay's milestones, matching, impact and alert controls, its setup page, and what interrupts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests.gateway.pages_harness import (
    SEQUENCE,
    Harness,
    donation_row,
    drive_totals,
    frame,
    serving_pages,
    usd,
)
from tests.gateway.test_pages_in_browser import (
    FLAGS,
    HOSTILE,
    ONE_RENDERER,
    chromium_path,
    raised,
    tab,
    window_of,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHOUT_WORKER = "delete window.SharedWorker"
LONG_NAMES = {
    "ligature": "﷽" * 3,
    "wide": "W" * 40,
    "emoji": "👩🏽‍❤️‍💋‍👨🏿👨‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿" * 5,
    "zalgo": "Z" + "\u0300\u0316\u0334" * 12 + "a" + "\u0301\u0323" * 12,
    "kashida": "مـ" + "ـ" * 37 + "ـد",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        flags = [*FLAGS, *ONE_RENDERER]
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=flags)
        yield await window_of(launched)
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def harness() -> AsyncIterator[Harness]:
    async with serving_pages(Harness()) as served:
        yield served


@asynccontextmanager
async def overlay(browser: BrowserContext, harness: Harness, query: str = "lang=en") -> AsyncIterator[Page]:
    """An overlay that shows the harness's totals and reads its stream."""
    async with tab(browser) as page:
        opened = len(harness.stream_queues)
        await page.goto(f"{harness.base}/overlay/winter?{query}")
        await raised(page, harness.totals["raised"]["value"])
        await until(lambda: len(harness.stream_queues) > opened or opened)
        yield page


def milestones(*reached: str) -> list[dict[str, Any]]:
    """Three milestones; those named are reached."""
    amounts = {"One million": "1000000.00", "Half way": "5000000.00", "Ten million": "10000000.00"}
    at = drive_totals()["as_of"]
    return [
        {"title": title, "amount": usd(value), "reached_at": at if title in reached else None}
        for title, value in amounts.items()
    ]


def matching(**changes: object) -> dict[str, Any]:
    pool = {"id": "mch_1", "sponsor": "Acme", "cap": usd("500.00"), "used": usd("120.50"), "ratio": "1.00"}
    return {**pool, **changes}


# --- milestones ---


async def celebrated(page: Page) -> list[str]:
    found: list[str] = await page.evaluate("window.celebrated")
    return found


async def collect_celebrations(page: Page) -> None:
    """Keep the title of every celebration since the page was loaded in `window.celebrated`."""
    await page.add_init_script(
        """window.celebrated = []; document.addEventListener("DOMContentLoaded", () => {
        const banner = document.querySelector(".celebration");
        const note = () => { const title = banner.querySelector(".reached-title")?.textContent;
          if (title) window.celebrated.push(title) };
        if (banner) new MutationObserver(note).observe(banner, { childList: true }) })"""
    )


async def test_reached_milestone_is_celebrated_once_also_over_a_reload(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(milestones=milestones("One million"))
    async with tab(browser) as page:
        await collect_celebrations(page)
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await expect(page.locator(".milestones .reached .what")).to_have_text("One million")
        await until(lambda: harness.stream_queues)
        assert await celebrated(page) == []
        both = milestones("One million", "Half way")
        harness.totals = drive_totals(sequence=SEQUENCE + 2, raised=usd("5000000.00"), milestones=both)
        harness.push("totals", harness.totals)
        harness.push("totals", {**harness.totals, "sequence": SEQUENCE + 3})
        await until(lambda: celebrated(page))
        await expect(page.locator(".milestones .reached")).to_have_count(2)
        assert await celebrated(page) == ["Half way"]
        await page.reload()
        await raised(page, "5000000.00")
        await expect(page.locator(".milestones .reached")).to_have_count(2)
        assert await celebrated(page) == []
        harness.totals = drive_totals(
            sequence=SEQUENCE + 9,
            raised=usd("10000000.00"),
            milestones=milestones("One million", "Half way", "Ten million"),
        )
        harness.push("totals", harness.totals)
        await until(lambda: celebrated(page))
        assert await celebrated(page) == ["Ten million"]


async def test_milestone_reached_while_the_page_was_away_is_celebrated_unless_it_is_old(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(milestones=milestones())
    async with tab(browser) as page:
        await collect_celebrations(page)
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await page.goto("about:blank")
        older, newer, _ = milestones("One million", "Half way")
        older["reached_at"] = "2026-01-07T11:00:00Z"
        harness.totals = drive_totals(
            sequence=SEQUENCE + 2, raised=usd("5000000.00"), milestones=[older, newer]
        )
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await until(lambda: celebrated(page))
        assert await celebrated(page) == ["Half way"]


# --- matching and impact ---


@pytest.mark.parametrize(
    ("pools", "lang", "shown"),
    [
        ([matching()], "en", ["Acme doubles every gift", "$379.50 left to match"]),
        ([matching(ratio="0.50")], "en", ["Acme adds 50% to every gift", "$379.50 left to match"]),
        ([matching(sponsor="الخير")], "ar", ["كل تبرع يتضاعف بدعم من الخير", None]),
        ([matching(used=usd("500.00"))], "en", []),
        ([], "en", []),
        (None, "en", []),
    ],
)
async def test_matching_shows_open_pools_only(
    browser: BrowserContext, harness: Harness, pools: Any, lang: str, shown: list[str | None]
) -> None:
    harness.totals = drive_totals() if pools is None else drive_totals(matching=pools)
    async with overlay(browser, harness, f"lang={lang}") as page:
        await expect(page.locator(".matching")).to_have_count(1)
        assert await page.locator(".matching").is_visible() is bool(shown)
        for place, text in zip((".match-who", ".match-left"), shown, strict=False):
            if text is not None:
                await expect(page.locator(place)).to_have_text(text)


async def test_pool_of_one_creator_is_on_that_creators_overlay_only(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(matching=[matching(creator="crt_1")])
    for query, shown in (("", False), ("&creator=crt_2", False), ("&creator=crt_1", True)):
        async with overlay(browser, harness, f"parts=bar,matching&lang=en{query}") as page:
            assert await page.locator(".matching").is_visible() is shown


async def test_matching_follows_what_is_used(browser: BrowserContext, harness: Harness) -> None:
    harness.totals = drive_totals(matching=[matching()])
    async with overlay(browser, harness) as page:
        await expect(page.locator(".match-left")).to_have_text("$379.50 left to match")
        harness.push("totals", drive_totals(sequence=SEQUENCE + 1, matching=[matching(used=usd("499.99"))]))
        await expect(page.locator(".match-left")).to_have_text("$0.01 left to match")
        harness.push("totals", drive_totals(sequence=SEQUENCE + 2, matching=[matching(used=usd("500.00"))]))
        await expect(page.locator(".matching")).to_be_hidden()


@pytest.mark.parametrize(("lang", "heading"), [("en", "Matched in full"), ("ar", "اكتملت المضاعفة")])
async def test_pool_that_is_used_up_is_celebrated_once(
    browser: BrowserContext, harness: Harness, lang: str, heading: str
) -> None:
    full = matching(id="mch_2", sponsor="Before", used=usd("500.00"))
    harness.totals = drive_totals(matching=[matching(), full])
    async with tab(browser) as page:
        await collect_celebrations(page)
        await page.goto(f"{harness.base}/overlay/winter?lang={lang}")
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        used_up = matching(used=usd("500.00"))
        harness.push("totals", drive_totals(sequence=SEQUENCE + 1, matching=[used_up, full]))
        await expect(page.locator(".reached-what")).to_have_text(heading)
        harness.push(
            "totals", drive_totals(sequence=SEQUENCE + 2, matching=[used_up, full, matching(id="mch_3")])
        )
        await expect(page.locator(".match-left")).to_be_visible()
        assert await celebrated(page) == ["Acme"]


@pytest.mark.parametrize(
    ("value", "query", "text"),
    [
        ("11053174.00", "lang=en", "=\u00a0368,439 winter kits"),
        ("59.99", "lang=en", "=\u00a01 winter kits"),
        ("29.99", "lang=en", None),
        ("-30.00", "lang=en", None),
        ("11053174.00", "lang=ar&digits=arab", "=\u00a0٣٦٨٬٤٣٩ حقيبة شتوية"),
        ("99999999999999990.00", "lang=en", "=\u00a03,333,333,333,333,333 winter kits"),
    ],
)
async def test_impact_counts_what_is_paid_for_in_full(
    browser: BrowserContext, harness: Harness, value: str, query: str, text: str | None
) -> None:
    kits = {"label": {"en": "winter kits", "ar": "حقيبة شتوية"}, "cost": usd("30.00")}
    harness.drive = {"impact": [kits, {"label": "tents", "cost": {"currency": "EUR", "value": "1.00"}}]}
    harness.totals = drive_totals(raised=usd(value))
    async with overlay(browser, harness, query) as page:
        if text is None:
            await expect(page.locator(".impact")).to_be_hidden()
        else:
            assert await page.locator(".impact").text_content() == text


# --- controls ---


async def test_alerts_are_skipped_replayed_and_paused_by_keyboard(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page:
        harness.push("donation", donation_row(1))
        await expect(page.locator(".card")).to_have_count(1)
        await page.keyboard.press("s")
        await expect(page.locator(".card")).to_have_count(0)
        await page.keyboard.press("r")
        await expect(page.locator(".card .name")).to_have_text("Donor 1")
        await page.keyboard.press("s")
        await page.keyboard.press("p")
        harness.push("donation", donation_row(2))
        await until(lambda: page.evaluate(WAITING, 1))
        await expect(page.locator(".card")).to_have_count(0)
        harness.totals = drive_totals(sequence=SEQUENCE + 2)
        await page.reload()
        await raised(page, "4560123.45")
        await until(lambda: page.evaluate(WAITING, 1))
        assert await page.locator(".card").count() == 0
        await page.keyboard.press("p")
        await expect(page.locator(".card")).to_have_text("+1 gift while away")


WAITING = "(n) => Object.values({...localStorage}).some((kept) => JSON.parse(kept).unshown === n)"


async def test_setup_page_controls_the_overlays_of_its_drive(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page, setup(browser, harness) as controls:
        await controls.get_by_role("button", name="Pause").click()
        harness.push("donation", donation_row(1))
        await until(lambda: page.evaluate(WAITING, 1))
        assert await page.locator(".card").count() == 0
        await controls.get_by_role("button", name="Resume").click()
        await expect(page.locator(".card .name")).to_have_text("Donor 1")
        await controls.get_by_role("button", name="Skip").click()
        await expect(page.locator(".card")).to_have_count(0)
        await controls.get_by_role("button", name="Replay").click()
        await expect(page.locator(".card .name")).to_have_text("Donor 1")


# --- the setup page ---


@asynccontextmanager
async def setup(browser: BrowserContext, harness: Harness, lang: str = "en") -> AsyncIterator[Page]:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter/setup?lang={lang}")
        await expect(page.frame_locator("iframe").locator(".raised")).to_have_attribute(
            "data-value", "4560123.45"
        )
        yield page


async def test_setup_page_builds_the_address_and_previews_it(
    browser: BrowserContext, harness: Harness
) -> None:
    async with setup(browser, harness) as page:
        for part in ("Total", "Goal", "Latest gifts", "Milestones", "Matching"):
            await page.get_by_label(part).uncheck()
        await page.get_by_label("Language").select_option("ar")
        await page.get_by_label("Digits").select_option("arab")
        await page.get_by_label("Theme").select_option("light")
        await page.get_by_label("Layout").select_option("vertical")
        await page.get_by_label("Size").select_option("l")
        address = await page.get_by_label("Address for OBS").input_value()
        wanted = "parts=leaders,alerts&lang=ar&digits=arab&theme=light&layout=vertical&size=l"
        assert address == f"{harness.base}/overlay/winter?{wanted}"
        await expect(page.locator("#source-size")).to_contain_text("1080")
        frame = page.frame_locator("iframe")
        await expect(frame.locator('html[data-layout="vertical"][data-size="l"]')).to_have_count(1)
        await expect(frame.locator(".bar")).to_have_count(0)
        await page.get_by_role("button", name="Copy").click()
        await expect(page.get_by_role("status")).to_have_text("Copied")


async def test_test_alert_reaches_only_the_preview(browser: BrowserContext, harness: Harness) -> None:
    async with overlay(browser, harness) as page, setup(browser, harness) as controls:
        asked: list[str] = []
        controls.on("request", lambda request: asked.append(urlsplit(request.url).path))
        frame = controls.frame_locator("iframe")
        await controls.get_by_role("button", name="Test alert", exact=True).click()
        await controls.get_by_role("button", name="Large test alert").click()
        await expect(frame.locator(".card .name")).to_have_text(["Test donor"] * 2)
        await expect(frame.locator(".card.grand")).to_have_count(1)
        await controls.get_by_role("button", name="Test milestone").click()
        await expect(frame.locator(".reached-title")).to_have_text("A milestone")
        assert not [path for path in asked if not path.endswith(("/totals", "/live", "/events"))]
        # A page that is in no frame, or in the frame of another page, accepts no tests.
        await page.evaluate("postMessage({ alert: { amount: { currency: 'USD', value: '5.00' } } }, '*')")
        harness.push("donation", donation_row(1))
        await expect(page.locator(".card .name")).to_have_text("Donor 1")


@pytest.mark.parametrize("lang", ["ar", "en"])
@pytest.mark.parametrize("width", [320, 768, 1920])
async def test_setup_page_does_not_scroll_sideways(
    browser: BrowserContext, harness: Harness, lang: str, width: int
) -> None:
    harness.totals = drive_totals(title="W" * 80)
    async with tab(browser) as page:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.goto(f"{harness.base}/overlay/winter/setup?lang={lang}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


# --- texts of people ---


async def test_no_text_of_people_becomes_markup_in_any_part(
    browser: BrowserContext, harness: Harness
) -> None:
    leader = {"rank": 1, "creator": "crt_1", "slug": "x", "name": HOSTILE, "raised": usd("5.00")}
    harness.drive = {"impact": [{"label": HOSTILE, "cost": usd("30.00")}]}
    stone = {"title": HOSTILE, "amount": usd("5000000.00"), "reached_at": None}
    harness.totals = drive_totals(
        title={"en": HOSTILE},
        leaders=[leader],
        recent=[donation_row(0, name=HOSTILE)],
        matching=[matching(sponsor=HOSTILE)],
        milestones=[stone],
    )
    async with tab(browser) as page:
        await page.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation',"
            " (event) => window.refused.push(event.violatedDirective))"
        )
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        reached = {**stone, "reached_at": harness.totals["as_of"]}
        harness.push("totals", {**harness.totals, "sequence": SEQUENCE + 1, "milestones": [reached]})
        harness.push("donation", donation_row(1, name=HOSTILE, message=HOSTILE, creator="crt_1"))
        await expect(page.locator(".card .message")).to_have_text(HOSTILE)
        for number in range(2, 40):
            harness.push("donation", donation_row(number, name=HOSTILE))
        for place in (
            ".title",
            ".leader .name",
            ".chip .name",
            ".milestones .what",
            ".reached-title",
            ".match-who .sponsor",
            ".impact .label",
            ".burst-line .name",
        ):
            await expect(page.locator(place).first).to_have_text(HOSTILE)
        assert await page.locator("img").count() == 0
        assert await page.title() != "owned"
        assert await page.evaluate("window.refused") == []


@pytest.mark.parametrize("kind", LONG_NAMES)
@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920)])
async def test_long_names_stay_within_every_part(
    browser: BrowserContext, harness: Harness, kind: str, width: int, height: int
) -> None:
    name = LONG_NAMES[kind]
    leader = {"rank": 1, "creator": "crt_1", "slug": "x", "name": name, "raised": usd("9999999.99")}
    harness.drive = {"impact": [{"label": name * 2, "cost": usd("0.01")}]}
    harness.totals = drive_totals(
        title=name * 2,
        leaders=[leader],
        matching=[matching(sponsor=name * 2)],
        milestones=[{"title": name * 2, "amount": usd("9999999.99"), "reached_at": None}],
    )
    async with tab(browser) as page:
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(f"{harness.base}/overlay/winter?lang=ar")
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        for number in range(1, 20):
            harness.push("donation", donation_row(number, name=name, creator="crt_1", amount=usd("999.99")))
        await expect(page.locator(".card.burst")).to_be_visible()
        found = await page.evaluate(
            """() => [...document.querySelectorAll(".panel, .card, .leader, li, .burst-line, .impact")]
            .filter((one) => one.offsetParent !== null)
            .filter((one) => { const box = one.getBoundingClientRect();
              return box.left < 0 || box.right > innerWidth || one.scrollWidth > one.clientWidth + 1 &&
                getComputedStyle(one).overflowX === "visible" && one.matches("li, p") })
            .map((one) => one.className + " " + one.textContent)"""
        )
        assert found == []


# --- interruptions ---


async def test_overlay_shows_again_by_itself_once_the_server_is_back(browser: BrowserContext) -> None:
    async with tab(browser) as page:
        async with serving_pages(Harness()) as harness:
            port = urlsplit(harness.base).port
            await page.goto(f"{harness.base}/overlay/winter?lang=en")
            await raised(page, "4560123.45")
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "offline")
        totals = drive_totals(sequence=SEQUENCE + 3, raised=usd("4560223.45"))
        rows = [donation_row(number) for number in (1, 2, 3)]
        async with serving_pages(Harness(totals=totals, rows=rows), port or 0) as harness:
            await raised(page, "4560223.45")
            await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")
            await expect(page.locator(".card.missed")).to_have_text("+3 gifts while away")


async def test_overlay_catches_up_after_a_night_of_sleep(browser: BrowserContext, harness: Harness) -> None:
    async with tab(browser) as page:
        # Without a worker the page itself reads the stream, so that its clock is the feed's.
        await page.add_init_script(WITHOUT_WORKER)
        await page.clock.install()
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await until(lambda: harness.stream_queues)
        sent = list(harness.stream_queues)
        harness.stream_status = harness.totals_status = 503
        harness.end_streams()
        await page.clock.fast_forward("08:00:00")
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "offline")
        harness.rows = [donation_row(number) for number in range(1, 501)]
        harness.totals = drive_totals(
            sequence=SEQUENCE + 500, raised=usd("4572623.45"), as_of="2026-01-07T20:00:00Z"
        )
        harness.stream_status = harness.totals_status = 200
        await raised(page, "4572623.45")
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")
        await expect(page.locator(".card.missed")).to_have_text("+500 gifts while away")
        morning = donation_row(501, name="Morning", at="2026-01-07T20:00:01Z")

        async def announced() -> bool:
            for queue in harness.stream_queues:
                if queue not in sent:  # each stream gets the row once: live, or replayed
                    sent.append(queue)
                    queue.put_nowait(frame("donation", morning, morning["sequence"]))
            return await page.locator(".card .name", has_text="Morning").count() == 1

        await until(announced)
