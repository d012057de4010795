"""Donors who come back unpaid, who come from somewhere, and whose browser or network is poor, in Chromium."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from services.payments.stripe.return_addresses import unpaid_address
from tests.gateway.pages_harness import Harness, usd
from tests.gateway.test_embed_in_browser import Partner, browser, form_in, sites
from tests.gateway.test_embedded_checkout_in_browser import WITH_SECRET, with_stripe
from tests.gateway.test_pages_in_browser import OPEN, creators, harness, tab, with_checkout
from tests.waiting import PATIENCE_S, until

__all__ = ["browser", "harness", "sites"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN: Final = {"platform": "TikTok", "utm_campaign": "Winter night", "referrer": "https://news.example/x"}
SOURCE: Final = {"platform": "tiktok", "campaign": "winter-night", "referrer": "https://news.example"}


async def fields(page: Page) -> dict[str, Any]:
    """The form's fields by name; a group of radio buttons has the checked one's value."""
    found: dict[str, Any] = await page.evaluate(
        "Object.fromEntries(new FormData(document.getElementById('form')))"
    )
    return found


async def test_a_donor_who_does_not_pay_finds_the_form_as_it_was_left(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.drive, harness.fee = {"zakat_eligible": True}, {"bps": 290, "fixed": 30, "step": 1}
    harness.creators = creators(205)
    harness.pledge_answers.append((201, {}, with_checkout(harness, amount=usd("7.52"))))
    harness.pledge_views.append((200, {}, with_checkout(harness, amount=usd("7.52"))))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?{urlencode({'lang': 'ar', **ORIGIN})}")
        await page.fill("#amount", "٧")
        await page.check("#cover")
        await page.get_by_role("radio", name="صدقة").check()
        await page.fill("#name", "ليلى")
        await page.check("#anonymous")
        await page.fill("#message", "دفئًا وسلامًا")
        await page.fill("#find", "creator 204")
        await page.select_option("#creator", "crt_204")
        left = await fields(page)
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        sent = harness.pledge_requests[0]["body"]
        # The address to which Stripe's page leads back.
        await page.goto(unpaid_address(sent["return_url"], "", "winter"))
        await expect(page.locator("#resume-text")).to_contain_text("7.52")
        await expect(page.locator(".creator")).to_have_text("تتبرع مع Creator 204")  # the address names it
        assert await fields(page) == {name: value for name, value in left.items() if name != "creator"}
        assert await page.locator("#cover").is_checked()
        await expect(page.locator("#give")).to_contain_text("7.52")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        # Unchanged, it is the same gift.
        first, again = harness.pledge_requests
        assert first["headers"]["idempotency-key"] == again["headers"]["idempotency-key"]
        await page.goto(unpaid_address(sent["return_url"], "", "winter"))
        await page.click("#resume-no")
        await expect(page.locator("#give")).to_contain_text("25")
        assert not await page.locator("#cover").is_checked()
        assert await page.input_value("#name") == ""


async def test_what_the_donor_typed_since_is_not_replaced_by_what_was_sent(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.fill("#name", "Sara")
        await page.click("#give")
        await page.wait_for_url("**/checkout")

        async def type_first(route: Any) -> None:
            await page.fill("#name", "Omar")
            await route.continue_()

        await page.route("**/v1/pledges/**", type_first)
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await expect(page.locator("#resume")).to_be_visible()
        assert await page.input_value("#name") == "Omar"
        await page.click("#resume-no")
        assert await page.input_value("#name") == "Omar"


async def test_the_source_and_the_digits_are_kept_from_the_form_to_the_next_gift(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.embedded_checkout = True
    harness.creators = creators(1)
    harness.pledge_answers.append((201, {}, WITH_SECRET))
    harness.pledge_views.append((200, {}, WITH_SECRET))
    start = {"lang": "ar", "digits": "arab", "creator": "c0", **ORIGIN}
    kept = {**SOURCE, "lang": "ar", "digits": "arab", "creator": "crt_0"}

    def place(page: Page) -> tuple[str, dict[str, str]]:
        parts = urlsplit(page.url)
        return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}

    async with tab(browser) as page:
        await with_stripe(page)
        await page.goto(f"{harness.base}/donate/winter?{urlencode(start)}")
        await page.click("#give")
        await expect(page.locator("#pay")).to_be_visible()
        assert place(page) == ("/donate/winter/pay", kept)
        await page.get_by_role("link", name="العودة إلى النموذج").click()
        await expect(page.locator("#resume-text")).to_contain_text("٢٥")
        assert place(page) == ("/donate/winter", kept)
        await page.click("#resume-no")
        await page.fill("#amount", "30")
        await page.click("#give")
        await expect(page.locator("#pay")).to_be_visible()
        harness.pledge_views.clear()
        harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
        await page.goto(harness.pledge_requests[1]["body"]["return_url"])
        await expect(page.locator("#amount")).to_contain_text("٢٥")
        assert place(page) == ("/donate/winter/thanks", kept)
        await page.click(".choices a")
        await expect(page.locator("#give")).to_be_enabled()
        assert place(page) == ("/donate/winter", kept)
    assert [sent["body"]["source"] for sent in harness.pledge_requests] == [SOURCE, SOURCE]


async def test_a_partners_page_with_a_long_address_returns_the_donor_to_our_thanks_page(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(f"{partner.base}/watch?token={'x' * 2048}")
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
    assert ataa.pledge_requests[0]["body"]["return_url"] == f"{ataa.base}/donate/winter/thanks?lang=en"


async def test_a_donor_of_a_partners_page_who_does_not_pay_finds_the_form_there(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    ataa.pledge_views.append((200, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(f"{partner.base}/watch?stream=7#chat")
        await form_in(page).locator("#name").fill("Sara")
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
        await page.goto(unpaid_address(ataa.pledge_requests[0]["body"]["return_url"], "", "winter"))
        assert page.url == f"{partner.base}/watch?stream=7#chat"
        await expect(form_in(page).locator("#resume-text")).to_have_text("Your gift of $25 is not paid yet.")
        await expect(form_in(page).locator("#name")).to_have_value("Sara")


ANDROID: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/116.0.0.0 Mobile Safari/537.36"
IN_APP: Final = {
    "instagram": f"Mozilla/5.0 (Linux; Android 13; SM-A145F; wv) {ANDROID} Instagram 300.0.0.29.110 Android",
    "tiktok": f"Mozilla/5.0 (Linux; Android 12; RMX3231; wv) {ANDROID} trill_310503 BytedanceWebview/d8a21c6",
}
REFUSE_EVERYTHING: Final = """
for (const name of ["sessionStorage", "localStorage", "indexedDB", "caches"])
  Object.defineProperty(window, name, { get() { throw new DOMException("blocked", "SecurityError") } });
