"""The form on a partner's page, in Chromium: two servers on two ports are two origins."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, FrameLocator, Page, async_playwright, expect

from gateway.pages.assets import Send
from tests.gateway.pages_harness import KEY, Harness, reply_with, serving_pages, usd
from tests.gateway.test_pages_in_browser import FLAGS, OPEN, chromium_path, tab, window_of, with_checkout
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTENER = """<script>
window.seen = JSON.parse(sessionStorage.seen || "[]");
for (const name of ["ready", "pledged", "paid", "closed"])
  document.addEventListener("ataa:" + name, (event) => {
    seen.push([name, event.detail.pledge, event.target.tagName]);
    sessionStorage.seen = JSON.stringify(seen);
  });
</script>"""


@dataclass
class Partner(Harness):
    """A partner's site: every path answers `html`."""

    html: str = ""

    async def _page(self, path: str, query: dict[str, str], send: Send) -> None:
        body = f"<!doctype html><meta charset=utf-8>{LISTENER}{self.html}".encode()
        await reply_with(send, 200, [(b"content-type", b"text/html; charset=utf-8")], body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    path = chromium_path()
    async with async_playwright() as playwright:
        # Site isolation stays on: the form is in another process than the page around it, as for donors.
        launched = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield await window_of(launched)
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def sites() -> AsyncIterator[tuple[Harness, Partner]]:
    async with serving_pages(Harness()) as ataa, serving_partner() as partner:
        ataa.frame_origins = (partner.base,)
        partner.html = f"<h1>Our stream</h1>{embed(ataa)}<p>After</p>"
        yield ataa, partner


@asynccontextmanager
async def serving_partner() -> AsyncIterator[Partner]:
    partner = Partner()
    async with serving_pages(partner):
        yield partner


def embed(ataa: Harness, **data: str) -> str:
    given = {"drive": "winter", "key": KEY, "lang": "en"} | data
    attributes = " ".join(f'data-{name}="{value}"' for name, value in given.items())
    return f'<script src="{ataa.base}/embed.js" {attributes} async></script>'


def form_in(page: Page, n: int = 0) -> FrameLocator:
    return page.frame_locator("iframe").nth(n)


async def seen(page: Page) -> list[list[Any]]:
    found: list[list[Any]] = await page.evaluate("seen")
    return found


async def test_a_gift_on_a_partners_page_from_first_sight_to_paid(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    ataa.pledge_views.append((200, {}, OPEN))
    ataa.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    async with tab(browser) as page:
        await page.goto(f"{partner.base}/watch?stream=7#chat")
        await expect(form_in(page).locator("#give")).to_have_text("Give $25")
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")  # the donor's own tab, not a popup and not the frame
        assert page.context.pages[-1] is page
        sent = ataa.pledge_requests[0]
        assert sent["headers"]["authorization"] == f"Bearer {KEY}"
        assert sent["headers"]["ataa-form-token"].startswith("f1.")
        assert sent["body"]["return_url"] == f"{partner.base}/watch?stream=7&ataa=winter#chat"
        await page.goto(sent["body"]["return_url"])
        await expect(form_in(page).locator("#outcome")).to_have_attribute("data-status", "paid")
        assert page.url == f"{partner.base}/watch?stream=7#chat"
        await form_in(page).locator(".choices a").click()
        await expect(form_in(page).locator("#give")).to_be_visible()
        await until(lambda: page.evaluate("seen.length === 5"))
        assert await seen(page) == [
            ["ready", None, "SCRIPT"], ["pledged", "plg_1", "SCRIPT"], ["ready", None, "SCRIPT"],
            ["paid", "plg_1", "SCRIPT"], ["closed", "plg_1", "SCRIPT"],
        ]  # fmt: skip
        assert [name for name in await page.evaluate("Object.keys(window)") if "ataa" in name.lower()] == []


async def test_the_frame_is_as_high_as_the_form(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    _, partner = sites
    async with tab(browser) as page:
        await page.set_viewport_size({"width": 320, "height": 640})
        await page.goto(partner.base)
        button = form_in(page).locator("#give")
        await expect(button).to_be_visible()

        async def fits() -> bool:
            frame = page.frames[1]
            shown = await page.evaluate("document.querySelector('iframe').clientHeight")
            return bool(
                shown == await frame.evaluate("Math.ceil(document.body.getBoundingClientRect().height)")
            )

        await until(fits)
        before = await page.evaluate("document.querySelector('iframe').clientHeight")
        await form_in(page).locator("#amount").fill("1.234")
        await button.click()
        await until(fits)
        assert await page.evaluate("document.querySelector('iframe').clientHeight") > before
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_a_page_that_is_not_on_the_keys_list_gets_a_link_instead(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.frame_origins = ("https://other.example",)
    page = await browser.new_page()
    warnings: list[str] = []
    page.on("console", lambda message: warnings.append(message.text))
    await page.clock.install()
    await page.goto(partner.base)
    await page.wait_for_selector("iframe")
    await page.clock.run_for(13_000)
    await expect(page.get_by_role("link", name="Open the donation form")).to_have_attribute(
        "href", f"{ataa.base}/donate/winter?lang=en"
    )
    assert any("on its list of origins" in text for text in warnings)
    assert await seen(page) == []
    await page.close()


async def test_a_listed_page_cannot_show_a_frame_that_names_another_origin(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    """The browser enforces the list, whatever origin the address claims."""
    ataa, partner = sites
    claimed = "https://listed.example"
    ataa.frame_origins = (claimed,)
    partner.html = f'<iframe src="{ataa.base}/embed/winter?key={KEY}&origin={claimed}"></iframe>'
    page = await browser.new_page()
    refusals: list[str] = []
    page.on("console", lambda message: refusals.append(message.text))
    await page.goto(partner.base)
    await until(lambda: any("frame-ancestors" in text for text in refusals))
    await page.close()


async def test_messages_of_other_windows_and_origins_are_ignored(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(partner.base)
        await expect(form_in(page).locator("#give")).to_be_enabled()
        evil = f"{partner.base}/evil"
        # To the page, but not from the frame. To the form, but not from the page around.
        await page.evaluate("window.postMessage({ ataa: 'paid', pledge: 'plg_forged' }, '*')")
        await page.evaluate(f"window.postMessage({{ ataa: 'checkout', url: {evil!r} }}, '*')")
        await page.frames[1].evaluate(f"window.postMessage({{ ataa: 'page', return_url: {evil!r} }}, '*')")
        # From the page around, but with an address of another origin.
        await page.evaluate(
            "document.querySelector('iframe').contentWindow"
            ".postMessage({ ataa: 'page', return_url: 'https://evil.example/' }, '*')"
        )
        # From the frame, but not an http address.
        await page.frames[1].evaluate(
            "parent.postMessage({ ataa: 'checkout', url: 'javascript:seen = 1' }, '*')"
        )
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
    assert ataa.pledge_requests[0]["body"]["return_url"] == f"{partner.base}/?ataa=winter"


async def test_several_forms_on_a_page_and_the_same_script_twice(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.creators = [
        {"id": "crt_1", "slug": "nour", "name": "نور"},
        {"id": "crt_2", "slug": "omar", "name": "عمر"},
    ]
    tags = [
        embed(ataa, creator="nour", lang="ar"),
        embed(ataa, creator="omar"),
        embed(ataa, creator="nour", lang="ar"),
    ]
    partner.html = "".join(tags)
    async with tab(browser) as page:
        await page.goto(partner.base)
        await expect(form_in(page, 0).locator(".creator")).to_contain_text("نور")
        await expect(form_in(page, 1).locator(".creator")).to_contain_text("عمر")
        await page.evaluate("document.body.append(document.querySelector('script[data-key]').cloneNode())")
        assert await page.locator("iframe").count() == 2
        assert await page.locator("iframe").first.get_attribute("title") == "نموذج التبرع"


async def test_a_script_in_the_head_and_a_strict_policy_of_the_page(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    policy = f"default-src 'none'; script-src {ataa.base} 'unsafe-inline'; frame-src {ataa.base}"
    partner.html = (
        f'<head><meta http-equiv="Content-Security-Policy" content="{policy}">{embed(ataa)}</head><body>x'
    )
    async with tab(browser) as page:
        await page.goto(partner.base)
        await expect(form_in(page).locator("#give")).to_be_enabled()


async def test_an_unpaid_gift_is_resumed_or_dropped(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    ataa.pledge_views.append((200, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(partner.base)
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
        await page.go_back()
        await form_in(page).locator("#resume-go").click()
        await page.wait_for_url("**/checkout")
        await page.go_back()
        await form_in(page).locator("#resume-no").click()
        await until(
            lambda: page.evaluate("seen.some(([name, pledge]) => name === 'closed' && pledge === 'plg_1')")
        )
        await expect(form_in(page).locator("#resume")).to_be_hidden()
    assert len(ataa.pledge_requests) == 1


async def test_the_form_works_where_the_browser_blocks_its_storage(
    browser: BrowserContext, sites: tuple[Harness, Partner]
) -> None:
    """As with third-party storage blocked: every access to it throws."""
    ataa, partner = sites
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        blocked = "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('blocked') } })"
        await page.add_init_script(f"if (location.pathname.startsWith('/embed/')) {blocked}")
        await page.goto(partner.base)
        await form_in(page).locator("#give").click()
        await page.wait_for_url("**/checkout")
        await page.goto(ataa.pledge_requests[0]["body"]["return_url"])
        await expect(form_in(page).locator("#outcome")).to_have_attribute("data-status", "unknown")
        assert re.search(r"If you paid, your gift counts", await form_in(page).locator("#more").inner_text())
    assert ataa.pledge_requests[0]["body"]["amount"] == usd("25.00")
