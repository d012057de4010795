"""A donation in Firefox, from the form to the thanks page, against an HTTP server with scripted responses.

Without a Firefox (`FIREFOX` or one on the path) these tests are skipped, unless ATAA_REQUIRE_REAL=1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway.firefox import Firefox, Tab, running_firefox
from tests.gateway.pages_harness import KEY, Harness, serving_pages, usd
from tests.gateway.test_embed_in_browser import embed, serving_partner
from tests.gateway.test_pages_in_browser import OPEN, harness, with_checkout
from tests.waiting import until

__all__ = ["harness"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

CAN_GIVE = "document.querySelector('#give')?.disabled === false"
FOCUS = "document.activeElement.id || document.activeElement.name"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def firefox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Firefox]:
    """One Firefox for the module; each test has a tab of its own."""
    async with running_firefox(tmp_path_factory.mktemp("firefox")) as running:
        yield running


async def tab_to(tab: Tab, name: str) -> None:
    """Press Tab until the field has the focus."""
    for _ in range(20):
        await tab.press("Tab")
        if await tab.evaluate(FOCUS) == name:
            return
    raise AssertionError(f"{name} is not reached with the Tab key")


async def test_a_whole_gift_in_arabic_by_keyboard_alone_on_a_narrow_phone(
    firefox: Firefox, harness: Harness
) -> None:
    harness.fee, harness.drive = {"bps": 290, "fixed": 30, "step": 1}, {"zakat_eligible": True}
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, OPEN))
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    async with firefox.tab(320, 640) as tab:
        await tab.goto(f"{harness.base}/donate/winter?lang=ar")
        await tab.becomes(CAN_GIVE)
        assert await tab.evaluate("document.documentElement.dir") == "rtl"
        await tab_to(tab, "amount")
        await tab.press(*"٢٥٫٥٥٥")
        await tab_to(tab, "name")
        await tab.press(*"ليلى")
        await tab_to(tab, "email")
        await tab.press(*"nobody")
        await tab.press("Enter")
        await tab.becomes("document.querySelector('#amount-error').textContent.includes('25.00')")
        await tab.becomes("document.querySelector('#email-error').textContent")
        assert await tab.evaluate(FOCUS) == "amount"
        await tab.keep_picture("firefox-errors-ar-320")
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 320
        await tab.press("Backspace", "Backspace")
        await tab_to(tab, "cover")
        await tab.press(" ")
        await tab_to(tab, "purpose")
        await tab.press("Down")
        await tab_to(tab, "email")
        await tab.press(*"nobody@example.org")  # a field reached with Tab is selected
        await tab_to(tab, "message")
        await tab.press(*"دفئًا")
        await tab_to(tab, "give")
        await tab.press("Enter")
        await tab.becomes("location.pathname === '/checkout'")
        sent = harness.pledge_requests[0]["body"]
        assert (sent["amount"], sent["purpose"], sent["message"]) == (usd("26.58"), "sadaqah", "دفئًا")
        assert sent["donor"] == {
            "locale": "ar", "anonymous": False, "name": "ليلى", "email": "nobody@example.org"
        }  # fmt: skip
        await tab.goto(sent["return_url"])
        await tab.becomes("document.querySelector('#outcome').dataset.status === 'paid'")
        await tab.becomes("document.querySelector('#share').hidden === false")
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 320
        await tab.keep_picture("firefox-paid-ar-320")
    assert len(harness.pledge_requests) == 1


async def test_a_double_click_makes_one_gift_and_the_back_button_after_payment_a_fresh_form(
    firefox: Firefox, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    async with firefox.tab() as tab:
        await tab.goto(f"{harness.base}/donate/winter?lang=en")
        await tab.becomes(CAN_GIVE)
        await tab.click("#give", times=2)
        await tab.becomes("location.pathname === '/checkout'")
        assert len(harness.pledge_requests) == 1
        await tab.goto(f"{harness.base}/donate/winter/thanks?lang=en")
        await tab.becomes("document.querySelector('#outcome').dataset.status === 'paid'")
        await tab.back()
        await tab.becomes("location.pathname === '/checkout'")
        await tab.back()
        await tab.becomes(CAN_GIVE)
        await tab.becomes("document.querySelector('#give').getAttribute('aria-disabled') !== 'true'")
        assert await tab.evaluate("document.querySelector('#resume').hidden")
        await tab.click("#give")
        await until(lambda: len(harness.pledge_requests) == 2)
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == 2


async def test_the_form_in_a_page_of_another_site_with_its_storage_partitioned(firefox: Firefox) -> None:
    async with serving_pages(Harness()) as ataa, serving_partner() as partner:
        site = partner.base.replace("127.0.0.1", "localhost")
        ataa.frame_origins = (site,)
        partner.html = f"<h1>بثّنا</h1>{embed(ataa, lang='ar')}"
        ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
        ataa.pledge_views.append((200, {}, with_checkout(ataa)))
        async with firefox.tab(320, 640) as tab:
            await tab.goto(f"{site}/watch?stream=7#chat")
            form = await tab.frame()
            await form.becomes(CAN_GIVE)
            await form.click("#amount")
            await form.press(*"٧")
            await form.click("#give", times=2)
            await tab.becomes("location.pathname === '/checkout'")
            (sent,) = ataa.pledge_requests
            assert sent["headers"]["authorization"] == f"Bearer {KEY}"
            assert sent["body"]["return_url"] == f"{site}/watch?stream=7&ataa=winter#chat"
            # The frame's storage is not the storage of the same form in a tab.
            await tab.goto(f"{ataa.base}/donate/winter?lang=ar")
            await tab.becomes(CAN_GIVE)
            assert await tab.evaluate("sessionStorage.length") == 0
            # Back without having paid: the form as it was left, with the gift to go on with.
            await tab.goto(f"{site}/watch?stream=7#chat")
            form = await tab.frame()
            await form.becomes("document.querySelector('#resume')?.hidden === false")
            assert await form.evaluate("document.querySelector('#amount').value") == "٧"
            await tab.keep_picture("firefox-embed-unpaid-ar-320")
            ataa.pledge_views.clear()
            ataa.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
            await tab.goto(sent["body"]["return_url"])
            form = await tab.frame()
            await form.becomes("document.querySelector('#outcome')?.dataset.status === 'paid'")
            await tab.becomes("seen.some(([name, pledge]) => name === 'paid' && pledge === 'plg_1')")
            names = [name for name, *_ in await tab.evaluate("seen")]
        assert names == ["ready", "pledged", "ready", "ready", "paid"]
