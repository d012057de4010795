"""The choice of a currency on the donate form, in Chromium."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect

from backbone.exchange_rates import converted, cross
from backbone.money import decimal_string, parse
from gateway.pages import OtherCurrency
from tests.gateway.pages_harness import KEY, Harness, usd
from tests.gateway.test_embed_in_browser import Partner, browser, embed, form_in, sites
from tests.gateway.test_pages_in_browser import OPEN, tab, with_checkout

__all__ = ["browser", "sites"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHERS = (
    OtherCurrency("KWD", "3.2581", {"bps": 290, "fixed": 0, "step": 10}),
    OtherCurrency("JPY", "0.0064531", {"bps": 290, "fixed": 0, "step": 1}),
)
KWD_GIFT = {"currency": "KWD", "value": "10.000"}


def kwd(amount: str) -> str:
    """As the pages show it: the code isolated from the direction of its line, and a no-break space."""
    return f"\u2066KWD\u2069\u00a0{amount}"


@pytest.fixture
def ataa(sites: tuple[Harness, Partner]) -> Harness:
    harness = sites[0]
    harness.others, harness.fee = OTHERS, {"bps": 290, "fixed": 30, "step": 1}
    return harness


async def test_a_gift_in_a_chosen_currency(browser: BrowserContext, ataa: Harness) -> None:
    ataa.pledge_answers.append((201, {}, {**with_checkout(ataa), "amount": KWD_GIFT}))
    ataa.pledge_views.append((200, {}, {**OPEN, "amount": KWD_GIFT}))
    async with tab(browser) as page:
        await page.goto(f"{ataa.base}/donate/winter?lang=en&digits=latn")
        await expect(page.locator("#give")).to_have_text("Give $25")
        await expect(page.locator("#worth")).to_be_empty()
        await page.select_option("#currency", "KWD")
        await expect(page.locator("#give")).to_have_text(f"Give {kwd('10')}")
        await expect(page.locator("#worth")).to_contain_text("About $32.58 for this drive.")
        amounts = [kwd(amount) for amount in ("2", "2.500", "5", "10", "20")]
        await expect(page.locator("#menu label")).to_have_text(amounts)
        await expect(page.locator(".amount .currency")).to_have_text("KWD")
        await page.check("#cover")
        await expect(page.locator("#charged")).to_contain_text(kwd("10.300"))
        await expect(page.locator("#worth")).to_contain_text("$33.56")  # of what is charged: that counts
        await page.uncheck("#cover")
        await page.check('#menu input[value="20.000"]')
        await expect(page.locator("#worth")).to_contain_text("$65.16")
        await page.fill("#amount", "1.2345")
        await expect(page.locator("#worth")).to_be_empty()
        await page.click("#give")
        await expect(page.locator("#amount-error")).to_contain_text("25.000")
        assert not ataa.pledge_requests
        await page.select_option("#currency", "JPY")
        await expect(page.locator("#amount-error")).to_be_empty()
        await page.select_option("#currency", "USD")
        await expect(page.locator("#worth")).to_be_empty()
        await page.select_option("#currency", "KWD")
        await page.fill("#amount", "\u0661\u0660\u066b\u0660")  # 10.0 in Arabic digits
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        request = ataa.pledge_requests[0]["body"]
        assert request["amount"] == KWD_GIFT
        assert "currency=KWD" in request["return_url"]
        # Back without having paid: the form has what was entered, in the currency of the gift.
        await page.goto(f"{ataa.base}/donate/winter?lang=en")
        await expect(page.locator("#resume-text")).to_contain_text(kwd("10"))
        await expect(page.locator("#currency")).to_have_value("KWD")
        await expect(page.locator("#amount")).to_have_value("\u0661\u0660\u066b\u0660")
        await expect(page.locator("#worth")).to_contain_text("$32.58")
        ataa.pledge_views.clear()
        ataa.pledge_views.append((200, {}, {**OPEN, "amount": KWD_GIFT, "status": "paid"}))
        await page.goto(request["return_url"])
        await expect(page.locator("#amount")).to_have_text(f"{kwd('10')} received")
        await page.locator(".choices a").first.click()
        await expect(page.locator("#currency")).to_have_value("KWD")


async def test_a_currency_without_a_rate_is_reported_at_the_choice_at_once(
    browser: BrowserContext, ataa: Harness
) -> None:
    ataa.pledge_answers.append((409, {}, {"type": "/problems/no-exchange-rate"}))
    ataa.pledge_answers.append((422, {}, {"type": "/problems/currency-not-accepted"}))
    ataa.pledge_answers.append((201, {}, with_checkout(ataa)))
    async with tab(browser) as page:
        await page.goto(f"{ataa.base}/donate/winter?lang=ar&currency=kwd")
        await page.click("#give")
        await expect(page.locator("#currency-error")).to_contain_text("لا يتوفر سعر صرف")
        await expect(page.locator("#currency")).to_be_focused()
        assert len(ataa.pledge_requests) == 1  # such a refusal is final
        await page.click("#give")
        await expect(page.locator("#currency-error")).to_contain_text("لا تقبل هذه الحملة هذه العملة")
        await page.select_option("#currency", "USD")
        await expect(page.locator("#currency-error")).to_be_empty()
        await page.click("#give")
        await page.wait_for_url("**/checkout")
    keys = [one["headers"]["idempotency-key"] for one in ataa.pledge_requests]
    assert len(set(keys)) == 3
    assert ataa.pledge_requests[2]["body"]["amount"] == usd("25.00")


async def test_an_amount_of_a_currency_that_is_no_longer_offered_is_not_entered_again(
    browser: BrowserContext, ataa: Harness
) -> None:
    ataa.pledge_answers.append((201, {}, {**with_checkout(ataa), "amount": KWD_GIFT}))
    ataa.pledge_views.append((200, {}, {**OPEN, "amount": KWD_GIFT}))
    async with tab(browser) as page:
        await page.goto(f"{ataa.base}/donate/winter?lang=en&currency=KWD")
        await page.fill("#amount", "10")
        await page.fill("#name", "Sara")
        await page.click("#give")
        await page.wait_for_url("**/checkout")
        ataa.others = OTHERS[1:]
        await page.goto(f"{ataa.base}/donate/winter?lang=en")
        await expect(page.locator("#resume-text")).to_contain_text(kwd("10"))
        await expect(page.locator("#name")).to_have_value("Sara")
        await expect(page.locator("#amount")).to_have_value("")
        await expect(page.locator("#give")).to_have_text("Give")
    assert "currency=KWD" in ataa.pledge_requests[0]["body"]["return_url"]


async def test_the_embedded_form_starts_in_the_currency_of_its_tag(
    browser: BrowserContext, sites: tuple[Harness, Partner], ataa: Harness
) -> None:
    partner = sites[1]
    partner.html = embed(ataa, currency="JPY")
    async with tab(browser) as page:
        await page.goto(partner.base)
        await expect(form_in(page).locator("#give")).to_have_text("Give ¥5,000")
        await expect(form_in(page).locator("#worth")).to_contain_text("$32.27")


async def test_the_choice_works_before_the_script_and_without_it(
    browser: BrowserContext, ataa: Harness
) -> None:
    owner = browser.browser
    assert owner is not None
    plain = await owner.new_context(java_script_enabled=False)
    page = await plain.new_page()
    query = f"key={KEY}&origin={ataa.frame_origins[0]}&lang=en"
    await page.goto(f"{ataa.base}/embed/winter?{query}")
    await page.select_option("#currency", "KWD")
    await page.get_by_role("button", name="Show the amounts").click()
    await expect(page.locator("#worth")).to_contain_text("About $32.58")
    assert await page.locator("#menu input").nth(3).is_checked()
    await plain.close()


async def test_the_script_computes_what_a_gift_is_worth_as_the_api_does(
    browser: BrowserContext, ataa: Harness
) -> None:
    chance = random.Random(41)  # noqa: S311  the same cases each time
    rates = ["0.5", "2.5", "0.0005", "3.2581", "99999999", cross("0.33", "1.1")]
    cases: list[dict[str, Any]] = []
    for _ in range(2_000):
        source, target = chance.choice(["KWD", "JPY", "EUR"]), chance.choice(["USD", "BHD", "KRW"])
        value = decimal_string(chance.choice([1, 5, 25, chance.randrange(1, 10**10)]), source)
        rate = chance.choice([*rates, str(chance.randrange(1, 10**6))])
        cases.append({"source": source, "target": target, "value": value, "rate": rate})
    decimals = {"KWD": 3, "JPY": 0, "EUR": 2, "USD": 2, "BHD": 3, "KRW": 0}
    async with tab(browser) as page:
        await page.goto(f"{ataa.base}/donate/winter?lang=en&currency=KWD")
        await expect(page.locator("#give")).to_be_enabled()
        found = await page.evaluate(
            """async ([cases, decimals]) => {
              const { src } = document.querySelector(`script[src$="currency.js"]`);
              const at = (name) => src.replace("currency", name);
              const { worth } = await import(at("currency"));
              const { page } = await import(at("form_page"));
              const own = page.currencies.USD;
              return cases.map(({ source, target, value, rate }) => {
                Object.assign(page, { rate, decimals: decimals[source] });
                Object.assign(own, { currency: target, decimals: decimals[target] });
                return worth(value);
              });
            }""",
            [cases, decimals],
        )
    for case, shown in zip(cases, found, strict=True):
        source, target = case["source"], case["target"]
        units = converted(parse(case["value"], source), source, target, case["rate"])
        assert shown == {"currency": target, "value": decimal_string(units, target)}, json.dumps(case)
