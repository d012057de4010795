"""The moderation desk in a real Chromium, with two moderators at once, on the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, expect

from gateway.desk.translations import TRANSLATIONS
from tests.gateway.harness import ADMIN
from tests.gateway.screens import faults
from tests.gateway.test_desk import a_message, api
from tests.gateway.test_pages_in_browser import HOSTILE, browser, tab
from tests.gateway.whole_system import WholeSystem, whole_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

__all__ = ["browser"]

EN, AR = TRANSLATIONS["en"], TRANSLATIONS["ar"]


@pytest_asyncio.fixture(loop_scope="module")
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path) as found:
        yield found


@asynccontextmanager
async def desk(
    window: BrowserContext, system: WholeSystem, name: str, lang: str = "en"
) -> AsyncIterator[Page]:
    """A moderator's page in a window with cookies of its own, after the login."""
    assert window.browser is not None
    own = await window.browser.new_context(reduced_motion="reduce")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(own.close)
        page = await stack.enter_async_context(tab(own))
        await page.goto(f"{system.url}/moderate/winter?lang={lang}")
        await page.fill("#key", ADMIN)
        await page.click("button.button")
        await page.fill("#name", name)
        await page.locator("#name").blur()
        yield page


def named(text: str, *names: str) -> str:
    """A text of the desk with names, each isolated from the direction of the text around it."""
    return text.format(name="\u2068" + " · ".join(f"\u2068{name}\u2069" for name in names) + "\u2069")


def item(page: Page, pledge: str) -> str:
    return f'#messages > li[data-pledge="{pledge}"]'


async def test_two_moderators_decide_by_keyboard_and_see_each_other(
    browser: BrowserContext, system: WholeSystem
) -> None:
    first = await a_message(system, "Layla")
    async with desk(browser, system, "Sara") as sara, desk(browser, system, "عمر", "ar") as omar:
        await expect(sara.locator(item(sara, first))).to_be_visible()
        await expect(omar.locator("html")).to_have_attribute("dir", "rtl")
        # Each sees that the other looks at the message.
        looking = f"{item(omar, first)} .looking"
        await expect(omar.locator(looking)).to_have_text(named(AR["looking"], "Sara"))
        await expect(sara.locator(f"{item(sara, first)} .looking")).to_have_text(named(EN["looking"], "عمر"))
        # A new message appears by itself, and another moderator's decision too.
        second = await a_message(system, "Huda")
        await expect(sara.locator(item(sara, second))).to_be_visible()
        await sara.locator(item(sara, first)).focus()
        await sara.keyboard.press("a")
        await expect(sara.locator("#notice")).to_have_text(named(EN["looking_ask"], "عمر"))
        await sara.keyboard.press("a")
        await expect(sara.locator(item(sara, first))).to_have_count(0)
        await expect(omar.locator(item(omar, first))).to_have_count(0)
        await expect(omar.locator("#notice")).to_have_text(
            AR["other_approved"].format(name="\u2068Sara\u2069")
        )
        # The same keys on an Arabic keyboard: "ع" is where "u" is, "ا" where "h" is.
        await sara.keyboard.press("u")
        await expect(sara.locator(item(sara, first))).to_be_visible()
        await expect(sara.locator("#notice")).to_have_text(EN["mine_held"])
        await sara.locator('[data-state="hidden"]').click()
        await expect(sara.locator("#empty")).to_have_text(EN["empty_hidden"])
        await expect(omar.locator(f"{item(omar, second)} .looking")).to_be_hidden()
        await omar.locator(item(omar, second)).focus()
        await omar.evaluate(
            "document.body.dispatchEvent(new KeyboardEvent('keydown',"
            " { key: 'ا', code: 'KeyH', bubbles: true }))"
        )
        await expect(omar.locator(item(omar, second))).to_have_count(0)
        await expect(sara.locator(item(sara, second))).to_be_visible()


