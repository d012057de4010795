"""The payment page: as HTML, and in Chromium where it is installed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

from sandbox.page_texts import TEXTS
from tests.sandbox.harness import Donor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


async def html(donor: Donor, address: str, language: str = "en") -> tuple[int, str]:
    async with donor.http.get(address, headers={"Accept-Language": language}) as response:
        assert response.content_type == "text/html"
        return response.status, await response.text()


def test_both_languages_have_the_same_texts() -> None:
    assert TEXTS["en"].keys() == TEXTS["ar"].keys()


@pytest.mark.parametrize(
    ("locale", "accepted", "lang"),
    [
        (None, "ar-KW,en", "ar"),
        ("auto", "en", "en"),
        ("ar", "en", "ar"),
        ("en", "ar", "en"),
        ("fr", "ar", "en"),
    ],
)
async def test_page_uses_the_sessions_language_or_the_browsers(
    donor: Donor, locale: str | None, accepted: str, lang: str
) -> None:
    session = await donor.session(locale=locale or "")
    status, page = await html(donor, f"{donor.base}/c/pay/{session.id}", accepted)
    assert status == 200
    assert f'<html lang="{lang}" dir="{"rtl" if lang == "ar" else "ltr"}">' in page


async def test_product_name_is_escaped(donor: Donor) -> None:
    product = {"name": "<script>alert(1)</script>"}
    price = {"currency": "usd", "unit_amount": 100, "product_data": product}
    session = await donor.session(line_items=[{"quantity": 1, "price_data": price}])
    _, page = await html(donor, str(session.url))
    assert "<script" not in page


async def test_unknown_and_expired_sessions_have_their_own_pages(donor: Donor) -> None:
    status, page = await html(donor, f"{donor.base}/c/pay/cs_test_none")
    assert status == 404
    assert TEXTS["en"]["unknown_title"] in page
    session = await donor.session()
    await donor.stripe.v1.checkout.sessions.expire_async(session.id)
    assert TEXTS["en"]["expired_title"] in (await html(donor, str(session.url)))[1]


async def test_form_works_without_javascript(donor: Donor) -> None:
    session = await donor.session()
    address = f"{session.url}/pay"
    async with donor.http.post(address, data={"card": "4000 0000 0000 9995"}) as declined:
        assert TEXTS["en"]["problem_insufficient_funds"] in await declined.text()
    async with donor.http.post(address, data={"card": "1"}) as refused:
        assert TEXTS["en"]["problem_incorrect_number"] in await refused.text()
    form = {"card": "4242 4242 4242 4242", "email": "a@example.org", "name": "A"}
    for _ in range(2):
        async with donor.http.post(address, data=form, allow_redirects=False) as paid:
            assert paid.status == 303
            assert paid.headers["Location"] == f"http://example.org/thanks?s={session.id}"
    complete = await donor.stripe.v1.checkout.sessions.retrieve_async(session.id)
    assert complete.customer_details is not None
    assert (complete.customer_details.email, complete.customer_details.name) == ("a@example.org", "A")
    assert TEXTS["en"]["complete_title"] in (await html(donor, str(session.url)))[1]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("ar", 360)])
async def test_browser_retries_after_a_decline_and_is_redirected(
    donor: Donor, browser: Browser, language: str, width: int
) -> None:
    thanks = donor.base + "/livez?s={CHECKOUT_SESSION_ID}"
    session = await donor.session(99_999_999, locale=language, success_url=thanks)
    page = await browser.new_page(viewport={"width": width, "height": 740})
    await page.goto(str(session.url))
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_label(TEXTS[language]["card"]).fill("4000 0000 0000 0002")
    await page.get_by_role("button").click()
    await expect(page.get_by_role("alert")).to_have_text(TEXTS[language]["problem_other"])
    await page.get_by_label(TEXTS[language]["card"]).fill("4242 4242 4242 4242")
    await asyncio.gather(page.wait_for_url(f"**/livez?s={session.id}"), page.get_by_role("button").click())
    assert (await donor.books())["USD"]["captured"] == "999999.99"
