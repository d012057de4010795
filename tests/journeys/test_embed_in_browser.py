"""The form on a partner's page, from the script tag to the paid gift, in a whole system and in Chromium."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.gateway.test_embed_in_browser import Partner, serving_partner
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path
from tests.journeys.embedded_system import EmbeddedSystem
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

INSTAGRAM = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Mobile/15E148 Instagram 340.0.3.27.93 (iPhone14,5; iOS 17_5; ar_EG; ar; scale=3.00; 1170x2532)"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = chromium_path()
    async with async_playwright() as playwright:
        third_party = ["--test-third-party-cookie-phaseout"]
        launched = await playwright.chromium.launch(executable_path=path, args=[*FLAGS, *third_party])
        yield launched
        await launched.close()


async def publish(system: EmbeddedSystem, partner: Partner, slug: str, origin: str) -> None:
    """Embed the form of a new drive in the partner's page, with a new key for `origin`."""
    await system.open_drive(slug)
    request = {"kind": "publishable", "partner": "club", "origins": [origin]}
    key = (await system.admin("POST", "/v1/keys", request)).body["key"]
    attributes = f'src="{system.url}/embed.js" data-drive="{slug}" data-key="{key}" data-lang="ar"'
    partner.html = f"<script {attributes} async></script>"


async def test_a_gift_on_a_partners_page_is_the_partners_and_is_paid(
    system: EmbeddedSystem, browser: Browser
) -> None:
    async with serving_partner() as partner:
        await publish(system, partner, "embedded-form", partner.base)
        page = await browser.new_page(user_agent=INSTAGRAM, viewport={"width": 320, "height": 640})
        await page.goto(f"{partner.base}/stream")
        await page.frame_locator("iframe").locator("#give").click()
        await page.wait_for_url(re.compile(r"/c/pay/"))
        await page.locator(".back").click()
        await page.wait_for_url(f"{partner.base}/stream")
        await page.frame_locator("iframe").locator("#resume-go").click()
        await page.wait_for_url(re.compile(r"/c/pay/"))
        await page.locator("input[name=card]").fill("4242 4242 4242 4242")
        await page.locator("button").last.click()
        await page.wait_for_url(f"{partner.base}/stream**")
        outcome = page.frame_locator("iframe").locator("#outcome")
        await expect(outcome).to_have_attribute("data-status", "paid")
        await until(lambda: page.evaluate("seen.some(([name]) => name === 'paid')"))
        (paid,) = [pledge for name, pledge, _ in await page.evaluate("seen") if name == "paid"]
        assert page.url == f"{partner.base}/stream"
        await page.close()
    key = (await system.admin("POST", "/v1/keys", {"kind": "secret", "partner": "club"})).body["key"]
    read = await system.request("GET", f"/v1/pledges/{paid}", Authorization=f"Bearer {key}")
    assert (read.status, read.body["status"]) == (200, "paid")


async def test_a_page_of_another_origin_does_not_show_the_form(
    system: EmbeddedSystem, browser: Browser
) -> None:
    async with serving_partner() as partner:
        await publish(system, partner, "embedded-elsewhere", "https://club.example")
        page = await browser.new_page()
        refusals: list[str] = []
        page.on("console", lambda message: refusals.append(message.text))
        await page.goto(partner.base)
        await until(lambda: any("frame-ancestors" in text for text in refusals))
        await page.close()
