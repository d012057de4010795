"""The console, the login and the page at `/` in a real Chromium, with the real services behind them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import ServiceCalls
from gateway.console.rates_texts import RATES_AR, RATES_EN
from gateway.console.texts import CONSOLE_AR, CONSOLE_EN
from gateway.console.translations import TRANSLATIONS
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.screens import faults
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=PATIENCE_S * 1_000)

HOSTILE: Final = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path_factory.mktemp("console")) as found:
        await fill(found)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    path = chromium_path()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        await launched.close()


async def fill(system: WholeSystem) -> None:
    """A pledge, a creator with a hostile name, and a drive whose every text is hostile."""
    usd = {"currency": "USD", "value": "25.00"}
    texts = {"en": HOSTILE, "ar": HOSTILE}
    drive = {
        "slug": "hostile", "title": texts, "description": texts, "currency": "USD", "goal": usd,
        "permit": HOSTILE, "beneficiaries": [{"name": HOSTILE, "share_bps": 10_000}],
        "milestones": [{"title": {**texts, "fr": HOSTILE}, "amount": usd}],
    }  # fmt: skip
    creator = {"slug": "abo", "name": HOSTILE[:100], "team": HOSTILE[:100]}
    pledge = {
        "amount": usd, "reference": HOSTILE, "message": HOSTILE, "donor": {"name": HOSTILE[:60]},
        "source": {"platform": HOSTILE[:64], "campaign": HOSTILE},
    }  # fmt: skip
    key = {"kind": "secret", "partner": "shop", "scopes": ["drives"], "name": HOSTILE[:60]}
    for path, body in (
        ("drives", drive), ("drives/hostile/open", {}), ("drives/hostile/creators", creator),
        ("drives/winter/creators", creator), ("drives/hostile/pledges", pledge),
        ("drives/winter/pledges", {"amount": usd}), ("keys", key),
    ):  # fmt: skip
        url = f"{system.url}/v1/{path}"
        sent = {**bearer(ADMIN), "Idempotency-Key": path}
        async with system.session.post(url, json=body, headers=sent) as reply:
            assert reply.status in (200, 201), await reply.text()


@asynccontextmanager
async def window(chromium: Browser) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """A window that fails the test on any script error or refusal of the content policy."""
    context = await chromium.new_context(reduced_motion="reduce")
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning") and "Failed to load resource" not in message.text
            else None
        ),
    )
    yield context, page
    await context.close()
    assert complaints == []


async def log_in(page: Page, system: WholeSystem, key: str = ADMIN, query: str = "?lang=en") -> None:
    await page.goto(f"{system.url}/console{query}")
    await page.fill("#key", key)
    async with page.expect_navigation():
        await page.keyboard.press("Enter")


async def test_wrong_key_is_refused_and_the_right_one_opens_the_console(
    system: WholeSystem, chromium: Browser
) -> None:
    async with window(chromium) as (context, page):
        await log_in(page, system, "sk_live_wrong")
        await expect(page.locator("[role=alert]")).to_have_text(
            str(TRANSLATIONS["login"]["en"]["error_wrong"])
        )
        await expect(page.locator("#key")).to_have_value("")
        await page.fill("#key", ADMIN)
        await page.keyboard.press("Enter")
        await expect(page.locator("td a", has_text="Winter")).to_be_visible()
        assert await page.evaluate("document.cookie") == ""
        (cookie,) = await context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


async def test_drive_is_created_and_opened_by_keyboard_alone(system: WholeSystem, chromium: Browser) -> None:
    async with window(chromium) as (_, page):
        await log_in(page, system, query="?lang=ar")
        await page.get_by_role("link", name=str(CONSOLE_AR["new_drive"])).focus()
        await page.keyboard.press("Enter")
        for name, value in (("title_ar", "ربيع"), ("slug", "keys-only"), ("goal", "١٠٠٠")):
            await page.locator(f"#{name}").focus()
            await page.keyboard.type(value)
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=status]")).to_have_text(str(CONSOLE_AR["done_created"]))
        await page.get_by_text(str(CONSOLE_AR["do_open"]), exact=True).focus()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=status]")).to_have_text(str(CONSOLE_AR["done_open"]))
        assert "lang=ar" in page.url
        await page.reload()  # repeats nothing
        await expect(page.locator(".tag.live")).to_have_count(1)


def figures(sequence: int, raised: str) -> dict[str, Any]:
    return {
        "drive": "drv_1", "epoch": 1, "sequence": sequence, "donations": sequence, "donors": sequence,
        "raised": {"currency": "USD", "value": raised}, "as_of": f"2030-01-07T12:00:05.0{sequence:02d}Z",
    }  # fmt: skip


async def test_figures_follow_the_stream_and_never_go_back(system: WholeSystem, chromium: Browser) -> None:
    async with window(chromium) as (_, page):
        await log_in(page, system)
        frames = "".join(f"event: totals\ndata: {json.dumps(figures(n, f'{n}000.00'))}\n\n" for n in (77, 76))
        await page.route("**/totals", lambda route: route.fulfill(json=figures(12, "12345.00")))
        await page.route(
            "**/live*", lambda route: route.fulfill(content_type="text/event-stream", body=frames)
        )
        await page.goto(f"{system.url}/console/drives/winter?lang=en")
        await expect(page.locator("[data-money=raised]")).to_have_text("$77,000")
        await expect(page.locator("[data-count=donations]")).to_have_text("77")
        await expect(page.locator("#as-of")).to_contain_text("2030-01-07 12:00:05")


async def test_figures_are_polled_where_there_is_no_stream(system: WholeSystem, chromium: Browser) -> None:
    async with window(chromium) as (_, page):
        await log_in(page, system)
        await page.route("**/live*", lambda route: route.abort())
        read = itertools.count(1)
        await page.route("**/totals", lambda route: route.fulfill(json=figures(next(read), "12345.00")))
        await page.goto(f"{system.url}/console/drives/winter?lang=en")
        await expect(page.locator("[data-count=donations]")).to_have_text("2")
        await expect(page.locator("[data-money=raised]")).to_have_text("$12,345")


async def test_revoked_key_ends_the_session_of_an_open_window(system: WholeSystem, chromium: Browser) -> None:
    body = {"kind": "secret", "partner": "abo", "scopes": ["drives"], "name": "to revoke"}
    async with system.session.post(f"{system.url}/v1/keys", json=body, headers=bearer(ADMIN)) as reply:
        key = (await reply.json())["key"]
    async with window(chromium) as (_, partner), window(chromium) as (_, page):
        await log_in(partner, system, key)
        await expect(partner.locator(".who")).to_contain_text("abo")
        await log_in(page, system)
        await page.goto(f"{system.url}/console/keys?lang=en")
        row = page.locator("tr", has_text="to revoke")
        await row.locator("summary").click()
        await row.get_by_role("button", name=str(CONSOLE_EN["yes_revoke"])).click()
        await expect(page.locator("[role=status]")).to_have_text(str(CONSOLE_EN["done_revoked"]))
        await partner.reload()
        await expect(partner.locator("#key")).to_be_visible()


async def test_another_site_can_neither_post_nor_read_with_the_session(
    system: WholeSystem, chromium: Browser
) -> None:
    """The page of another origin, with a form that posts itself to the console of a logged-in browser."""
    async with window(chromium) as (context, page):
        await log_in(page, system)
        await expect(page.locator(".who")).to_be_visible()
        forged = (
            f'<form method="post" action="{system.url}/console/drives/winter/state">'
            '<input name="action" value="close"></form>'
        )
        evil = await context.new_page()
        served = {"content_type": "text/html", "body": forged}
        await evil.route("https://evil.example/", lambda route: route.fulfill(**served))
        await evil.goto("https://evil.example/")
        await evil.evaluate("document.forms[0].submit()")
        await evil.wait_for_url("**/state")
        await expect(evil.locator("#key")).to_be_visible()  # SameSite=Strict: it came without the cookie
        await expect(evil.locator(".who")).to_have_count(0)
        async with system.session.get(f"{system.url}/v1/drives/winter", headers=bearer(ADMIN)) as reply:
            assert (await reply.json())["state"] == "live"


async def test_logout_leaves_nothing_behind_the_back_button(system: WholeSystem, chromium: Browser) -> None:
    async with window(chromium) as (context, page):
        await log_in(page, system)
        await page.goto(f"{system.url}/console/keys?lang=en")
        await page.get_by_role("button", name=str(CONSOLE_EN["logout"])).click()
        await expect(page.locator("#key")).to_be_visible()
        assert await context.cookies() == []
        await page.go_back()
        await expect(page.locator("#key")).to_be_visible()


PAGES: Final = (
    "/", "/console", "/console/new", "/console/drives/winter", "/console/drives/winter/edit",
    "/console/drives/winter/pledges", "/console/drives/winter/funnel", "/console/drives/winter/money",
    "/console/drives/winter/offline", "/console/drives/winter/contributions",
    "/console/drives/winter/matching", "/console/drives/winter/beneficiaries",
    "/console/drives/winter/ledger", "/console/drives/winter/statement", "/console/payouts",
    "/console/payments?id=none", "/console/rates", "/console/keys", "/console/webhooks",
    "/console/drives/none", "/console/drives/hostile", "/console/drives/hostile/edit",
    "/console/drives/hostile/pledges", "/console/drives/hostile/funnel", "/console/drives/hostile/money",
)  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_pages_fit_every_width_axe_finds_nothing_serious_and_no_text_of_people_runs(
    system: WholeSystem, chromium: Browser, lang: str
) -> None:
    async with window(chromium) as (_, page):
        await page.goto(f"{system.url}/console?lang={lang}")
        found = await faults(page, "login", lang)
        await page.fill("#key", ADMIN)
        await page.keyboard.press("Enter")
        await expect(page.locator(".who")).to_be_visible()
        for address in PAGES:
            await page.goto(f"{system.url}{address}{joint(address)}lang={lang}")
            assert await page.title() != "owned"
            found += await faults(page, name_of(address), lang)
            assert await page.locator("img[src=x]").count() == 0
        assert found == []


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_pages_of_refused_and_of_unsaved_forms_fit_too(
    system: WholeSystem, chromium: Browser, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, answers = ServiceCalls.send, {"refuses": True}

    async def answer(calls: ServiceCalls, *request: Any) -> Any:
        if answers["refuses"]:
            return await send(calls, *request)
        raise ServiceUnavailable("no answer in time")

    monkeypatch.setattr(ServiceCalls, "send", answer)
    async with window(chromium) as (_, page):
        await log_in(page, system, query=f"?lang={lang}")
        found = []
        for kind in ("refused", "unsaved"):
            answers["refuses"] = kind == "refused"
            await page.goto(f"{system.url}/console/new?lang={lang}")
            for field, value in (("slug", "winter"), ("title_en", HOSTILE), ("goal", "1.234")):
                await page.fill(f"#{field}", value)
            found += await sent(page, f"form-{kind}", lang)
            await page.goto(f"{system.url}/console/drives/winter?lang={lang}")
            await page.locator("summary", has_text=text(lang, "add_creator")).click()
            await page.fill("#name", HOSTILE[:100])
            await page.fill("#slug", "abo")
            found += await sent(page, f"creator-{kind}", lang)
        await page.goto(f"{system.url}/console/drives/winter?lang={lang}")
        await page.locator("summary", has_text=text(lang, "do_pause")).click()
        await page.get_by_role("button", name=text(lang, "yes_pause")).click()
        await expect(page.get_by_role("button", name=text(lang, "send_again"))).to_be_visible()
        found += await faults(page, "state-unsaved", lang)
        answers["refuses"] = True
        await page.get_by_role("button", name=text(lang, "send_again")).click()
        await expect(page.locator(".tag.paused")).to_be_visible()
        await page.locator("summary", has_text=text(lang, "do_resume")).click()
        await page.get_by_role("button", name=text(lang, "yes_resume")).click()
        await expect(page.locator(".tag.live")).to_be_visible()
        assert found == []


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_rate_that_jumps_is_set_once_a_person_confirms_it(
    system: WholeSystem, chromium: Browser, lang: str
) -> None:
    texts = RATES_AR if lang == "ar" else RATES_EN
    source = {"en": "KWD", "ar": "BHD"}[lang]
    async with window(chromium) as (_, page):
        await log_in(page, system, query=f"?lang={lang}")
        await page.goto(f"{system.url}/console/rates?lang={lang}&from={source}&to=USD")
        await page.fill("#rate", "3.2581")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=status]")).to_have_text(str(texts["done_rate_set"]))
        await page.get_by_role("link", name=f"{source}/USD").click()
        await page.fill("#rate", "32.581")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=alert]")).to_have_text(str(texts["refused_rate_jump"]))
        found = await faults(page, "rates-refused", lang)
        await page.get_by_label(str(texts["rate_confirm"])).check()
        await page.get_by_role("button", name=str(texts["save_rate"])).click()
        await expect(page.locator("[role=status]")).to_have_text(str(texts["done_rate_set"]))
        await expect(page.get_by_role("row", name=f"{source}/USD").get_by_text("32.581")).to_be_visible()
        found += await faults(page, "rates-set", lang)
        assert found == []


def joint(address: str) -> str:
    return "&" if "?" in address else "?"


def name_of(address: str) -> str:
    return address.partition("?")[0].strip("/").replace("/", "-") or "root"


def text(lang: str, key: str) -> str:
    return str((CONSOLE_AR if lang == "ar" else CONSOLE_EN)[key])


async def sent(page: Page, name: str, lang: str) -> list[Any]:
    """Send the form that has the focus; the faults of the page that shows why it was not saved."""
    await page.keyboard.press("Enter")
    await expect(page.locator("[role=alert]")).to_be_visible()
    assert await page.title() != "owned"
    return await faults(page, name, lang)
