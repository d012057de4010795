"""Every screen of a donation at three widths in both languages, and hostile texts in them, in Chromium."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import BrowserContext, Page, expect

from gateway.pages import OtherCurrency
from gateway.pages.badge import lines_of
from gateway.pages.languages import choose_voice
from gateway.pages.render import badge_svg
from gateway.reach.sources import PARAMETERS
from tests.gateway.pages_harness import KEY, Harness, drive_totals
from tests.gateway.screens import faults
from tests.gateway.test_embed_in_browser import Partner, browser, embed, form_in, sites
from tests.gateway.test_embedded_checkout_in_browser import WITH_SECRET, with_stripe
from tests.gateway.test_pages_in_browser import HOSTILE, OPEN, tab
from tests.waiting import until

__all__ = ["browser", "sites"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEE: Final = {"bps": 290, "fixed": 30, "step": 1}
DESCRIPTION: Final = {
    "en": "Stoves, blankets and winter clothes for families in tents.",
    "ar": "مدافئ وبطانيات وملابس شتوية لعائلات تعيش في الخيام.",
}
NAMES: Final = ("نور الدين", "Omar Plays", "ليلى", "Sara")
Look = Callable[[Page, Harness, str], Awaitable[None]]


def a_drive(ataa: Harness) -> None:
    """The drive with everything that a form can show."""
    ataa.drive = {"zakat_eligible": True, "description": DESCRIPTION}
    ataa.fee = FEE
    ataa.creators = [{"id": f"crt_{n}", "slug": f"c{n}", "name": name} for n, name in enumerate(NAMES)]
    ataa.totals = drive_totals()
    ataa.others = ()
    ataa.embedded_checkout = False
    ataa.pledge_answers.clear()
    ataa.pledge_views.clear()


async def form(page: Page, ataa: Harness, lang: str) -> None:
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")
    await page.check("#cover")


async def form_in_arabic_digits(page: Page, ataa: Harness, lang: str) -> None:
    ataa.drive["test"] = True
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}&digits=arab&creator=c0")
    await page.fill("#message", "م" * 275)


async def with_errors(page: Page, ataa: Harness, lang: str) -> None:
    ataa.listed = 2
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}&creator=gone")
    await page.fill("#amount", "1.234")
    await page.fill("#email", "nobody")
    await page.fill("#message", "x" * 300)
    await page.click("#give")
    await expect(page.locator("#message-error")).not_to_be_empty()
    ataa.listed = 100


async def in_other_currency(page: Page, ataa: Harness, lang: str) -> None:
    """The form in dinars, with a refusal of the currency."""
    ataa.others = (OtherCurrency("KWD", "3.2581", {**FEE, "step": 10}), OtherCurrency("AED", "0.2723", FEE))
    ataa.pledge_answers.append((409, {}, {"type": "/problems/no-exchange-rate"}))
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")
    await page.select_option("#currency", "KWD")
    await page.click("#give")
    await expect(page.locator("#currency-error")).not_to_be_empty()
    await page.fill("#amount", "7.5")


async def refused(page: Page, ataa: Harness, lang: str) -> None:
    ataa.pledge_answers.append((409, {}, {"type": "/problems/drive-closed"}))
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")
    await page.click("#give")
    await expect(page.locator("#problem")).not_to_be_empty()


async def closed(page: Page, ataa: Harness, lang: str) -> None:
    ataa.totals = drive_totals(state="closed")
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")


async def queued(page: Page, ataa: Harness, lang: str) -> None:
    waiting = {**OPEN, "queue": {"position": 123, "eta_seconds": 8}}
    ataa.pledge_answers.append((201, {}, waiting))
    ataa.pledge_views.append((200, {}, waiting))
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")
    await page.click("#give")
    await expect(page.locator("#waiting-queue")).to_contain_text("123")


async def unpaid(page: Page, ataa: Harness, lang: str) -> None:
    """The queued gift of this tab, after a reload."""
    ataa.pledge_views.append((200, {}, OPEN))
    await page.goto(f"{ataa.base}/donate/winter?lang={lang}")
    await expect(page.locator("#resume")).to_be_visible()
    await page.evaluate("sessionStorage.clear()")


async def framed(page: Page, ataa: Harness, lang: str) -> None:
    query = urlencode({"key": KEY, "origin": ataa.frame_origins[0], "lang": lang})
    await page.goto(f"{ataa.base}/embed/winter?{query}")
    await expect(page.locator("#give")).to_be_enabled()


async def pay(page: Page, ataa: Harness, lang: str) -> None:
    ataa.pledge_views.append((200, {}, WITH_SECRET))
    await with_stripe(page)
    await page.goto(f"{ataa.base}/donate/winter/pay?lang={lang}#plg_1.tok")
    await expect(page.locator("#pay")).to_be_visible()
    await page.unroute("https://js.stripe.com/**")


async def pay_blocked(page: Page, ataa: Harness, lang: str) -> None:
    ataa.pledge_views.append((200, {}, WITH_SECRET))
    await with_stripe(page, None)
    await page.goto(f"{ataa.base}/donate/winter/pay?lang={lang}#plg_2.tok")
    await expect(page.locator("#problem")).not_to_be_empty()
    await page.unroute("https://js.stripe.com/**")


def thanks(status: str, outcome: str) -> Look:
    """The thanks page of a pledge with a status."""

    async def look(page: Page, ataa: Harness, lang: str) -> None:
        voice = choose_voice({"lang": lang}, "", None)
        ataa.badge = badge_svg(voice, lines_of(ataa.totals["title"][lang], 2), lines_of(NAMES[0], 1))
        view = {**OPEN, "id": "plg_01kdc2y8q6v5h7m3n9p4r1s2t3", "status": status}
        ataa.pledge_views.append((200, {}, {**view, "created_at": "2026-01-07T12:00:00Z"}))
        await page.goto(f"{ataa.base}/donate/winter/thanks?lang={lang}&pledge=plg_1&token=tok")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", outcome)
        if status == "paid":
            await expect(page.locator("#badge")).to_be_visible()

    return look


LOOKS: Final[dict[str, Look]] = {
    "form": form,
    "digits": form_in_arabic_digits,
    "errors": with_errors,
    "currency": in_other_currency,
    "refused": refused,
    "closed": closed,
    "queued": queued,
    "unpaid": unpaid,
    "framed": framed,
    "pay": pay,
    "paid": thanks("paid", "paid"),
    "pay-blocked": pay_blocked,
    "waiting": thanks("open", "waiting"),
    "lapsed": thanks("lapsed", "lapsed"),
    "refunded": thanks("refunded", "refunded"),
    "unknown": thanks("novel", "unknown"),
}


VARIANTS: Final = (
    "form",
    "digits",
    "refused",
    "closed",
    "unpaid",
    "pay",
    "waiting",
    "lapsed",
    "refunded",
    "unknown",
)
"""Looks that differ from another one in their texts: they are taken with ATAA_SCREENSHOTS only."""


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_each_screen_of_a_donation_at_three_widths(
    browser: BrowserContext, sites: tuple[Harness, Partner], lang: str
) -> None:
    ataa, partner = sites
    found: list[Any] = []
    async with tab(browser) as page:
        for name, look in LOOKS.items():
            if name in VARIANTS and "ATAA_SCREENSHOTS" not in os.environ:
                continue
            a_drive(ataa)
            await look(page, ataa, lang)
            found += await faults(page, f"donate-{name}", lang)
        a_drive(ataa)
    page = await browser.new_page()  # axe's own messages to the frame are console errors
    title = {"en": "Our stream", "ar": "بثّنا المباشر"}[lang]
    partner.html = f"<title>{title}</title><main><h1>{title}</h1>{embed(ataa, lang=lang)}</main>"
    await page.goto(partner.base)
    await page.evaluate(
        "(given) => { Object.assign(document.documentElement, given) }",
        {"lang": lang, "dir": "rtl" if lang == "ar" else "ltr"},
    )
    await expect(form_in(page).locator("#give")).to_be_enabled()
    found += await faults(page, "donate-embed", lang)
    await page.close()
    assert found == []


INSERTED: Final = "document.querySelectorAll('img[src=x], body script').length"
QUERY: Final = dict.fromkeys(("creator", "currency", "digits", "pledge", "token", *PARAMETERS), HOSTILE)


async def test_hostile_texts_of_partners_and_addresses_run_on_no_screen(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, _ = sites
    ataa.totals = drive_totals(title={"en": HOSTILE, "ar": HOSTILE})
    ataa.drive = {"zakat_eligible": True, "description": {"en": HOSTILE, HOSTILE: HOSTILE}}
    ataa.creators = [{"id": f"crt_{n}", "slug": f"c{n}", "name": HOSTILE} for n in range(3)]
    ataa.listed, ataa.others = 1, (OtherCurrency("KWD", "3.2581"),)
    ataa.pledge_views.append((200, {}, {**OPEN, "id": HOSTILE, "status": HOSTILE, "created_at": HOSTILE}))
    hosted = {**QUERY, "lang": "en"}
    framed_query = {**hosted, "key": KEY, "origin": ataa.frame_origins[0]}
    async with tab(browser) as page:
        for path, query in (("/donate/winter", hosted), ("/embed/winter", framed_query)):
            for screen in ("", "/thanks", "/pay"):
                # The form of a pledge that cannot be read is where /pay leads.
                await page.goto(f"{ataa.base}{path}{screen}?{urlencode(query)}#{HOSTILE}")
                await page.wait_for_load_state("networkidle")
                assert await page.evaluate(INSERTED) == 0, path + screen
                assert await page.title() != "owned", path + screen
        await page.goto(f"{ataa.base}/donate/winter?lang=en")
        await page.fill("#find", "onerror")
        await expect(page.locator("#creator option")).to_have_count(4)
        for status, problem in (
            (422, {"type": HOSTILE, "detail": HOSTILE, "errors": [{"pointer": HOSTILE, "detail": HOSTILE}]}),
            (418, {"type": HOSTILE, "title": HOSTILE}),
        ):
            ataa.pledge_answers.clear()
            ataa.pledge_answers.append((status, {}, problem))
            await page.click("#give")
            await expect(page.locator("#problem")).not_to_be_empty()
        assert await page.evaluate(INSERTED) == 0
        assert await page.title() != "owned"


async def test_hostile_attributes_addresses_and_messages_run_nothing_on_a_partners_page(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    quoted = HOSTILE.replace('"', "&quot;")
    partner.html = embed(ataa, creator=quoted, lang=quoted)
    async with tab(browser) as page:
        await page.goto(f"{partner.base}/?{urlencode({'ataa': HOSTILE, 'x': HOSTILE})}#{HOSTILE}")
        await expect(form_in(page).locator("#give")).to_be_enabled()
        await page.frames[1].evaluate(
            """(text) => {
              for (const ataa of ["height", "checkout", "ready", "pledged", "paid", "closed", text])
                parent.postMessage({ ataa, height: text, url: text, pledge: text }, "*");
              parent.postMessage(text, "*");
            }""",
            HOSTILE,
        )
        await until(lambda: page.evaluate("seen.some(([name]) => name === 'closed')"))
        for frame in page.frames:
            assert await frame.evaluate("document.querySelectorAll('img').length") == 0
            assert await frame.evaluate("document.title") != "owned"
