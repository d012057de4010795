"""The pages in a real Chromium, against an HTTP server with scripted responses.

Without a Chromium (`CHROMIUM` or one on the path) these tests are skipped, unless ATAA_REQUIRE_REAL=1.
"""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from backbone.money import DIGITS, decimal_string
from gateway.pages.translations import TRANSLATIONS
from tests.backbone.test_money_text import number_in
from tests.gateway.browsers import installed_browser
from tests.gateway.pages_harness import Harness, donation_row, drive_totals, serving_pages, usd
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=PATIENCE_S * 1_000)

HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ONE_RENDERER = ["--renderer-process-limit=1", "--disable-site-isolation-trials"]
"""One process renders all pages of a window. Starting one per page costs more CPU than the page's test."""


def chromium_path() -> str:
    return installed_browser("Chromium", "CHROMIUM", "chromium", "chromium-browser")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    """One window for the module; each test has a tab, and with it a session storage, of its own."""
    path = chromium_path()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=[*FLAGS, *ONE_RENDERER])
        yield await window_of(launched)
        await launched.close()


async def window_of(browser: Browser) -> BrowserContext:
    """Open a window with an empty page, which keeps the renderer alive between tests."""
    context = await browser.new_context(reduced_motion="reduce")
    await context.new_page()
    return context


@pytest_asyncio.fixture(loop_scope="module")
async def harness() -> AsyncIterator[Harness]:
    async with serving_pages(Harness()) as served:
        yield served


@asynccontextmanager
async def tab(browser: BrowserContext) -> AsyncIterator[Page]:
    """A tab that fails the test on any script error or refusal of the content policy."""
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if _is_ours(message) else None)
    yield page
    await page.close()
    assert complaints == []


def _is_ours(message: ConsoleMessage) -> bool:
    # Chromium itself reports each scripted 4xx and 5xx, and streams a test cuts on purpose.
    expected = ("Failed to load resource", "net::ERR_")
    return message.type in ("error", "warning") and not any(text in message.text for text in expected)


async def raised(page: Page, value: str) -> None:
    await expect(page.locator(".raised")).to_have_attribute("data-value", value)


# --- the overlay ---


async def test_overlay_shows_the_exact_total_and_the_live_state(
    browser: BrowserContext, harness: Harness
) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await expect(page.locator(".raised")).to_have_text("$4,560,123.45")
        await expect(page.locator(".percent")).to_have_text("45.6%")
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgba(0, 0, 0, 0)"


async def test_burst_of_a_thousand_donations_ends_on_the_exact_total(
    browser: BrowserContext, harness: Harness
) -> None:
    async with tab(browser) as page:
        await page.emulate_media(reduced_motion="no-preference")
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await page.evaluate(
            """() => { window.longest = 0; new PerformanceObserver((tasks) => {
            for (const task of tasks.getEntries()) window.longest = Math.max(window.longest, task.duration)
            }).observe({ type: "longtask" }) }"""
        )
        for n in range(1, 1001):
            harness.push("donation", donation_row(n, amount=usd("999999.99" if n == 500 else "25.00")))
            if n % 10 == 0:
                harness.push("totals", drive_totals(sequence=97500 + n, raised=usd(f"{4560123 + n * 25}.45")))
        harness.push("totals", drive_totals(sequence=99000, raised=usd("5585123.43"), donations=98012))
        await raised(page, "5585123.43")
        await expect(page.locator(".gifts")).to_have_text("98,012 gifts")
        # The large donation among the thousand is shown; the number of cards is bounded.
        await expect(page.locator(".card.grand")).to_have_count(1)
        assert await page.locator(".card").count() <= 6
        assert await page.evaluate("window.longest") < 1_000


