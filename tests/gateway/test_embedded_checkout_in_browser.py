"""Stripe's embedded Checkout on a page of the form, in Chromium, with a fake of Stripe.js.

Stripe's own script is not loaded: https://docs.stripe.com/js/embedded_checkout describes what the fake does.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.gateway.pages_harness import KEY, Harness
from tests.gateway.test_embed_in_browser import Partner, browser, form_in, seen, sites
from tests.gateway.test_pages_in_browser import OPEN, harness, tab
from tests.waiting import until

__all__ = ["browser", "harness", "sites"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRIPE_JS = """
window.Stripe = (key, { locale }) => ({
  async createEmbeddedCheckoutPage({ fetchClientSecret }) {
    const secret = await fetchClientSecret();
    return {
      mount(place) {
        const pay = document.createElement("button");
        pay.id = "pay";
        pay.textContent = `${key} ${locale} ${secret}`;
        pay.onclick = () => (location.href = window.returnUrl);
        document.querySelector(place).append(pay);
      },
    };
  },
});
"""
CHECKOUT = {"url": None, "client_secret": "cs_1_secret_x", "publishable_key": "pk_test_stripe"}
WITH_SECRET: dict[str, Any] = {**OPEN, "checkout": CHECKOUT}


async def with_stripe(page: Page, script: str | None = STRIPE_JS) -> None:
    """Answer requests for Stripe's script with `script`; None blocks it, as a content blocker does."""

    async def answer(route: Any) -> None:
        if script is None:
            await route.abort()
        else:
            await route.fulfill(body=script, content_type="text/javascript")

    await page.route("https://js.stripe.com/**", answer)


async def test_the_donor_pays_on_the_forms_own_page(browser: BrowserContext, harness: Harness) -> None:
    harness.embedded_checkout = True
    harness.pledge_answers.append((201, {}, WITH_SECRET))
    harness.pledge_views.append((200, {}, WITH_SECRET))
    async with tab(browser) as page:
        await with_stripe(page)
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        await page.click("#give")
        await page.wait_for_url("**/donate/winter/pay?lang=ar#plg_*")
        await expect(page.locator("#pay")).to_have_text("pk_test_stripe ar cs_1_secret_x")
        sent = harness.pledge_requests[0]["body"]
        assert sent["checkout_mode"] == "embedded"
        assert sent["return_url"] == f"{harness.base}/donate/winter/thanks?lang=ar"
        harness.pledge_views.clear()
        harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
        await page.evaluate(f"() => {{ window.returnUrl = {sent['return_url']!r} }}")
        await page.click("#pay")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "paid")
        # Paid and forgotten: the payment page has nothing to pay, and leads to the form.
        await page.goto(f"{harness.base}/donate/winter/pay?lang=ar")
        await page.wait_for_url("**/donate/winter?lang=ar")


async def test_in_a_frame_everything_happens_in_the_frame(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.embedded_checkout = True
    ataa.pledge_answers.append((201, {}, WITH_SECRET))
    ataa.pledge_views.append((200, {}, WITH_SECRET))
    async with tab(browser) as page:
        await with_stripe(page)
        await page.goto(partner.base)
        await form_in(page).locator("#give").click()
        await expect(form_in(page).locator("#pay")).to_be_visible()
        back = ataa.pledge_requests[0]["body"]["return_url"]
        assert back.startswith(f"{ataa.base}/embed/winter/thanks?")
        assert f"key={KEY}" in back
        ataa.pledge_views.clear()
        ataa.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
        await page.frames[1].evaluate(f"() => {{ window.returnUrl = {back!r} }}")
        await form_in(page).locator("#pay").click()
        await expect(form_in(page).locator("#outcome")).to_have_attribute("data-status", "paid")
        await until(lambda: page.evaluate("seen.some(([name]) => name === 'paid')"))
        assert ["pledged", "plg_1", "SCRIPT"] in await seen(page)


async def test_the_donor_pays_where_the_browser_refuses_storage(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.embedded_checkout = True
    harness.pledge_answers.append((201, {}, WITH_SECRET))
    harness.pledge_views.append((200, {}, WITH_SECRET))
    async with tab(browser) as page:
        await page.add_init_script(
            "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('blocked') } })"
        )
        await with_stripe(page)
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#pay")).to_have_text("pk_test_stripe en cs_1_secret_x")


async def test_a_blocked_script_is_reported_and_can_be_tried_again(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.embedded_checkout = True
    harness.pledge_answers.append((201, {}, WITH_SECRET))
    harness.pledge_views.append((200, {}, WITH_SECRET))
    async with tab(browser) as page:
        await with_stripe(page, None)
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#problem")).to_contain_text("did not load")
        await page.unroute("https://js.stripe.com/**")
        await with_stripe(page)
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#pay")).to_be_visible()
