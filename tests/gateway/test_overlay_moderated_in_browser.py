"""What moderators do, on the overlay: pinned messages, alerts that follow decisions, controls of alerts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect

from tests.gateway.pages_harness import SEQUENCE, Harness, donation_row, drive_totals, usd
from tests.gateway.test_overlay_parts_in_browser import WAITING, browser, harness, overlay, setup
from tests.gateway.test_pages_in_browser import HOSTILE, raised, tab
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

__all__ = ["browser", "harness"]

AT = drive_totals()["as_of"]
LONG_AGO = "2026-01-07T11:59:00Z"
EN_NAME, AR_NAME = "The Khatib family of Amman", "عائلة الخطيب من عمّان"
EN_TEXT = (
    "For the children of Idlib: may this winter be the last cold one, may every tent have a stove, and every "
    "mother sleep through the night. From the third grade of our school in Amman, with all our love."
)
AR_TEXT = "اللهم بارك لهم في شتائهم، ودفّئ قلوبهم وبيوتهم. من أطفال الصف الثالث في عمّان، مع كل الحب والدعاء"


def gift(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A donation as totals show it."""
    row = donation_row(number, **changes)
    return {name: row[name] for name in ("id", "name", "message", "amount", "creator", "at")}


def alerts(version: int, *, paused: bool = False, **made: Any) -> dict[str, Any]:
    return {"version": version, "paused": paused, "skip": None, "replay": None, **made}


def show(harness: Harness, later: int, **changes: Any) -> None:
    """Push totals, with a sequence that is `later`, and answer with them from now on."""
    harness.totals = drive_totals(sequence=SEQUENCE + later, **changes)
    harness.push("totals", harness.totals)


# --- the pinned message ---


async def test_pinned_message_is_shown_until_it_is_not(browser: BrowserContext, harness: Harness) -> None:
    async with overlay(browser, harness) as page:
        await expect(page.locator(".pinned")).to_be_hidden()
        show(harness, 1, pinned=gift(message=HOSTILE, name=HOSTILE))
        await expect(page.locator(".pinned .pinned-message")).to_have_text(HOSTILE)
        await expect(page.locator(".pinned .name")).to_have_text(HOSTILE)
        await expect(page.locator(".pinned .money")).to_have_text("$25")
        assert await page.locator(".pinned img, .pinned script").count() == 0
        assert await page.title() != "owned"
        show(harness, 2, pinned=gift(message=None, name=None))
        await expect(page.locator(".pinned")).to_have_text("Pinned giftAnonymous$25")
        await page.keyboard.press("s")  # skips alerts only
        await expect(page.locator(".pinned")).to_be_visible()
        show(harness, 3, pinned=None)
        await expect(page.locator(".pinned")).to_be_hidden()
        assert await page.locator(".pinned").text_content() == ""


