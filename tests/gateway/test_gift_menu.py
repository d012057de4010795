"""The amounts that the form suggests in another currency than the drive's, and the choice of one."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from backbone.exchange_rates import MAX_UNITS, converted, is_rate
from backbone.money import digits, parse
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, largest, smallest, step
from gateway.pages import Creators, OtherCurrency, donate_page, static, thanks_page
from gateway.pages.gift_menu import converted_menu
from tests.gateway.pages_harness import usd

CODES = st.sampled_from(sorted(SUPPORTED_CURRENCIES))
RATES = st.decimals("0.000001", "99999", places=6).map(lambda rate: format(rate, "f")).filter(is_rate)
MENU_USD = (2_500, 1_000, 500, 5_000, 2_000)
DRIVE = {"id": "drv_1", "slug": "winter", "title": "Winter", "currency": "USD", "goal": usd("100.00")}
KWD = OtherCurrency("KWD", "3.2581", {"bps": 290, "fixed": 0, "step": 10})
JPY = OtherCurrency("JPY", "0.0064531")


def is_round(units: int) -> bool:
    """Whether it is 1, 2, 2.5 or 5 times a power of ten."""
    return re.fullmatch("(1|2|5|25)0*", str(units)) is not None


def distance(units: int, exact: Fraction) -> Fraction:
    return max(units / exact, exact / units)


@given(CODES, CODES, RATES, st.lists(st.integers(1, 10**9), min_size=1, max_size=12))
@example("USD", "KWD", "3.2581", list(MENU_USD))
@example("USD", "JPY", "0.0064531", list(MENU_USD))
@example("USD", "KWD", "0.000001", [500])
@example("JPY", "USD", "99999", [1])
def test_converted_amounts_are_round_ones_that_stripe_takes(
    own: str, other: str, rate: str, menu: list[int]
) -> None:
    found = converted_menu(tuple(menu), own, other, rate)
    taken = [
        units
        for first in (1, 2, 5, 25)
        for zeros in range(13)
        for units in [first * 10**zeros]
        if smallest(other) <= units <= largest(other)
        and not units % step(other)
        and smallest(own) <= converted(units, other, own, rate) <= MAX_UNITS
    ]
    assert bool(found) is bool(taken)
    assert len(set(found)) == len(found) <= len(menu)
    assert all(is_round(units) and units in taken for units in found)
    one = Fraction(rate) * Fraction(10 ** digits(own), 10 ** digits(other))
    for units in menu if found else ():
        nearest = min(distance(each, units / one) for each in taken)
        assert nearest in {distance(each, units / one) for each in found}
    if found:
        first = distance(found[0], menu[0] / one)
        assert first == min(distance(each, menu[0] / one) for each in taken)  # what the drive suggests, first


def test_dollars_become_round_amounts_of_dinars_and_yen() -> None:
    assert converted_menu(MENU_USD, "USD", "KWD", "3.2581") == (10_000, 2_500, 2_000, 20_000, 5_000)
    assert converted_menu(MENU_USD, "USD", "JPY", "0.0064531") == (5_000, 2_000, 1_000, 10_000, 2_500)
    assert converted_menu((50,), "USD", "KWD", "90") == (10,)  # 0.006 KWD: Stripe takes hundredths
    assert converted_menu((50,), "USD", "JPY", "0.0064531") == (
        100,
    )  # 77, of which no round amount is worth 0.50


# --- the form ---


def form(*others: OtherCurrency, lang: str = "en", **query: str) -> tuple[str, dict[str, Any]]:
    html = donate_page(DRIVE, Creators(), {"lang": lang, **query}, "f1.1.a", others=others).decode()
    data = re.search(r'id="page">(.*?)</script>', html)
    assert data is not None
    return html, json.loads(data[1])


def menu_of(html: str) -> list[str]:
    return re.findall('name="menu" value="([^"]+)"', html)


def test_the_form_of_a_drive_with_one_currency_has_no_choice() -> None:
    html, page = form(currency="KWD")
    assert "<select" not in html and 'id="worth"' not in html and "in-currency" not in html
    assert page["currency"] == "USD"
    assert not {"currencies", "rate"} & page.keys()
    assert not {"worth", "error_no_rate", "error_currency"} & page["texts"].keys()


def test_the_drives_own_currency_is_chosen_unless_the_address_names_one_that_is_offered() -> None:
    for asked in ("", "USD", "EUR", "x", "KWD USD", '"><script>'):
        html, page = form(KWD, JPY, currency=asked)
        assert (page["currency"], page["decimals"]) == ("USD", 2), asked
        assert '<option value="USD" selected>' in html
        assert '<p id="worth" class="hint" role="status"></p>' in html
    html, page = form(KWD, JPY, currency=" kwd")
    assert (page["currency"], page["decimals"], page["rate"]) == ("KWD", 3, "3.2581")
    assert page["fee"] == {"bps": 290, "fixed": 0, "step": 10}
    assert menu_of(html) == ["2.000", "2.500", "5.000", "10.000", "20.000"]
    assert 'value="10.000" checked' in html
    assert 'placeholder="25.000"' in html
    assert "About $32.58 for this drive." in html
    assert page["currencies"]["USD"]["rate"] is None
    assert page["currencies"]["JPY"]["menu"] == ["1000", "2000", "2500", "5000", "10000"]
    assert menu_of(form(KWD, JPY, currency="JPY")[0]) == page["currencies"]["JPY"]["menu"]


def test_the_choice_is_named_in_the_language_and_digits_of_the_page() -> None:
    html, _ = form(KWD, lang="ar", digits="arab", currency="KWD")
    assert "دينار كويتي (KWD)" in html
    assert "٣٢٫٥٨" in html
    assert 'placeholder="٢٥٫٠٠٠"' in html


def test_the_choice_works_without_a_script_and_keeps_what_the_address_says() -> None:
    html, _ = form(KWD, creator="layla", campaign="ramadan", token="x", currency="KWD")
    kept = re.search('<form id="in-currency" hidden>(.*?)</form>', html)
    assert kept is not None
    assert dict(re.findall('name="([a-z]+)" value="([^"]*)"', kept[1])) == {
        "creator": "layla", "campaign": "ramadan", "lang": "en",
    }  # fmt: skip
    assert '<noscript><button form="in-currency"' in html


def test_other_pages_keep_the_currency() -> None:
    html, page = form(KWD, currency="KWD")
    assert "currency=KWD" in html.partition("<h1")[0].rpartition("<nav")[2]  # the form in the other language
    assert page["query"] == {"lang": "en", "currency": "KWD"}
    assert "currency" not in form(KWD, currency="EUR")[1]["query"]
    thanks = thanks_page(DRIVE, {"lang": "en", "currency": "KWD"}).decode()
    assert "/donate/winter?currency=KWD&amp;lang=en" in thanks


def test_a_currency_without_an_amount_to_suggest_is_not_offered() -> None:
    assert "KWD" in form(OtherCurrency("KWD", "99999999"))[1]["currencies"]
    assert "currencies" not in form(OtherCurrency("KWD", "0.00000000001"))[1]


def test_a_choice_of_currencies_costs_the_form_little() -> None:
    plain, chosen = form()[0], form(KWD, JPY, OtherCurrency("EUR", "1.08"), OtherCurrency("AED", "0.2723"))[0]
    assert len(chosen) - len(plain) < 2_600


def test_the_form_has_every_text_that_its_scripts_name() -> None:
    html, page = form(KWD)
    scripts = re.findall(r'(?:src|href)="(/[^"]+[.]js)"', html)
    assert any(path.endswith("/currency.js") for path in scripts)
    code = "".join(found[0].decode() for path in scripts if (found := static(path)))
    named = set(re.findall(r"\btexts\.(\w+)\b(?!\()", code))
    assert {"worth", "error_no_rate"} <= named <= page["texts"].keys()


def test_amounts_have_the_digits_of_their_currency() -> None:
    _, page = form(KWD, JPY)
    for code, one in page["currencies"].items():
        for value in (*one["menu"], one["chosen"], one["example"]):
            assert parse(value, code) > 0
