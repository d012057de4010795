"""The console's page of a drive's money: audit, statement, held payments and the decisions about them."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any, Final

import pytest

from gateway.console.ledger_texts import LEDGER_EN
from gateway.console.money_texts import MONEY_AR, MONEY_EN
from gateway.console.texts import CONSOLE_EN
from services.payments.domain import HeldReason
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, Harness, drive

PAGE: Final = f"/console/drives/{DRIVE}"
PAYMENT: Final = "pay_01frtz5n00000000000000000d"
HOSTILE: Final = "<script>alert(1)</script>"


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


AUDIT: Final = {
    **{name: usd("50.00") for name in ("ledger", "processor", "totals")},
    "held": usd("26.00"), "difference": usd("0.00"), "differences": 0, "settled": False, "in_transit": 2,
    "payments": 3, "as_of": "2030-01-07T18:00:00Z",
}  # fmt: skip
LINES: Final = ["gross", "offline", "matched", "refunds", "disputes", "raised", "held", "fees", "paid_out"]
HELD: Final = {
    "id": PAYMENT, "captured": usd("26.00"), "pledged": usd("25.00"),
    "held": {"reason": "other_amount", "since": "2030-01-07T18:00:00Z"},
}  # fmt: skip


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    statement = {"currency": "USD", **{name: usd("12.34") for name in LINES}, "late": None}
    owed = [{"beneficiary": HOSTILE, "amount": usd("7.77")}]
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, {**drive(), "partner": "default"})
    harness.payments.answers |= {
        "GET /v1/payments": (200, {"data": [HELD], "next": None}),
        f"GET /v1/drives/{DRIVE}/statement": (200, {"currencies": [{**statement, "owed": owed}]}),
        f"GET /v1/drives/{DRIVE}/audit": (200, AUDIT),
        f"POST /v1/payments/{PAYMENT}/release": (200, HELD),
        f"POST /v1/payments/{PAYMENT}/refunds": (201, {"id": "rfd_1"}),
    }
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def sent(harness: Harness, action: str) -> list[tuple[Any, str | None]]:
    """Body and Idempotency-Key of each decision."""
    return [
        (json.loads(one.body), one.headers.get("idempotency-key"))
        for one in harness.payments.received
        if (one.method, one.path) == ("POST", f"/v1/payments/{PAYMENT}/{action}")
    ]


async def form_of(admin: Browser, action: str) -> dict[str, str]:
    """The hidden fields of the form that decides about the held payment."""
    html = (await admin.get(f"{PAGE}/money"))[1]
    form = html[html.index(f"/money/{action}") :]
    return {
        name: re.findall(rf'name="{name}" value="([^"]*)"', form)[0] for name in ("csrf", "once", "payment")
    }


@pytest.mark.parametrize("reason", HeldReason)
@pytest.mark.parametrize(("lang", "texts"), [("en", MONEY_EN), ("ar", MONEY_AR)])
async def test_every_reason_of_held_money_is_told_in_words(
    harness: Harness, admin: Browser, reason: HeldReason, lang: str, texts: Any
) -> None:
    held = {**HELD, "held": {"reason": str(reason), "since": "2030-01-07T18:00:00Z"}}
    missing = dict.fromkeys(("refunded", "disputed", "fee", "captured_at", "pledge", "payout", "creator"))
    shown = {
        **missing, **held, "status": "captured", "drive": DRIVE, "facts": [], "postings": [], "decisions": [],
    }  # fmt: skip
    harness.payments.answers["GET /v1/payments"] = (200, {"data": [held], "next": None})
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, shown)
    for path in (f"{PAGE}/money", f"/console/payments/{PAYMENT}"):
        status, html = await admin.get(f"{path}?lang={lang}")
        assert (status, texts[f"held_{reason}"] in unescape(html)) == (200, True), path


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_page_shows_audit_statement_and_held_payments(admin: Browser, lang: str) -> None:
    status, html = await admin.get(f"{PAGE}/money?lang={lang}&digits=latn")
    assert status == 200
    for shown in ("50", "26", "25", "12.34", "7.77", PAYMENT):
        assert shown in html, shown
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    if lang == "en":
        assert str(MONEY_EN["held_other_amount"]) in html
        assert "2 payments are being counted" in html


async def test_page_is_shown_while_there_is_no_audit(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[f"GET /v1/drives/{DRIVE}/audit"] = (503, {"type": "/problems/overloaded"})
    status, html = await admin.get(f"{PAGE}/money")
    assert (status, str(MONEY_EN["no_audit"]) in html) == (200, True)


async def test_differences_are_counted_on_the_page(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[f"GET /v1/drives/{DRIVE}/audit"] = (200, {**AUDIT, "differences": 3})
    assert "3 differences" in (await admin.get(f"{PAGE}/money"))[1]


async def test_held_payment_is_released_into_a_drive_with_a_note(harness: Harness, admin: Browser) -> None:
    form = await form_of(admin, "release")
    decided = {**form, "note": " Right page ", "target": "spring"}
    for _ in range(2):  # a double click
        status, location, _ = await admin.post(f"{PAGE}/money/release", decided)
        assert (status, location) == (303, f"{PAGE}/money?done=released")
    (first, second) = sent(harness, "release")
    assert first == second == ({"note": "Right page", "drive": "spring"}, f"console-{form['once']}")


async def test_held_payment_is_returned(harness: Harness, admin: Browser) -> None:
    form = await form_of(admin, "refunds")
    assert (await admin.post(f"{PAGE}/money/refunds", form))[0] == 303
    assert sent(harness, "refunds") == [({}, f"console-{form['once']}")]


async def test_refused_decision_is_explained_and_keeps_what_was_entered(
    harness: Harness, admin: Browser
) -> None:
    refused = {"type": "/problems/payment-not-held", "status": 409, "detail": "It is counted already."}
    harness.payments.answers[f"POST /v1/payments/{PAYMENT}/release"] = (409, refused)
    form = {**await form_of(admin, "release"), "action": "release", "note": "Typed", "target": ""}
    status, _, html = await admin.post(f"{PAGE}/money/release", form)
    assert (status, 'value="Typed"' in html, str(LEDGER_EN["refused_payment_not_held"]) in html) == (
        409,
        True,
        True,
    )
    assert "It is counted already." in html


async def test_decision_without_an_answer_keeps_its_key(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[f"POST /v1/payments/{PAYMENT}/release"] = (503, {"type": "/problems/overloaded"})
    form = {**await form_of(admin, "release"), "action": "release", "note": "Typed", "target": ""}
    status, _, html = await admin.post(f"{PAGE}/money/release", form)
    assert status == 503
    assert f'name="once" value="{form["once"]}"' in html


async def test_decisions_need_the_token_and_a_payment(harness: Harness, admin: Browser) -> None:
    form = await form_of(admin, "release")
    assert (await admin.post(f"{PAGE}/money/release", {**form, "csrf": "x"}))[0] == 403
    assert (await admin.post(f"{PAGE}/money/release", {**form, "payment": "../keys"}))[0] == 404
    assert sent(harness, "release") == []


async def test_key_without_the_scope_is_told_so(harness: Harness, admin: Browser) -> None:
    harness.payments.answers["GET /v1/payments"] = (403, {"type": "/problems/forbidden", "status": 403})
    status, html = await admin.get(f"{PAGE}/money")
    assert (status, str(CONSOLE_EN["refused_403"]) in html) == (403, True)