async def test_totals_of_an_older_leaderboard_show_nothing_pinned(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page:
        show(harness, 1, pinned=gift(), alerts=alerts(1))
        await expect(page.locator(".pinned")).to_be_visible()
        show(harness, 2)
        await expect(page.locator(".pinned")).to_be_hidden()


SIZES = [(1920, 1080), (1080, 1920), (320, 640)]


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_pinned_message_fits_beside_alerts(
    browser: BrowserContext, harness: Harness, lang: str
) -> None:
    name, text = (AR_NAME, AR_TEXT) if lang == "ar" else (EN_NAME, EN_TEXT)
    title = {"en": "Half way", "ar": "منتصف الطريق"}
    stone = {"title": title, "amount": usd("5000000.00"), "reached_at": None}
    leaders = [
        {"rank": n, "creator": f"crt_{n}", "slug": "c", "name": f"Creator {n}", "raised": usd(f"{9 - n}.00")}
        for n in range(1, 6)
    ]
    harness.totals = drive_totals(
        leaders=leaders, milestones=[stone], pinned=gift(name=name, message=text, amount=usd("1250.00"))
    )
    async with overlay(browser, harness, f"lang={lang}&digits={'arab' if lang == 'ar' else 'latn'}") as page:
        for number, (width, height) in enumerate(SIZES, 1):
            await page.set_viewport_size({"width": width, "height": height})
            harness.push("donation", donation_row(number, name=name, message=text[:80]))
            await expect(page.locator(".card").last).to_be_visible()
            await page.evaluate(DRAWN)
            box = await page.locator(".pinned").bounding_box()
            assert box is not None
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= height
            overlaps = await page.evaluate(OVERLAPS)
            assert overlaps == [], (width, height)
            if folder := os.environ.get("ATAA_SCREENSHOTS"):
                await page.evaluate("document.documentElement.style.background = '#3b5560'")
                await page.screenshot(path=Path(folder) / f"overlay-pinned-{lang}-{width}x{height}.png")


DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"
OVERLAPS = """() => { const pinned = document.querySelector(".pinned").getBoundingClientRect();
  return [...document.querySelectorAll(".bar, .goal, .boards, .ticker")]
    .filter((one) => { const box = one.getBoundingClientRect();
      const beside = box.right <= pinned.left || pinned.right <= box.left;
      return !beside && box.top < pinned.bottom && pinned.top < box.bottom })
    .map((one) => one.className) }"""


# --- alerts follow decisions ---


async def test_alert_on_the_screen_and_its_replay_follow_a_decision(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page:
        harness.push("donation", donation_row(1, message="Rude"))
        await expect(page.locator(".card .message")).to_have_text("Rude")
        show(harness, 1, recent=[gift(name=None, message=None)])
        await expect(page.locator(".card .name")).to_have_text("Anonymous")
        await expect(page.locator(".card .message")).to_have_count(0)
        await page.keyboard.press("s")
        await expect(page.locator(".card")).to_have_count(0)
        await page.keyboard.press("r")
        await expect(page.locator(".card .name")).to_have_text("Anonymous")


async def test_alert_that_waits_is_shown_as_it_was_decided_meanwhile(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page:
        await page.keyboard.press("p")
        harness.push("donation", donation_row(1, name=None, message=None))
        await until(lambda: page.evaluate(WAITING, 1))
        show(harness, 1, recent=[gift(message="Approved")])
        await raised(page, "4560123.45")
        await page.keyboard.press("p")
        await expect(page.locator(".card .message")).to_have_text("Approved")


# --- the desk's controls ---


async def test_desk_pauses_and_resumes_and_what_waited_is_shown_once(
    browser: BrowserContext, harness: Harness
) -> None:
    async with overlay(browser, harness) as page:
        show(harness, 0, alerts=alerts(1, paused=True))
        harness.push("donation", donation_row(1))
        await until(lambda: page.evaluate(WAITING, 1))
        assert await page.locator(".card").count() == 0
        show(harness, 2, alerts=alerts(2))
        await expect(page.locator(".card .name")).to_have_text("Donor 1")
        show(harness, 3, alerts=alerts(2))
        harness.push("donation", donation_row(4))
        await expect(page.locator(".card .name")).to_have_text(["Donor 1", "Donor 4"])


async def test_pause_of_the_desk_holds_in_a_browser_that_never_saw_the_drive(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(alerts=alerts(7, paused=True))
    async with overlay(browser, harness) as page:
        harness.push("donation", donation_row(1))
        await until(lambda: page.evaluate(WAITING, 1))
        assert await page.locator(".card").count() == 0
        harness.totals = drive_totals(sequence=SEQUENCE + 1, alerts=alerts(7, paused=True))
        await page.reload()
        await raised(page, "4560123.45")
        await until(lambda: page.evaluate(WAITING, 1))
        assert await page.locator(".card").count() == 0
        show(harness, 2, alerts=alerts(8))
        await expect(page.locator(".card")).to_have_text("+1 gift while away")


async def test_newest_of_the_desks_and_the_streamers_commands_counts(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(alerts=alerts(1, paused=True))
    async with overlay(browser, harness) as page, setup(browser, harness) as controls:
        await expect(controls.locator("#pause")).to_have_text("Resume")
        await page.keyboard.press("p")
        await expect(controls.locator("#pause")).to_have_text("Pause")
        harness.push("donation", donation_row(1))
        await expect(page.locator(".card .name")).to_have_text("Donor 1")
        show(harness, 2, alerts=alerts(1, paused=True))  # an old command is not repeated
        harness.push("donation", donation_row(3))
        await expect(page.locator(".card")).to_have_count(2)
        show(harness, 4, alerts=alerts(3, paused=True))
        await expect(controls.locator("#pause")).to_have_text("Resume")
        harness.push("donation", donation_row(5))
        await until(lambda: page.evaluate(WAITING, 1))


async def test_skip_and_replay_of_the_desk_act_once_and_only_while_they_are_new(
    browser: BrowserContext, harness: Harness
) -> None:
    before = {"version": 2, "at": AT, "donation": gift(9)}
    harness.totals = drive_totals(alerts=alerts(2, skip={"version": 1, "at": AT}, replay=before))
    async with overlay(browser, harness) as page:
        harness.push("donation", donation_row(1))
        await expect(page.locator(".card .name")).to_have_text("Donor 1")  # and no replay from before
        show(harness, 1, alerts=alerts(3, skip={"version": 3, "at": AT}, replay=before))
        await expect(page.locator(".card")).to_have_count(0)
        # Its donation's texts came later than the version.
        show(harness, 2, alerts=alerts(4))
        again = {"version": 4, "at": AT, "donation": gift(8, name="Huda", message="Salam")}
        show(harness, 3, alerts=alerts(4, replay=again))
        await expect(page.locator(".card .message")).to_have_text("Salam")
        show(harness, 4, alerts=alerts(4, replay=again))
        last = {"version": 5, "at": AT, "donation": None}
        show(harness, 5, alerts=alerts(5, replay=last))
        await expect(page.locator(".card .name")).to_have_text(["Huda", "Huda"])
        late = {"version": 6, "at": LONG_AGO, "donation": gift(7)}
        show(harness, 6, alerts=alerts(6, replay=late))
        harness.push("donation", donation_row(7, name="Last"))
        await expect(page.locator(".card .name")).to_have_text(["Huda", "Huda", "Last"])


async def test_replay_after_a_reload_shows_the_newest_donation(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(recent=[gift(0, name="Layla")])
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await page.keyboard.press("r")
        await expect(page.locator(".card .name")).to_have_text("Layla")


LONGER_THAN_A_CARD_WAITS = "() => new Promise((done) => setTimeout(done, 2_000))"


async def test_desk_pauses_every_overlay_of_a_browser(browser: BrowserContext, harness: Harness) -> None:
    async with (
        overlay(browser, harness) as page,
        overlay(browser, harness, "lang=en&parts=alerts,bar") as other,
    ):
        show(harness, 1, alerts=alerts(1, paused=True))
        for one in (page, other):
            await raised(one, "4560123.45")
        harness.push("donation", donation_row(1))
        for one in (page, other):
            await until(lambda one=one: one.evaluate(WAITING, 1))  # type: ignore[misc]
            await one.evaluate(LONGER_THAN_A_CARD_WAITS)
            assert await one.locator(".card").count() == 0
        show(harness, 2, alerts=alerts(2))
        for one in (page, other):
            await expect(one.locator(".card .name")).to_have_text("Donor 1")


# --- the ticker follows decisions ---


@pytest.mark.parametrize("number", [2, 8], ids=["standing", "moving"])
async def test_ticker_follows_a_decision_about_a_name(
    browser: BrowserContext, harness: Harness, number: int
) -> None:
    harness.totals = drive_totals(recent=[gift(n, name=f"Rude {n}") for n in range(number)])
    async with overlay(browser, harness, "lang=en&parts=ticker,bar") as page:
        await expect(page.locator(".chip .name").first).to_have_text("Rude 0")
        hidden = [gift(n, name=None, message=None) for n in range(number)]
        show(harness, 1, recent=hidden)
        await expect(page.locator(".chip .name", has_text="Anonymous").first).to_be_visible()
        await expect(page.locator(".chip .name", has_text="Rude")).to_have_count(0)
