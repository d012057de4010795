"""The console's page of refunds that a second key decides, and the forms that ask for one."""

from __future__ import annotations

import json
from html import unescape
from typing import Any, Final

import pytest

from gateway.console.refund_texts import REFUNDS_AR, REFUNDS_EN
from gateway.console.texts import CONSOLE_EN
from gateway.console.translations import TRANSLATIONS
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, PLEDGE, Harness, drive

AT: Final = "2030-01-07T18:00:00.000Z"
REFUND: Final = "rfd_01frtz5n00000000000000000e"
PAYMENT: Final = "pay_01frtz5n00000000000000000d"
HOSTILE: Final = "<script>alert(1)</script>"
OTHER: Final = "key_01frtz5n00000000000000000g"
PAGE: Final = "/console/refunds"


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


def a_refund(state: str = "needed", asked_by: str = OTHER, status: str = "pending") -> dict[str, Any]:
    decided = state != "needed"
    return {
        "id": REFUND, "status": status, "amount": usd("25000.00"), "payment": PAYMENT, "pledge": PLEDGE,
        "drive": DRIVE, "reason": HOSTILE,
        "approval": {
            "state": state, "requested_by": asked_by, "requested_at": AT,
            "decided_by": "key_admin" if decided else None, "decided_at": AT if decided else None,
            "reason": HOSTILE if decided else None,
        },
    }  # fmt: skip


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    harness.payments.answers |= {
        "GET /v1/refunds": (200, {"data": [a_refund()], "next": None}),
        f"POST /v1/refunds/{REFUND}/approve": (200, a_refund("approved", status="succeeded")),
        f"POST /v1/refunds/{REFUND}/reject": (200, a_refund("rejected", status="failed")),
    }
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def sent(harness: Harness, path: str) -> list[Any]:
    """The bodies that were posted there."""
    posted = [one for one in harness.payments.received if (one.method, one.path) == ("POST", path)]
    return [json.loads(one.body) for one in posted]


async def test_refunds_to_decide_are_listed_with_both_decisions(harness: Harness, admin: Browser) -> None:
    status, html = await admin.get(PAGE)
    assert (status, "$25,000" in html, HOSTILE in html, HOSTILE in unescape(html)) == (200, True, False, True)
    assert html.count('name="action" value="approve"') == html.count('name="action" value="reject"') == 1
    assert f"/console/payments/{PAYMENT}" in html
    assert 'href="/console/refunds" aria-current="page"' in html
    asked = [one.query for one in harness.payments.received if one.path == "/v1/refunds"]
    assert asked == ["approval=needed&limit=25"]


async def test_the_key_that_asked_may_reject_only(harness: Harness, admin: Browser) -> None:
    own = a_refund(asked_by="key_admin")
    harness.payments.answers["GET /v1/refunds"] = (200, {"data": [own], "next": None})
    html = unescape((await admin.get(PAGE))[1])
    assert str(REFUNDS_EN["own_refund"]) in html
    assert 'value="approve"' not in html
    assert html.count('name="action" value="reject"') == 1


@pytest.mark.parametrize(
    ("action", "state", "fields", "body"),
    [
        ("approve", "approved", {}, {}),
        ("approve", "approved", {"reason": " Seen "}, {"reason": "Seen"}),
        ("reject", "rejected", {"reason": "No"}, {"reason": "No"}),
    ],
)
async def test_a_decision_is_sent_and_told(
    harness: Harness, admin: Browser, action: str, state: str, fields: dict[str, str], body: Any
) -> None:
    form = {"proposal": REFUND, "action": action, **fields}
    status, location, html = await admin.submit(PAGE, PAGE, form)
    assert (status, location) == (303, f"{PAGE}?done=refund_{state}&state={state}"), html
    assert sent(harness, f"/v1/refunds/{REFUND}/{action}") == [body]
    decided = a_refund(state, status="succeeded" if state == "approved" else "failed")
    harness.payments.answers["GET /v1/refunds"] = (200, {"data": [decided], "next": REFUND})
    html = unescape((await admin.get(location))[1])
    assert str(REFUNDS_EN[f"done_refund_{state}"]) in html
    assert str(REFUNDS_EN[f"refund_decided_{state}"]) in html
    assert f"after={REFUND}&state={state}" in html
    assert 'name="action"' not in html