async def test_conflict_is_told_and_the_newest_state_shown(
    browser: BrowserContext, system: WholeSystem
) -> None:
    pledge = await a_message(system, "Layla")
    async with desk(browser, system, "Sara") as page:
        await expect(page.locator(item(page, pledge))).to_be_visible()
        await page.route("**/messages?*", lambda route: route.abort())  # its polls no longer arrive
        await expect(page.locator("#offline")).to_be_visible()
        await expect(page.locator("#offline")).to_have_text(EN["offline"])
        assert (await api(system, "POST", f"/v1/messages/{pledge}/approve", {}))[0] == 200
        await page.locator(item(page, pledge)).focus()
        await page.keyboard.press("h")
        await expect(page.locator("#notice")).to_have_text(EN["conflict"])
        await expect(page.locator("#offline")).to_be_visible()  # the failing polls do not replace the answer
        await page.unroute("**/messages?*")
        await expect(page.locator("#offline")).to_be_hidden()
        await expect(page.locator(item(page, pledge))).to_have_count(0)
        status, history = await api(system, "GET", f"/v1/messages/{pledge}/history")
        assert (status, [one["to"] for one in history["data"]]) == (200, ["held", "approved"])


async def test_hostile_texts_are_shown_as_text_on_the_desk(
    browser: BrowserContext, system: WholeSystem
) -> None:
    """The tab fails the test on any refusal of the content policy."""
    pledge = await a_message(system, HOSTILE[:100])
    await api(system, "PATCH", "/v1/drives/winter", {"title": HOSTILE})
    async with desk(browser, system, HOSTILE[:40]) as page, desk(browser, system, HOSTILE[:40]) as other:
        await expect(page.locator(f"{item(page, pledge)} .name")).to_have_text(HOSTILE[:100])
        await expect(other.locator("#others")).to_contain_text(HOSTILE[:40].strip())
        toggle = page.locator(f'{item(page, pledge)} [data-action="history"]')
        await toggle.evaluate("(button) => { button.click(); button.click(); button.click() }")
        await expect(page.locator(f"{item(page, pledge)} .history li")).to_have_count(1)
        assert await page.locator("#messages img, #messages script").count() == 0
        assert "owned" not in (await page.title()).replace(HOSTILE, "")


async def test_help_is_a_dialog_and_keys_in_it_decide_nothing(
    browser: BrowserContext, system: WholeSystem
) -> None:
    pledge = await a_message(system, "Layla")
    async with desk(browser, system, "Sara") as page:
        await expect(page.locator(item(page, pledge))).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.locator("#keys")).to_be_visible()
        await page.keyboard.press("h")
        await page.keyboard.press("Escape")
        await expect(page.locator("#keys")).not_to_be_visible()
        await expect(page.locator(item(page, pledge))).to_be_visible()
        await page.fill("#name", "haha")  # typing decides nothing either
        await expect(page.locator(item(page, pledge))).to_be_visible()


MESSAGES = (
    ("Layla", "Call me: 050 123 4567"),
    ("عبد الرحمن بن خالد", "كل عام وأنتم بخير، تابعوا قناتي evil.com"),
    ("W" * 40, "﷽ " + "شكرًا لكم جميعًا " * 12 + "t.me/evil"),
    ("👩‍👩‍👧 Sara", "fuck"),
)


