"""The console shows what of a drive's money is zakat, and pays it out where the form says so."""

from __future__ import annotations

import json
from html import unescape
from typing import Any, Final

import pytest

from gateway.console.money_page import STATED, ZAKAT
from gateway.console.money_texts import MONEY_AR, MONEY_EN
from gateway.console.proposal_texts import PROPOSALS_AR, PROPOSALS_EN
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, Harness, drive

PAGE: Final = f"/console/drives/{DRIVE}"
AT: Final = "2030-01-07T18:00:00Z"
LANGUAGES: Final = [("en", {**MONEY_EN, **PROPOSALS_EN}), ("ar", {**MONEY_AR, **PROPOSALS_AR})]


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


PAID: Final = {
    "id": "dsb_01frtz5n00000000000000000f", "beneficiary": "Relief", "amount": usd("3.00"), "paid_at": AT,
    "reference": "T/4", "evidence": "x", "status": "pending", "history": [], "fund": "zakat",
}  # fmt: skip
TYPED: Final = {
    "beneficiary": "Relief", "amount": "3", "paid_at": "2022-02-01T09:30", "reference": "T/4",
    "evidence": "x",
}  # fmt: skip


def state(harness: Harness, zakat: dict[str, Any] | None, *, eligible: bool) -> None:
    """Have the drive's statement contain this `zakat`."""
    line: dict[str, Any] = {"currency": "USD", **{name: usd("50.00") for name in STATED}}
    line |= {"owed": [{"beneficiary": "Relief", "amount": usd("9.00")}]}
    line |= {} if zakat is None else {"zakat": zakat}
    statement = {"currencies": [line], "closed_at": None, "as_of": AT, "through": 3}
    shares = [{"name": "Relief", "share_bps": 10_000}]
    known = {**drive(), "partner": "default", "beneficiaries": shares, "zakat_eligible": eligible}
    known["test"] = False
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, known)
    harness.payments.answers |= {
        "GET /v1/payments": (200, {"data": [], "next": None}),
        f"GET /v1/drives/{DRIVE}/statement": (200, statement),
        f"GET /v1/drives/{DRIVE}/audit": (503, {}),
        "GET /v1/disbursements": (200, {"data": [PAID], "next": None}),
        f"POST /v1/drives/{DRIVE}/disbursements": (201, PAID),
    }


SOME: Final = {name: usd(f"{number}.00") for number, name in enumerate(ZAKAT, 11)}
NONE: Final = dict.fromkeys(ZAKAT, usd("0.00"))


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


@pytest.mark.parametrize("page", ["money", "statement"])
@pytest.mark.parametrize(("lang", "texts"), LANGUAGES)
async def test_statement_shows_zakat(
    harness: Harness, admin: Browser, page: str, lang: str, texts: Any
) -> None:
    state(harness, SOME, eligible=False)  # zakat that was counted is shown in any case
    status, html = await admin.get(f"{PAGE}/{page}?lang={lang}&digits=latn")
    assert status == 200
    for number, name in enumerate(ZAKAT, 11):
        row = unescape(html).partition(f'<th scope="row">{texts[f"zakat_{name}"]}</th>')[2]
        assert str(number) in row.partition("</tr>")[0], name


@pytest.mark.parametrize("page", ["money", "statement", "beneficiaries"])
@pytest.mark.parametrize("zakat", [None, NONE], ids=["payments of an earlier version", "none"])
async def test_drives_without_zakat_are_shown_as_before(
    harness: Harness, admin: Browser, page: str, zakat: Any
) -> None:
    state(harness, zakat, eligible=False)
    harness.payments.answers["GET /v1/disbursements"] = (200, {"data": [], "next": None})
    status, html = await admin.get(f"{PAGE}/{page}?lang=en")
    assert (status, "zakat" in html.lower()) == (200, False)


@pytest.mark.parametrize(("lang", "texts"), LANGUAGES)
async def test_form_of_a_disbursement_says_what_it_is_paid_from(
    harness: Harness, admin: Browser, lang: str, texts: Any
) -> None:
    state(harness, NONE, eligible=True)
    page = f"{PAGE}/beneficiaries?lang={lang}"
    html = unescape((await admin.get(page))[1])
    for text in (texts["paid_from"], texts["fund_general"], f'<span class="tag">{texts["fund_zakat"]}'):
        assert text in html
    for fund in ("general", "zakat"):
        assert (await admin.submit(page, page, {**TYPED, "fund": fund}))[0] == 303
    path = f"/v1/drives/{DRIVE}/disbursements"
    sent = [
        json.loads(one.body) for one in harness.payments.received if (one.method, one.path) == ("POST", path)
    ]
    assert [one["fund"] for one in sent] == ["general", "zakat"]


async def test_form_without_zakat_names_no_fund(harness: Harness, admin: Browser) -> None:
    state(harness, NONE, eligible=False)
    page = f"{PAGE}/beneficiaries"
    assert (await admin.submit(page, page, TYPED))[0] == 303
    (sent,) = [json.loads(one.body) for one in harness.payments.received if one.method == "POST"]
    assert "fund" not in sent