const blocked = () => { throw new Error("blocked") };
Object.defineProperty(Document.prototype, "cookie", { get: blocked, set: blocked });
window.open = () => { throw new Error("no popups") };
crypto.randomUUID = navigator.share = navigator.sendBeacon = undefined;
"""


@pytest.mark.parametrize("app", IN_APP)
async def test_a_gift_inside_an_app_that_refuses_storage_cookies_and_popups(
    browser: BrowserContext, sites: tuple[Harness, Partner], app: str
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    ataa.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    launched = browser.browser
    assert isinstance(launched, Browser)
    phone = await launched.new_context(
        user_agent=IN_APP[app], viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True
    )
    partners = f"location.port === '{urlsplit(partner.base).port}'"
    await phone.add_init_script(f"if (!({partners})) {{ {REFUSE_EVERYTHING} }}")
    for address in (f"{ataa.base}/donate/winter?lang=ar", f"{partner.base}/stream"):
        async with tab(phone) as page:
            await page.goto(address)
            form = page if address.startswith(ataa.base) else form_in(page)
            await form.locator("#amount").fill("١٠")
            await form.locator("#give").tap()
            await page.wait_for_url("**/checkout")
            assert len(phone.pages) == 1
            await page.goto(ataa.pledge_requests[-1]["body"]["return_url"])
            await expect(form.locator("#outcome")).to_have_attribute("data-status", "unknown")
            await page.goto(f"{ataa.base}/donate/winter/thanks?lang=ar&pledge=plg_1&token=tok")
            await expect(page.locator("#share")).to_be_visible()
    assert [sent["body"]["amount"] for sent in ataa.pledge_requests] == [usd("10.00")] * 2
    assert await phone.cookies() == []
    await phone.close()


SLOW_3G: Final = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}


async def test_progress_is_shown_on_a_slow_connection(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        session = await page.context.new_cdp_session(page)
        await session.send("Network.emulateNetworkConditions", SLOW_3G)
        await page.add_init_script(
            """addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
              shown.push(document.getElementById("status").textContent);
              sessionStorage.shown = JSON.stringify(shown);
            }).observe(document.getElementById("status") ?? document.body, { childList: true }));
            const shown = [];"""
        )
        await page.goto(f"{harness.base}/donate/winter?lang=en", wait_until="commit")
        # The form is written by the server: it is there to fill in before any script.
        await page.fill("#name", "Sara")
        await page.click("#give")  # enabled once the script runs
        await page.wait_for_url("**/checkout")
        assert json.loads(await page.evaluate("sessionStorage.shown"))[:2] == [
            "Keeping your gift safe…", "Opening the payment page…"
        ]  # fmt: skip
        await session.detach()
    assert harness.pledge_requests[0]["body"]["donor"]["name"] == "Sara"


async def test_a_form_whose_script_does_not_arrive_says_so(browser: BrowserContext, harness: Harness) -> None:
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    await page.route("**/form_page.js", lambda route: route.abort())
    await page.goto(f"{harness.base}/donate/winter?lang=ar")
    notice = page.locator(".still-loading")
    await expect(notice).not_to_be_visible()
    await notice.evaluate("(one) => one.getAnimations()[0].finish()")  # six seconds later
    await expect(notice).to_be_visible()
    await expect(page.locator("#give")).to_be_disabled()
    await page.close()


async def test_a_receipt_is_shown_with_the_paid_gift(browser: BrowserContext, harness: Harness) -> None:
    view = {**OPEN, "status": "paid", "created_at": "2026-01-07T12:00:00Z"}
    harness.pledge_views.append((200, {}, OPEN))
    harness.pledge_views.append((200, {}, view))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=ar&digits=arab&pledge=plg_1&token=tok")
        await expect(page.locator("#receipt")).to_be_visible()
        assert await page.locator("#gift-number").inner_text() == "plg_1"
        assert await page.locator("#gift-date").inner_text() == "٧ يناير ٢٠٢٦"
        await until(lambda: page.evaluate("!document.getElementById('share').hidden"))


async def test_no_other_gift_is_offered_while_a_payment_is_processed(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_views.append((200, {}, OPEN))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en&pledge=plg_1&token=tok")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "waiting")
        await expect(page.get_by_role("link", name="Give again")).to_be_hidden()


async def test_the_source_in_the_address_of_a_partners_page_is_the_gifts(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(f"{partner.base}/watch?stream=7&{urlencode({**ORIGIN, 'key': 'x', 'lang': 'fr'})}")
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
    assert ataa.pledge_requests[0]["body"]["source"] == SOURCE
