"""What the donate form adds to a gift, and how it behaves, in Chromium."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import BrowserContext, expect

from backbone.stripe_amounts import step
from backbone.transparency.merkle import leaf_hash, node_hash
from gateway.fees import FeeRule
from tests.gateway.pages_harness import Harness, usd
from tests.gateway.test_pages_in_browser import HOSTILE, OPEN, browser, harness, tab, with_checkout
from tests.waiting import until

__all__ = ["browser", "harness"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULE = FeeRule(290, {"USD": 30})


def fee_of(charged: int, rule: dict[str, int]) -> int:
    """The processor's fee of a charge: its share, rounded up, and the fixed part."""
    return -(-charged * rule["bps"] // 10_000) + rule["fixed"]


async def test_the_sum_with_the_fee_is_the_least_that_leaves_the_whole_gift(
    browser: BrowserContext, harness: Harness
) -> None:
    chance = random.Random(29)  # noqa: S311  the same cases each time
    cases = [
        (
            chance.choice([1, 50, 99, chance.randrange(1, 10**4), chance.randrange(1, 10**17)]),
            {
                "bps": chance.choice([0, 1, 290, 1_999, 2_000, chance.randrange(2_001)]),
                "fixed": chance.choice([0, 30, chance.randrange(1_000)]),
                "step": chance.choice([1, 10, 100]),
            },
        )
        for _ in range(3_000)
    ]
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        sums = await page.evaluate(
            """async (cases) => {
              const { withFee } = await import(document.querySelector('link[href$="fee.js"]').href);
              return cases.map(([minor, rule]) => String(withFee(BigInt(minor), rule)));
            }""",
            [[str(minor), rule] for minor, rule in cases],
        )
    for (minor, rule), text in zip(cases, sums, strict=True):
        charged = int(text)
        assert charged % rule["step"] == 0
        assert charged - fee_of(charged, rule) >= minor
        # One step less would not leave the whole gift.
        less = charged - rule["step"]
        assert less * (10_000 - rule["bps"]) < (minor + rule["fixed"]) * 10_000


async def test_the_sum_is_shown_before_it_is_charged(browser: BrowserContext, harness: Harness) -> None:
    harness.fee = RULE.of("USD")
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await expect(page.locator("#cover-text")).to_have_text("Add $1.06 to cover the payment fee")
        await expect(page.locator("#charged")).to_be_empty()
        await page.get_by_label("cover the payment fee").check()
        await expect(page.locator("#charged")).to_have_text("You pay $26.06, so that about $25 arrives.")
        await expect(page.locator("#give")).to_have_text("Give $26.06")
        await page.fill("#amount", "10.001")
        await expect(page.locator("#charged")).to_be_empty()
        await page.fill("#amount", "100")
        await expect(page.locator("#give")).to_have_text("Give $103.30")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["amount"] == usd("103.30")


async def test_a_sum_in_kuwaiti_dinars_is_one_that_stripe_takes(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals["currency"], harness.fee = "KWD", RULE.of("KWD")
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        await page.fill("#amount", "\u0667\u066b\u0661\u0662")
        await page.check("#cover")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"]["amount"] == {"currency": "KWD", "value": "7.340"}
    assert 7_340 % step("KWD") == 0


@pytest.mark.parametrize(("label", "sent"), [("Zakat", "zakat"), ("Sadaqah", "sadaqah"), ("A gift", None)])
async def test_zakat_and_sadaqah_are_offered_where_the_drive_takes_zakat(
    browser: BrowserContext, harness: Harness, label: str, sent: str | None
) -> None:
    harness.drive = {"zakat_eligible": True}
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.get_by_role("radio", name=label).check()
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert harness.pledge_requests[0]["body"].get("purpose") == sent


async def test_other_drives_do_not_ask_for_a_purpose(browser: BrowserContext, harness: Harness) -> None:
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=ar")
        assert await page.locator("input[name=purpose], #cover").count() == 0


async def test_a_message_is_counted_in_characters_as_the_api_counts(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.fill("#message", "\U0001f9e3" * 270)
        await expect(page.locator("#message-left")).to_have_text("10 characters left")
        assert await page.locator("#message-left").get_attribute("aria-live") == "polite"
        await page.fill("#message", "\U0001f9e3" * 281)
        await expect(page.locator("#message-left")).to_have_text("1 character too many")
        await page.click("#give")
        await expect(page.locator("#message-error")).to_contain_text("280")
        await page.fill("#message", "\U0001f9e3" * 280)
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    assert len(harness.pledge_requests) == 1
    assert len(harness.pledge_requests[0]["body"]["message"]) == 280


async def test_two_tabs_make_one_gift_each(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_answers.append((201, {}, OPEN))
    harness.pledge_views.append((200, {}, OPEN))
    async with tab(browser) as one, tab(browser) as other:
        for page in (one, other):
            await page.goto(f"{harness.base}/donate/winter?lang=en")
        for page in (one, other):
            await page.dblclick("#give")
        for page in (one, other):
            await expect(page.locator("#waiting")).to_be_visible()
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == 2
    assert len(harness.pledge_requests) == 2


async def test_the_back_button_after_payment_shows_a_fresh_form(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "paid")
        await page.go_back()
        await page.go_back()
        await expect(page.locator("#give")).to_be_enabled()
        await expect(page.locator("#give")).not_to_have_attribute("aria-disabled", "true")
        await expect(page.locator("#resume")).to_be_hidden()
        await expect(page.locator("#status")).to_be_empty()
        await page.click("#give")
        await until(lambda: len(harness.pledge_requests) == 2)
    assert len({sent["headers"]["idempotency-key"] for sent in harness.pledge_requests}) == 2


async def test_a_form_that_the_browser_kept_is_loaded_again(
    browser: BrowserContext, harness: Harness
) -> None:
    """Playwright's Chromium keeps no pages, so the event of a kept one is dispatched by the test."""
    harness.pledge_answers.append((201, {}, OPEN))
    harness.pledge_views.append((200, {}, OPEN))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await page.click("#give")
        await expect(page.locator("#waiting")).to_be_visible()
        await page.evaluate(
            "() => { dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })) }"
        )
        await expect(page.locator("#resume")).to_be_visible()
        await expect(page.locator("#give")).not_to_have_attribute("aria-disabled", "true")


async def test_a_whole_gift_by_keyboard_alone(browser: BrowserContext, harness: Harness) -> None:
    harness.fee, harness.drive = RULE.of("USD"), {"zakat_eligible": True}
    harness.pledge_answers.append((201, {}, with_checkout(harness)))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")

        async def tab_to(name: str) -> None:
            for _ in range(20):
                await page.keyboard.press("Tab")
                if await page.evaluate("document.activeElement.id || document.activeElement.name") == name:
                    return
            raise AssertionError(f"{name} is not reached with the Tab key")

        await tab_to("menu")
        await page.keyboard.press("ArrowRight")
        await tab_to("cover")
        await page.keyboard.press("Space")
        await tab_to("purpose")
        await page.keyboard.press("ArrowRight")
        await tab_to("name")
        await page.keyboard.type("Sara")
        await tab_to("anonymous")
        await page.keyboard.press("Space")
        await tab_to("message")
        await page.keyboard.type("Stay warm")
        await tab_to("give")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/checkout")
    body = harness.pledge_requests[0]["body"]
    assert (body["amount"], body["purpose"], body["message"]) == (usd("51.81"), "sadaqah", "Stay warm")
    assert body["donor"] == {"locale": "en", "anonymous": True, "name": "Sara"}


async def test_texts_of_drives_and_creators_are_shown_as_text(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.totals["title"] = HOSTILE
    harness.drive = {"description": HOSTILE}
    harness.creators = [
        {"id": "crt_1", "slug": "x", "name": HOSTILE},
        {"id": "crt_2", "slug": "y", "name": HOSTILE},
    ]
    harness.pledge_views.append((200, {}, {**OPEN, "status": HOSTILE, "creator": HOSTILE}))
    async with tab(browser) as page:
        for query in ("", "&creator=x"):
            await page.goto(f"{harness.base}/donate/winter?lang=en{query}")
            await expect(page.locator("#gifts")).not_to_be_empty()
            assert await page.locator("img, main script").count() == 0
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en&pledge=plg_1&token=t&creator={HOSTILE}")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "unknown")
        assert await page.locator("img, main script").count() == 0
        assert await page.title() != "owned"


async def test_gifts_are_shown_as_doubled_while_a_pool_has_something_left(
    browser: BrowserContext, harness: Harness
) -> None:
    pool = {
        "id": "mch_1", "sponsor": HOSTILE, "cap": usd("5000.00"), "used": usd("1250.00"), "ratio": "1.00",
    }  # fmt: skip
    spent = {**pool, "id": "mch_0", "used": usd("5000.00")}
    harness.totals["matching"] = [spent, pool]
    async with tab(browser) as page:
        await page.clock.install()
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        line = page.locator("#doubled")
        await expect(line).to_contain_text("Gifts are doubled by")
        await expect(line).to_contain_text("$3,750 left")
        assert await page.locator("img, main script").count() == 0
        harness.totals["matching"] = [{**pool, "ratio": "0.50", "used": usd("4999.99")}]
        harness.totals["sequence"] += 1
        await page.clock.fast_forward(15_000)
        await expect(line).to_contain_text("adds 50% to gifts")
        await expect(line).to_contain_text("$0.01 left")
        harness.totals["matching"] = [{**pool, "used": usd("5000.00")}]  # another gift took the rest
        harness.totals["sequence"] += 1
        await page.clock.fast_forward(15_000)
        await expect(line).to_be_hidden()


async def test_pool_of_one_creator_is_named_while_the_form_credits_that_creator(
    browser: BrowserContext, harness: Harness
) -> None:
    pool = {"id": "mch_1", "sponsor": "Acme", "cap": usd("5000.00"), "used": usd("0.00"), "ratio": "1.00"}
    limited = {**pool, "id": "mch_2", "sponsor": "Noor's sponsor", "creator": "crt_1"}
    harness.totals["matching"] = [limited]
    harness.creators = [{"id": "crt_1", "slug": "noor", "name": "Noor"}]
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter?lang=en")
        await expect(page.locator("#gifts")).not_to_be_empty()
        line = page.locator("#doubled")
        await expect(line).to_be_hidden()
        await page.select_option("#creator", "crt_1")
        await expect(line).to_contain_text("Noor's sponsor")
        await page.select_option("#creator", "")
        await expect(line).to_be_hidden()
        harness.totals["matching"] = [limited, pool]
        await page.reload()
        await expect(line).to_contain_text("Acme")
        harness.totals["matching"] = [limited]
        for creator, shown in (("crt_1", True), ("noor", True), ("other", False)):
            await page.goto(f"{harness.base}/donate/winter?lang=en&creator={creator}")
            await expect(page.locator("#gifts")).not_to_be_empty()
            assert await line.is_visible() is shown


BADGE = b"""<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="5"/></svg>"""


def proof_of(pledge_id: str) -> dict[str, Any]:
    """The proof of a gift that is the second of three rows."""
    usd = {"currency": "USD", "value": "25.00"}
    row = {"sequence": 2, "type": "donation.counted", "pledge": pledge_id, "amount": usd, "creator": "Nōur"}
    entry = json.dumps(row, sort_keys=True, separators=(",", ":")).encode()
    before, leaf, after = leaf_hash(b"1"), leaf_hash(entry), leaf_hash(b"3")
    root = b64encode(node_hash(node_hash(before, leaf), after)).decode()
    path = [b64encode(one).decode() for one in (before, after)]
    checkpoint = f"ataa.test/v1/drives/drv_1/1\n3\n{root}\n\n— ataa.test AAAA\n"
    return {"row": row, "index": 1, "tree_size": 3, "inclusion_path": path, "checkpoint": checkpoint}


async def test_a_paid_gift_can_be_shared_and_its_badge_saved_as_a_picture(
    browser: BrowserContext, harness: Harness
) -> None:
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    harness.badge = BADGE
    harness.proof = proof_of("plg_1")
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=en&creator=nour&pledge=plg_1&token=tok")
        await expect(page.locator("#share")).to_be_visible()
        await expect(page.locator("#proof")).to_contain_text("row 2 of the drive’s public log. Your browser")
        await expect(page.locator("#proof a")).to_have_attribute("href", "/v1/pledges/plg_1/proof?token=tok")
        link = f"{harness.base}/donate/winter?creator=nour&lang=en"
        whatsapp = str(await page.get_by_role("link", name="WhatsApp").get_attribute("href"))
        assert parse_qs(urlsplit(whatsapp).query)["text"] == [
            f"I gave to “Let's make their winter warmer”. Give too: {link}"
        ]
        for name in ("Telegram", "X", "Facebook"):
            anchor = page.get_by_role("link", name=name, exact=True)
            assert str(await anchor.get_attribute("href")).startswith("https://")
            assert await anchor.get_attribute("rel") == "noopener"
        await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
        await page.get_by_role("button", name="Copy the link").click()
        await expect(page.locator("#copied")).to_contain_text(link)
        picture = page.get_by_role("img", name="A round frame")
        await expect(picture).to_have_attribute("src", "/badge/plg_1.svg?token=tok&lang=en")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Save the picture").click()
        saved = await download.value
        assert saved.suggested_filename == "winter-badge.png"
        assert Path(await saved.path()).read_bytes().startswith(b"\x89PNG")  # noqa: ASYNC240
        # The links of other sites get no address of the thanks page, which has the token in it.
        assert await page.evaluate(
            "performance.getEntriesByType('resource').every((one) => one.name.startsWith(origin))"
        )


async def test_a_proof_that_is_not_valid_gets_no_tick(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_views.append((200, {}, {**OPEN, "status": "paid"}))
    harness.proof = proof_of("plg_1")
    harness.proof["row"]["amount"]["value"] = "26.00"
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=ar&pledge=plg_1&token=tok")
        await expect(page.locator("#proof")).to_contain_text("تعذّر التحقق")


async def test_an_unpaid_gift_is_not_shared(browser: BrowserContext, harness: Harness) -> None:
    harness.pledge_views.append((200, {}, {**OPEN, "status": "refunded"}))
    async with tab(browser) as page:
        await page.goto(f"{harness.base}/donate/winter/thanks?lang=ar&pledge=plg_1&token=tok")
        await expect(page.locator("#outcome")).to_have_attribute("data-status", "refunded")
        await expect(page.locator("#share")).to_be_hidden()