async def test_every_look_is_accessible_at_every_width(browser: BrowserContext, system: WholeSystem) -> None:
    found = []
    for lang, say in TRANSLATIONS.items():
        async with desk(browser, system, "Huda", lang) as page:
            await expect(page.locator("#empty")).to_have_text(say["empty_held"])
            found += await faults(page, "desk-empty", lang)
            made = [await a_message(system, name, message) for name, message in MESSAGES]
            await expect(page.locator(item(page, made[-1]))).to_be_visible()
            async with desk(browser, system, "عمر", lang) as other:
                await other.locator(item(other, made[1])).click()
                looking = page.locator(f"{item(page, made[1])} .looking")
                await expect(looking).to_have_text(named(say["looking"], "عمر"))
                found += await faults(page, "desk-full", lang)
            await page.locator(f'{item(page, made[0])} [data-action="history"]').click()
            await expect(page.locator(f"{item(page, made[0])} .history li")).to_have_count(1)
            found += await faults(page, "desk-history", lang)
            await page.locator("#help").click()
            found += await faults(page, "desk-help", lang)
            await page.keyboard.press("Escape")
            await page.route("**/messages?*", lambda route: route.abort())
            await expect(page.locator("#offline")).to_be_visible()
            await api(system, "POST", f"/v1/messages/{made[0]}/approve", {})
            await page.locator(f'{item(page, made[0])} [data-action="hide"]').click()
            await expect(page.locator("#notice")).to_have_text(say["conflict"])
            found += await faults(page, "desk-conflict-offline", lang)
            for one in made:
                await api(system, "POST", f"/v1/messages/{one}/hide", {})
        window = await browser.browser.new_context(reduced_motion="reduce")  # type: ignore[union-attr]
        async with tab(window) as page:
            await page.goto(f"{system.url}/moderate/winter?lang={lang}")
            found += await faults(page, "desk-login", lang)
        await window.close()
    assert found == []


async def test_undo_does_not_show_a_link_that_the_filters_had_not_shown(
    browser: BrowserContext, system: WholeSystem
) -> None:
    await api(system, "PATCH", "/v1/drives/winter", {"moderation": {"mode": "off"}})
    pledge = await a_message(system, "See evil-shop.com now")
    async with desk(browser, system, "Sara") as page:
        await page.locator('[data-state="approved"]').click()
        await expect(page.locator(item(page, pledge))).to_be_visible()
        await page.locator(item(page, pledge)).focus()
        for key, notice in (("h", EN["mine_hidden"]), ("u", EN["mine_held"])):
            await page.keyboard.press(key)
            await expect(page.locator("#notice")).to_have_text(notice)
    _, history = await api(system, "GET", f"/v1/messages/{pledge}/history")
    assert [one["to"] for one in history["data"]] == ["approved", "hidden", "held"]


async def test_undo_by_keyboard_never_overwrites_another_moderator(
    browser: BrowserContext, system: WholeSystem
) -> None:
    """A repeat of the other's decision is not undone; a decision that the other changed since is refused."""
    first, second = await a_message(system, "Layla"), await a_message(system, "Huda")
    async with desk(browser, system, "Sara") as sara:
        await expect(sara.locator(item(sara, first))).to_be_visible()
        await sara.route("**/messages?*", lambda route: route.abort())  # so that she acts on what she saw
        await expect(sara.locator("#offline")).to_be_visible()
        approved = {"seen_version": 0, "moderator": "Omar"}
        assert (await api(system, "POST", f"/v1/messages/{first}/approve", approved))[0] == 200
        await sara.locator(item(sara, first)).focus()
        await sara.keyboard.press("a")
        await expect(sara.locator("#notice")).to_have_text(EN["mine_approved"])
        await sara.keyboard.press("u")
        await expect(sara.locator("#notice")).to_have_text(EN["nothing_to_undo"])
        # The focus went on to the next message.
        await expect(sara.locator(item(sara, second))).to_be_focused()
        await sara.keyboard.press("h")
        await expect(sara.locator("#notice")).to_have_text(EN["mine_hidden"])
        assert (await api(system, "POST", f"/v1/messages/{second}/pin", {}))[0] == 200
        await sara.keyboard.press("u")
        await expect(sara.locator("#notice")).to_have_text(EN["conflict"])
    for pledge, steps in ((first, ["held", "approved"]), (second, ["held", "hidden", "pinned"])):
        _, history = await api(system, "GET", f"/v1/messages/{pledge}/history")
        assert [one["to"] for one in history["data"]] == steps
    assert history["data"][1]["moderator"] == "Sara"