@pytest.mark.parametrize(
    ("slug", "text"),
    [
        ("second-approver-needed", "refused_second_approver_needed"),
        ("refund-exceeds-payment", "refused_refund_exceeds_payment"),
        ("approval-state", "refused_approval_state"),
    ],
)
async def test_a_refused_decision_is_explained_with_what_was_typed(
    harness: Harness, admin: Browser, slug: str, text: str
) -> None:
    problem = {"type": f"/problems/{slug}", "title": "x", "status": 409, "detail": "Not now."}
    harness.payments.answers[f"POST /v1/refunds/{REFUND}/approve"] = (409, problem)
    form = {"proposal": REFUND, "action": "approve", "reason": "typed"}
    status, _, html = await admin.submit(PAGE, PAGE, form)
    assert (status, 'value="typed"' in html) == (409, True)
    assert str(TRANSLATIONS["console"]["en"][text]) in unescape(html)


@pytest.mark.parametrize(
    "form", [{"proposal": "rfd_1", "action": "approve"}, {"proposal": REFUND, "action": "send"}, {}]
)
async def test_a_decision_about_nothing_is_not_sent(
    harness: Harness, admin: Browser, form: dict[str, str]
) -> None:
    assert (await admin.submit(PAGE, PAGE, form))[0] == 404
    assert not [one for one in harness.payments.received if one.method == "POST"]


async def test_decisions_need_the_token(harness: Harness, admin: Browser) -> None:
    form = {"proposal": REFUND, "action": "approve", "csrf": "wrong"}
    assert (await admin.post(PAGE, form))[0] == 403
    assert sent(harness, f"/v1/refunds/{REFUND}/approve") == []


@pytest.mark.parametrize("waits", [True, False])
async def test_a_refund_that_waits_is_told_as_such(harness: Harness, admin: Browser, waits: bool) -> None:
    made = {"id": REFUND, "status": "pending", "amount": usd("25000.00")}
    made |= {"approval": a_refund()["approval"]} if waits else {}
    done = "refund_waits" if waits else "refunded"
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, {**drive(), "partner": "default"})
    harness.pledges.answers["GET /v1/pledges"] = (200, {"data": [], "next": None})
    harness.payments.answers |= {
        f"POST /v1/pledges/{PLEDGE}/refunds": (201, made),
        f"POST /v1/payments/{PAYMENT}/refunds": (201, made),
        f"GET /v1/payments/{PAYMENT}": (200, a_payment()),
    }
    pledges = f"/console/drives/{DRIVE}/pledges"
    _, location, html = await admin.submit(pledges, f"/console/drives/{DRIVE}/refunds", {"pledge": PLEDGE})
    assert location == f"{pledges}?done={done}", html
    payment = f"/console/payments/{PAYMENT}"
    _, location, html = await admin.submit(payment, f"{payment}/refunds", {})
    assert location == f"{payment}?done={done}", html
    told = str({**CONSOLE_EN, **REFUNDS_EN}[f"done_{done}"])
    assert told in unescape((await admin.get(location))[1])


def a_payment() -> dict[str, Any]:
    capture = {"kind": "capture", "id": "pi_1", "amount": usd("30000.00"), "status": "succeeded", "at": AT}
    by = {"key": "key_admin", "partner": "default"}
    return {
        "id": PAYMENT, "pledge": PLEDGE, "drive": None, "creator": None, "status": "captured", "held": None,
        "pledged": usd("30000.00"), "captured": usd("30000.00"), "refunded": usd("0.00"),
        "disputed": usd("0.00"), "fee": None, "payout": None, "captured_at": AT, "facts": [capture],
        "postings": [], "decisions": [{"kind": "refund", "by": by, "at": AT, "note": None, "refund": REFUND}],
        "large_refunds": [a_refund()],
    }  # fmt: skip


async def test_a_payment_shows_the_refund_that_waits_and_says_so_at_the_form(
    harness: Harness, admin: Browser
) -> None:
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, a_payment())
    html = unescape((await admin.get(f"/console/payments/{PAYMENT}"))[1])
    for name in ("large_refunds", "approval_needed", "refund_may_wait", "refund_asked_decision"):
        assert str(REFUNDS_EN[name]) in html
    assert f"{PAGE}?state=needed" in html
    arabic = unescape((await admin.get(f"/console/payments/{PAYMENT}?lang=ar"))[1])
    assert str(REFUNDS_AR["refund_may_wait"]) in arabic


async def test_a_payment_of_an_earlier_version_of_payments_is_shown(harness: Harness, admin: Browser) -> None:
    earlier = {name: value for name, value in a_payment().items() if name != "large_refunds"}
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, earlier)
    status, html = await admin.get(f"/console/payments/{PAYMENT}")
    assert (status, str(REFUNDS_EN["large_refunds"]) in html) == (200, False)