async def test_texts_of_donors_are_shown_as_text(browser: BrowserContext, harness: Harness) -> None:
    leader = {"rank": 1, "creator": "crt_1", "slug": "x", "name": HOSTILE, "raised": usd("5.00")}
    harness.totals = drive_totals(
        title={"en": HOSTILE},
        recent=[donation_row(1, name=HOSTILE)],
        leaders=[leader],
        milestones=[{"title": {"en": HOSTILE}, "amount": usd("5000000.00"), "reached_at": None}],
    )
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        harness.push("donation", donation_row(2, name=HOSTILE, message=HOSTILE, creator="crt_1"))
        await expect(page.locator(".card .message")).to_have_text(HOSTILE)
        for place in (".title", ".card .name", ".leader .name", ".chip .name", ".milestones .what"):
            await expect(page.locator(place).first).to_have_text(HOSTILE)
        assert await page.locator("img").count() == 0
        assert await page.title() != "owned"


async def test_repeated_donation_is_announced_once_and_old_ones_are_not(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals = drive_totals(recent=[donation_row(1)])
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        harness.push("donation", donation_row(2, name="Once"))
        harness.push("donation", donation_row(2, name="Once"))
        harness.push("donation", donation_row(3, name="Returned", type="donation.refunded"))
        harness.push(
            "totals",
            drive_totals(
                sequence=97504,
                recent=[donation_row(4, name="Last"), donation_row(2, name="Once"), donation_row(1)],
            ),
        )
        harness.push("donation", donation_row(4, name="Last"))
        await expect(page.locator(".card .name", has_text="Last")).to_have_count(1)
        assert await page.locator(".card .name").all_inner_texts() == ["Once", "Last"]


async def test_figures_never_go_back_within_an_epoch(browser: BrowserContext, harness: Harness) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        harness.push("totals", drive_totals(sequence=97400, raised=usd("1.00")))
        harness.push("totals", drive_totals(sequence=97501, raised=usd("4560148.45")))
        await raised(page, "4560148.45")
        harness.push("totals", drive_totals(epoch=2, sequence=5, raised=usd("4000000.00")))
        await raised(page, "4000000.00")


async def test_overlay_reconnects_after_a_drain(browser: BrowserContext, harness: Harness) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        harness.totals = drive_totals(sequence=97600, raised=usd("4570000.00"))
        harness.push("drain", {})
        harness.end_streams()
        await until(lambda: harness.streams_opened == 2)
        await raised(page, "4570000.00")


async def test_without_a_stream_the_overlay_polls_with_the_etag_and_announces(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.stream_status = 503
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=en")
        await raised(page, "4560123.45")
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "live")
        await until(lambda: 'W/"1.97500.0.live"' in harness.totals_requests)
        donation = donation_row(1, name="Polled")
        harness.rows = [donation]
        harness.totals = drive_totals(sequence=97501, raised=usd("4560148.45"), recent=[donation])
        await raised(page, "4560148.45")
        await expect(page.locator(".card .name")).to_have_text("Polled")


async def test_overlay_shows_its_freshness(browser: BrowserContext, harness: Harness) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?lang=ar")
        await raised(page, "4560123.45")
        for sequence, state in enumerate(("catching_up", "frozen", "live"), 97501):
            harness.push("totals", drive_totals(sequence=sequence, state=state))
            await expect(page.locator(".freshness")).to_have_attribute("data-state", state)
        await expect(page.locator(".freshness .state")).to_have_text("مباشر")
        harness.stream_status = harness.totals_status = 503
        harness.end_streams()
        await expect(page.locator(".freshness")).to_have_attribute("data-state", "offline")
        await expect(page.locator(".freshness .state")).to_contain_text("نعيد الاتصال")


@pytest.mark.parametrize(
    ("query", "currency", "value", "shown"),
    [
        ("lang=en", "JPY", "123456789", "¥123,456,789"),
        ("lang=en", "KWD", "999999.995", "KWD 999,999.995"),
        ("lang=en", "USD", "90071992547409931.01", "$90,071,992,547,409,931.01"),
        ("lang=ar", "USD", "0.00", "0.00 $"),
        ("lang=ar&digits=arab", "USD", "1234.50", "١٬٢٣٤٫٥٠ $"),
    ],
)
async def test_amounts_are_written_exactly(
    browser: BrowserContext, harness: Harness, query: str, currency: str, value: str, shown: str
) -> None:
    money = {"currency": currency, "value": value}
    harness.totals = drive_totals(currency=currency, raised=money, goal=None, percent=None)
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/overlay/winter?{query}")
        await raised(page, value)
        text = await page.locator(".raised").inner_text()
        assert re.sub("[\u200e\u200f\u061c\u2066\u2069]", "", text).replace("\u00a0", " ") == shown


async def test_every_currency_is_written_with_all_its_iso_digits_in_both_languages(
    browser: BrowserContext, harness: Harness
) -> None:
    amounts = [
        {"currency": currency, "value": decimal_string(units, currency)}
        for currency in sorted(DIGITS)
        for units in (1, 1_234_567_899, 25 * 10 ** DIGITS[currency])
    ]
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        shown = await page.evaluate(
            """async (amounts) => {
              const { Figures } = await import(document.querySelector('link[href$="money.js"]').href);
              const figures = ["en-latn", "ar-latn", "ar-arab"].map((one) => new Figures(...one.split("-")));
              return amounts.map((money) => figures.map((of) => [of.money(money, false), of.money(money)]));
            }""",
            amounts,
        )
    for money, texts in zip(amounts, shown, strict=True):
        whole, _, part = money["value"].partition(".")
        for full, short in texts:
            assert number_in(full) == money["value"], full
            assert number_in(short) == (money["value"] if part.strip("0") else whole), short


@pytest.mark.parametrize(
    ("raised", "percent"),
    [("9996.00", 99), ("9999.99", 99), ("10000.00", 100), ("20000.00", 100), ("-5.00", 0)],
)
async def test_the_forms_bar_is_full_only_once_the_goal_is_reached(
    browser: BrowserContext, harness: Harness, raised: str, percent: int
) -> None:
    harness.totals = drive_totals(raised=usd(raised), goal=usd("10000.00"), percent=100.0, donations=7)
    harness.drive = {"raised": usd("0.00"), "donations": 0}
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await expect(page.locator("#gifts")).to_have_text("7 gifts")
        assert await page.locator("#progress").evaluate("bar => bar.value") == percent


# --- the form ---

OPEN = {
    "id": "plg_1",
    "token": "tok",
    "status": "open",
    "amount": usd("25.00"),
    "checkout": None,
    "queue": None,
}


def with_checkout(harness: Harness, **changes: Any) -> dict[str, Any]:
    return {**OPEN, "checkout": {"url": f"{harness.base}/checkout"}, **changes}


async def test_form_opens_the_payment_page(browser: BrowserContext, harness: Harness) -> None:
    harness.creators = [{"id": "crt_1", "slug": "nour", "name": "نور"}]
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en&creator=nour")
        await page.fill("#name", "Sara")
        await page.fill("#message", "Stay warm")
        await page.get_by_role("button", name="Give $25").click()
        await page.wait_for_url("**/checkout")
    sent = harness.pledge_requests[0]
    assert sent["headers"]["ataa-form-token"] == "f1.0.aa"
    assert sent["headers"]["prefer"] == "wait=5"
    assert sent["headers"]["origin"] == harness.base
    assert sent["body"]["amount"] == usd("25.00")
    assert sent["body"]["creator"] == "crt_1"
    assert sent["body"]["message"] == "Stay warm"
    assert sent["body"]["donor"] == {"locale": "en", "anonymous": False, "name": "Sara"}
    assert sent["body"]["return_url"] == f"{harness.base}/donate/winter/thanks?creator=crt_1&lang=en"


def creators(n: int) -> list[dict[str, Any]]:
    return [{"id": f"crt_{k}", "slug": f"c{k}", "name": f"Creator {k}"} for k in range(n)]


async def test_link_to_the_205th_creator_credits_that_creator(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.creators = creators(205)
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en&creator=C204")
        await expect(page.locator(".creator")).to_have_text("You give with Creator 204")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["creator"] == "crt_204"


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_one_of_thousands_of_creators_is_found_by_name(
    browser: BrowserContext, harness: Harness, lang: str
) -> None:
    harness.creators = creators(3000)
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang={lang}")
        options = page.locator("#creator option")
        await expect(options).to_have_count(101)
        await page.locator("#find").press_sequentially("creator 299")
        await expect(options).to_have_count(12)  # nobody, 299, and 2990 to 2999
        await expect(page.locator("#found")).to_contain_text("11")
        await page.press("#find", "Enter")
        await page.select_option("#creator", "crt_2995")
        await page.fill("#find", "no such")
        await expect(options).to_have_count(2)  # nobody, and the one chosen
        await page.fill("#find", "creator")
        await expect(page.locator("#found")).to_have_text(TRANSLATIONS["donate"][lang]["found_more"])
        await page.fill("#find", "")
        await expect(options).to_have_count(102)
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["creator"] == "crt_2995"
    assert harness.pledge_requests[0]["body"]["return_url"].endswith(f"/thanks?creator=crt_2995&lang={lang}")
    assert len(harness.pledge_requests) == 1  # Enter in the search field sends nothing
    assert len(harness.searched) < 8


async def test_failed_search_is_reported_and_keeps_the_options(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.creators = creators(101)
    harness.search_status = 503
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.fill("#find", "x")
        await expect(page.locator("#found")).to_contain_text("does not answer")
        await expect(page.locator("#creator option")).to_have_count(101)


async def test_second_donation_credits_the_same_creator(browser: BrowserContext, harness: Harness) -> None:
    harness.creators = creators(1)
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en&creator=c0")
        await page.click(".choices a")
        await expect(page.locator(".creator")).to_have_text("You give with Creator 0")


async def test_arabic_indic_digits_are_sent_as_ascii(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        await page.fill("#amount", "١٬٢٣٤٫٥")
        await expect(page.locator("#give")).to_contain_text("1,234.50")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["amount"] == usd("1234.50")


async def test_amounts_are_parsed_or_refused(browser: BrowserContext, harness: Harness) -> None:
    cases: list[list[Any]] = [
        ["25", 2, "25.00"], ["٢٥٫٥", 2, "25.50"], ["۱۲", 2, "12.00"], ["1,000", 2, "1000.00"],
        ["10,5", 2, "10.50"], ["५", 2, "unreadable"], [".", 2, "unreadable"], ["5.5", 0, "digits"],
        ["1,234,567.8", 2, "1234567.80"], [" 1 000 ", 2, "1000.00"], ["007", 2, "7.00"], [".5", 2, "0.50"],
        ["5.", 2, "5.00"], ["1.500", 3, "1.500"], ["٢٥٠٠", 0, "2500"], ["1,500", 3, "ambiguous"],
        ["", 2, "missing"], ["0", 2, "zero"], ["٠٫٠٠", 2, "zero"], ["1.234", 2, "digits"],
        ["-5", 2, "unreadable"], ["1e3", 2, "unreadable"], ["$5", 2, "unreadable"],
        ["١٢٣٤٥٦٧٨٩٠١٢٣٤", 2, "large"], ["1.2.3", 2, "unreadable"],
    ]  # fmt: skip
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        read = await page.evaluate(
            """async (cases) => {
              const address = document.querySelector('link[href$="amount.js"]').href;
              const { readAmount } = await import(address);
              return cases.map(([text, decimals]) => Object.values(readAmount(text, decimals))[0]);
            }""",
            cases,
        )
    assert read == [expected for _, _, expected in cases]


async def test_double_click_makes_one_pledge(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, OPEN))
    harness.pledge_views.append((200, {}, OPEN))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.dblclick("#give")
        await expect(page.locator("#waiting")).to_be_visible()
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == 1
    assert len(harness.pledge_requests) == 1


async def test_same_form_after_a_reload_has_the_same_key_and_another_form_its_own(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, OPEN))
    harness.pledge_views.append((200, {}, OPEN))
    async with tab(browser) as page:
        for amount in ("12", "12", "13"):
            await page.goto(f"{harness.base}/donate/winter?lang=en")
            await page.fill("#amount", amount)
            await page.click("#give")
            await expect(page.locator("#waiting")).to_be_visible()
    first, again, other = (sent["headers"]["idempotency-key"] for sent in harness.pledge_requests)
    assert first == again != other


async def test_busy_api_is_retried_after_retry_after_with_the_same_key(
    browser: BrowserContext, harness: Harness
) -> None:
    busy = {"type": "/problems/busy"}
    harness.pledge_answers.extend([(502, {}, busy), (409, {}, busy), (503, {"retry-after": "0"}, busy)])
    harness.pledge_answers.extend([(429, {"retry-after": "1"}, busy), (201, {}, with_checkout(harness))])
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#status")).to_contain_text("Trying again in 1 second…")
        await until(lambda: len(harness.pledge_requests) == 4)
        refused = time.monotonic()
        await page.wait_for_url("**/checkout")
    assert time.monotonic() - refused > 0.9
    assert len(harness.pledge_requests) == 5
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == 1
    assert len({str(sent["body"]) for sent in harness.pledge_requests}) == 1


async def test_lost_connection_is_reported_and_retried(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        await page.context.set_offline(True)
        await page.click("#give")
        await expect(page.locator("#status")).to_contain_text("لا يوجد اتصال")
        await page.context.set_offline(False)
        await page.wait_for_url("**/checkout")
    assert len(harness.pledge_requests) == 1


async def test_expired_page_gets_a_new_token_and_keeps_its_key(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((401, {}, {"type": "/problems/unauthorized"}))
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    old, new = (sent["headers"] for sent in harness.pledge_requests)
    assert (old["ataa-form-token"], new["ataa-form-token"]) == ("f1.0.aa", "f1.1.aa")
    assert old["idempotency-key"] == new["idempotency-key"]


REFUSALS: list[tuple[int, dict[str, Any], str, str]] = [
    (409, {"type": "/problems/drive-closed"}, "#problem", "This drive is closed"),
    (409, {"type": "/problems/drive-paused"}, "#problem", "paused for a moment"),
    (422, {"type": "/problems/amount-too-large"}, "#amount-error", "more than one card payment"),
    (422, {"errors": [{"pointer": "/donor/email", "detail": "x"}]}, "#email-error", "e-mail address"),
    (422, {"errors": [{"pointer": "/message", "detail": "x"}]}, "#message-error", "280 characters"),
    (422, {"errors": [{"pointer": "/donor/locale", "detail": "x"}]}, "#problem", "look it over"),
    (404, {"type": "/problems/not-found"}, "#problem", "does not exist"),
]


async def test_refusal_is_explained_and_the_next_attempt_has_a_new_key(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.extend((status, {}, problem) for status, problem, _, _ in REFUSALS)
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        for _, _, place, sentence in REFUSALS:
            await page.click("#give")
            await expect(page.locator(place)).to_contain_text(sentence)
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == len(REFUSALS) + 1


async def test_all_errors_are_shown_at_once_and_the_first_has_the_focus(
    browser: BrowserContext, harness: Harness
) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        await page.fill("#amount", "1.234")
        await page.fill("#email", "nobody")
        await page.click("#give")
        await expect(page.locator("#amount-error")).to_contain_text("25.00")
        await expect(page.locator("#email-error")).not_to_be_empty()
        assert await page.evaluate("document.activeElement.id") == "amount"
        assert await page.locator("#amount").get_attribute("aria-invalid") == "true"
    assert harness.pledge_requests == []


async def test_the_first_in_the_queue_is_next_and_then_its_page_is_made(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, {**OPEN, "queue": {"position": 1, "eta_seconds": 1}}))
    harness.pledge_views += [
        (200, {}, {**OPEN, "queue": {"position": position, "eta_seconds": position}}) for position in (1, 0)
    ]
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#waiting-queue")).to_have_text("Yours is next. About 1 second.")
        await expect(page.locator("#waiting-queue")).to_have_text("Your payment page is being made.")


async def test_queue_without_a_connection_says_so_and_a_missing_pledge_leads_back_to_the_form(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, {**OPEN, "queue": {"position": 3, "eta_seconds": 1}}))
    harness.pledge_views += [(503, {}, {}), (404, {}, {})]
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#waiting-text")).to_have_text(
            "No connection. Your gift is saved, and we keep asking."
        )
        await expect(page.locator("#problem")).to_contain_text("Something went wrong")
        await expect(page.locator("#form")).to_be_visible()


async def test_queued_donation_shows_its_position_and_continues_to_payment(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, {**OPEN, "queue": {"position": 123, "eta_seconds": 8}}))
    harness.pledge_views.append((200, {}, {**OPEN, "queue": {"position": 7, "eta_seconds": 1}}))
    harness.pledge_views.append((503, {}, {}))
    harness.pledge_views.append((200, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#waiting-queue")).to_have_text("Number 7 in the queue. About 1 second.")
        await page.wait_for_url("**/checkout")


async def test_checkout_url_that_is_not_http_is_not_opened(browser: BrowserContext, harness: Harness) -> None:
    bad = with_checkout(harness, checkout={"url": "javascript:document.title='owned'"})
    harness.pledge_answers.append((201, {}, bad))
    harness.pledge_views.append((200, {}, bad))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#waiting")).to_be_visible()
        assert await page.title() != "owned"


async def test_return_without_payment_offers_to_continue_the_same_donation(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await expect(page.locator("#resume-text")).to_have_text("Your gift of $25 is not paid yet.")
        await page.click("#resume-go")
        await page.wait_for_url("**/checkout")
    assert len(harness.pledge_requests) == 1


async def test_form_works_by_keyboard(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.focus("input[name=menu]:checked")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#give")).to_have_text("Give $50")
        await page.focus("#name")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["amount"] == usd("50.00")


@pytest.mark.parametrize("lang", ["ar", "en"])
async def test_no_page_scrolls_sideways_on_the_narrowest_phone(
    browser: BrowserContext, harness: Harness, lang: str
) -> None:
    kwd = {"currency": "KWD", "value": "999999999.995"}
    harness.totals = drive_totals(currency="KWD", raised=kwd, goal=kwd, title="W" * 120)
    harness.drive = {"test": True, "description": "x" * 200}
    harness.creators = [{"slug": "x", "name": "N" * 100}, {"slug": "y", "name": "W" * 100}]
    harness.listed = 1
    async with tab(browser) as page:
        await page.set_viewport_size({"width": 320, "height": 640})
        for path in (
            "/donate/winter?",
            "/donate/winter?creator=x&",
            "/donate/winter?creator=gone&",
            "/donate/winter/thanks?",
            "/donate/none?",
        ):
            await page.goto(f"{harness.base}{path}lang={lang}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320


# --- thanks ---


async def test_thanks_page_waits_for_the_payment_and_then_clears_the_stored_donation(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, OPEN))
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "waiting")
        await expect(page.locator("#amount")).to_have_text("$25 received")
        assert await page.evaluate("sessionStorage.length") == 0


async def test_every_status_of_a_pledge_has_a_text(browser: BrowserContext, harness: Harness) -> None:
    outcomes = {"lapsed": "lapsed", "cancelled": "lapsed", "partly_refunded": "refunded", "novel": "unknown"}
    async with tab(browser) as page:
        for status, outcome in outcomes.items():
            harness.pledge_views.clear()
            harness.pledge_views.append((200, {}, {**OPEN, "status": status}))
            await page.goto(f"{harness.base}/donate/winter/thanks?lang=ar&pledge=plg_1&token=tok")
            await expect(page.locator("#outcome")).to_have_attribute("data-status", outcome)


async def test_wrong_token_shows_a_general_thank_you(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_views.append((404, {}, {"type": "/problems/not-found"}))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en&pledge=plg_1&token=bad")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "unknown")
