"""The hosted form, the sandbox's card page and the overlay of a whole system, in Chromium."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from backbone.clock import rfc3339
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path
from tests.journeys.embedded_system import EmbeddedSystem
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = chromium_path()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        await launched.close()


@pytest.mark.parametrize("language", ["ar", "en"])
async def test_donation_through_the_form_appears_on_the_overlay(
    system: EmbeddedSystem, browser: Browser, language: str
) -> None:
    slug = f"form-{language}"
    await system.open_drive(slug)
    overlay, donor = await browser.new_page(), await browser.new_page(locale=language)
    page_errors: list[str] = []
    for page in (overlay, donor):
        page.on("pageerror", lambda error: page_errors.append(str(error)))
    await overlay.goto(f"{system.url}/overlay/{slug}?lang={language}&parts=bar,leaders,alerts")
    await donor.goto(f"{system.url}/donate/{slug}?lang={language}&creator=star")
    await donor.locator("input[name=menu][value='25.00']").check()
    await donor.locator("input[name=name]").fill("ليلى")
    await donor.locator("#give").click()
    await donor.wait_for_url(re.compile(r"/c/pay/"))
    assert await donor.locator("html").get_attribute("dir") == ("rtl" if language == "ar" else "ltr")
    # Back without having paid: the form as it was left, and the same gift.
    await donor.locator(".back").click()
    await expect(donor.locator("#resume")).to_be_visible()
    await expect(donor.locator("input[name=name]")).to_have_value("ليلى")
    await expect(donor.locator(".creator")).to_be_visible()
    await donor.locator("#resume-go").click()
    await donor.wait_for_url(re.compile(r"/c/pay/"))
    await donor.locator("input[name=card]").fill("4242 4242 4242 4242")
    await donor.locator("button").last.click()
    await donor.wait_for_url(re.compile(rf"{re.escape(system.url)}/donate/"))
    totals = await system.wait_for_raised(slug, "25.00")
    assert totals["leaders"][0]["slug"] == "star"
    assert (await system.newest_donation(slug, "ليلى"))["message"] is None
    await expect(overlay.get_by_text("ليلى").first).to_be_visible()
    await expect(overlay.get_by_text(re.compile(r"25")).first).to_be_visible()
    assert page_errors == []
    await overlay.close()
    await donor.close()


async def test_gift_in_dinars_through_the_form_counts_in_dollars(
    system: EmbeddedSystem, browser: Browser
) -> None:
    rate = {"rate": "3.2581", "as_of": rfc3339(datetime.now(UTC)), "confirm": True}
    assert (await system.admin("PUT", "/v1/rates/KWD/USD", rate)).status == 200
    await system.open_drive("dinars", currencies=["KWD", "BHD"])
    await until(system.is_drained)  # pledges knows the rate; there is none for BHD
    donor = await browser.new_page(locale="ar")
    page_errors: list[str] = []
    donor.on("pageerror", lambda error: page_errors.append(str(error)))
    await donor.goto(f"{system.url}/donate/dinars?lang=ar&digits=arab")
    await expect(donor.locator("#currency option")).to_have_text(["دولار أمريكي (USD)", "دينار كويتي (KWD)"])
    await donor.select_option("#currency", "KWD")
    await donor.fill("#amount", "١٠٫٠١")
    await expect(donor.locator("#worth")).to_contain_text("٣٢٫٦١")
    await donor.locator("#give").click()
    await donor.wait_for_url(re.compile(r"/c/pay/"))
    await expect(donor.locator("body")).to_contain_text(re.compile(r"10\.010|١٠٫٠١٠"))
    # Back without having paid: the form in the currency of the gift.
    await donor.locator(".back").click()
    await expect(donor.locator("#resume-text")).to_contain_text("١٠٫٠١٠")
    await expect(donor.locator("#currency")).to_have_value("KWD")
    await expect(donor.locator("#amount")).to_have_value("١٠٫٠١")
    await donor.locator("#resume-go").click()
    await donor.wait_for_url(re.compile(r"/c/pay/"))
    await donor.locator("input[name=card]").fill("4242 4242 4242 4242")
    await donor.locator("button").last.click()
    await donor.wait_for_url(re.compile(rf"{re.escape(system.url)}/donate/dinars/thanks"))
    await expect(donor.locator("#amount")).to_contain_text("١٠٫٠١٠")
    totals = await system.wait_for_raised("dinars", "32.61")
    assert totals["raised"] == {"currency": "USD", "value": "32.61"}
    await system.wait_until_books_agree()
    assert page_errors == []
    await donor.close()
