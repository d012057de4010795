"""The console's page of matching pools, and its pages of ledger, statement, payouts and payments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import unescape
from typing import Any, Final

import pytest

from gateway.console.ledger_texts import LEDGER_EN
from gateway.console.matching_page import ratio_of, used_per_mille
from gateway.console.texts import CONSOLE_EN
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, PLEDGE, Harness, drive

PAGE: Final = f"/console/drives/{DRIVE}"
PAYMENT: Final = "pay_01frtz5n00000000000000000d"
POOL: Final = "mch_01frtz5n00000000000000000f"
AT: Final = "2030-01-07T18:00:00.000Z"


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


def pool(**changed: Any) -> dict[str, Any]:
    return {
        "id": POOL, "sponsor": "<b>Acme</b>", "cap": usd("5000.00"), "used": usd("1250.00"),
        "remaining": usd("3750.00"), "ratio": "1.00", "per_gift_cap": None, "creator": None,
        "state": "active", "starts_at": AT, "ends_at": None, "ended_at": None, **changed,
    }  # fmt: skip


CAPTURE: Final = {
    "kind": "capture", "id": "pi_1", "amount": usd("25.00"), "status": "succeeded", "at": AT,
}  # fmt: skip
PAID: Final[dict[str, Any]] = {
    "id": PAYMENT, "pledge": PLEDGE, "drive": DRIVE, "creator": None, "status": "captured", "held": None,
    "pledged": usd("25.00"), "captured": usd("25.00"), "refunded": usd("0.00"), "disputed": usd("0.00"),
    "fee": None, "payout": None, "captured_at": AT, "facts": [CAPTURE], "postings": [], "decisions": [],
}  # fmt: skip
POSTING: Final = {
    "number": 7, "at": AT, "debit": "processor_clearing", "credit": "drive_raised", "amount": usd("25.00"),
    "cause": "pi_1#1", "payment": PAYMENT,
}  # fmt: skip
ACCOUNTS: Final = [
    {
        "account": "held",
        "currency": "USD",
        "debit": usd("2.00"),
        "credit": usd("1.00"),
        "balance": usd("1.00"),
    }
]


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, {**drive(), "partner": "default"})
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}/creators"] = (200, {"data": [], "next": None})
    sums = [{"currency": "USD", "debit": usd("2.00"), "credit": usd("1.00")}]
    harness.payments.answers |= {
        f"GET /v1/drives/{DRIVE}/matching-pools": (200, {"data": [pool()], "next": None}),
        f"POST /v1/drives/{DRIVE}/matching-pools": (201, pool()),
        f"POST /v1/matching-pools/{POOL}/end": (200, pool(state="ended", ended_at=AT)),
        f"GET /v1/drives/{DRIVE}/ledger": (200, {"data": [POSTING], "next": "7"}),
        f"GET /v1/drives/{DRIVE}/trial-balance": (
            200, {"accounts": ACCOUNTS, "sums": sums, "through": 7, "as_of": AT},
        ),
        "GET /v1/payments": (200, {"data": [PAID], "next": None}),
        f"GET /v1/payments/{PAYMENT}": (200, PAID),
        f"POST /v1/payments/{PAYMENT}/refunds": (201, {"id": "rfd_1"}),
        f"POST /v1/payments/{PAYMENT}/release": (200, PAID),
    }  # fmt: skip
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def sent(harness: Harness, path: str) -> list[tuple[Any, str | None]]:
    """Body and Idempotency-Key of each POST to `path`."""
    return [
        (json.loads(one.body or b"null"), one.headers.get("idempotency-key"))
        for one in harness.payments.received
        if (one.method, one.path) == ("POST", path)
    ]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "$3,750 left"),
        ({"state": "scheduled"}, str(LEDGER_EN["pool_state_scheduled"])),
        (
            {"state": "exhausted", "used": usd("5000.00"), "remaining": usd("0.00")},
            str(LEDGER_EN["pool_used_up"]),
        ),
        ({"state": "ended", "ended_at": AT}, str(LEDGER_EN["pool_ended_at"])),
    ],
)
async def test_pools_show_what_is_left_and_their_state(
    harness: Harness, admin: Browser, changed: dict[str, Any], text: str
) -> None:
    line = f"GET /v1/drives/{DRIVE}/matching-pools"
    harness.payments.answers[line] = (200, {"data": [pool(**changed)], "next": None})
    status, html = await admin.get(f"{PAGE}/matching")
    assert (status, text in unescape(html), "<b>Acme" in html) == (200, True, False)
    assert ("/matching/end" in html) == (changed.get("state") != "ended")


@pytest.mark.parametrize(("used", "cap", "shown"), [("0.00", "1.00", 0), ("0.99", "1.00", 990)])
def test_bar_of_a_pool_is_full_only_once_it_is_used_up(used: str, cap: str, shown: int) -> None:
    assert used_per_mille({"used": usd(used), "cap": usd(cap)}) == shown
    assert used_per_mille({"used": usd("99999.99"), "cap": usd("100000.00")}) == 999
    assert used_per_mille({"used": usd("1.00"), "cap": usd("1.00")}) == 1000


@pytest.mark.parametrize(
    ("typed", "ratio"),
    [
        ("1", "1.00"), ("٠٫٥", "0.50"), (" 2.125 ", "2.125"), ("007", "7.00"), ("1.", "1.00"), ("1,5", "1,5"),
        ("-1", "-1"), ("", ""), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_ratio_is_read_as_people_write_it_and_else_left_as_written(typed: str, ratio: str) -> None:
    assert ratio_of(typed) == ratio


async def test_pool_is_created_once_and_ended(harness: Harness, admin: Browser) -> None:
    form = {
        "sponsor": " Acme ", "cap": "٥٠٠٠", "ratio": "1", "per_gift_cap": "", "creator": "",
        "ends_at": "2031-01-01T00:00", "starts_at": "",
    }  # fmt: skip
    status, location, _ = await admin.submit(f"{PAGE}/matching", f"{PAGE}/matching", form)
    assert (status, "done=pool_created" in location) == (303, True)
    ((body, key),) = sent(harness, f"/v1/drives/{DRIVE}/matching-pools")
    assert body == {
        "sponsor": "Acme", "cap": usd("5000.00"), "ratio": "1.00", "ends_at": "2031-01-01T00:00:00Z",
    }  # fmt: skip
    assert key and key.startswith("console-")
    status, location, _ = await admin.submit(f"{PAGE}/matching", f"{PAGE}/matching/end", {"pool": POOL})
    assert (status, "done=pool_ended" in location) == (303, True)
    assert (await admin.submit(f"{PAGE}/matching", f"{PAGE}/matching/end", {"pool": "../x"}))[0] == 404


@pytest.mark.parametrize("status", [422, 503])
async def test_refused_pool_keeps_what_was_entered(harness: Harness, admin: Browser, status: int) -> None:
    errors = [{"pointer": "/cap/value", "detail": "too many digits"}]
    refused = {"type": "/problems/validation", "status": status, "errors": errors}
    harness.payments.answers[f"POST /v1/drives/{DRIVE}/matching-pools"] = (status, refused)
    form = {"sponsor": '"Acme"', "cap": "1.234", "ratio": "1"}
    answered, _, html = await admin.submit(f"{PAGE}/matching", f"{PAGE}/matching", form)
    assert (answered, 'value="1.234"' in html, 'value="&#34;Acme&#34;"' in html) == (status, True, True)
    ((_, key),) = sent(harness, f"/v1/drives/{DRIVE}/matching-pools")
    assert (f'value="{str(key).removeprefix("console-")}"' in html) == (status == 503)


async def test_ledger_shows_accounts_and_postings_and_that_sums_differ(
    harness: Harness, admin: Browser
) -> None:
    status, html = await admin.get(f"{PAGE}/ledger?after=6")
    assert (status, str(LEDGER_EN["books_differ"]) in html, "pi_1#1" in html) == (200, True, True)
    assert f"/console/payments/{PAYMENT}" in html
    assert "after=7" in html
    (asked,) = [one.query for one in harness.payments.received if one.path.endswith("/ledger")]
    assert asked == "after=6&limit=50"


@pytest.mark.parametrize("name", ["ledger", "trial-balance", "statement"])
async def test_tables_are_downloaded_with_the_key_of_the_session(
    harness: Harness, admin: Browser, name: str
) -> None:
    harness.payments.answers[f"GET /v1/drives/{DRIVE}/{name}"] = (200, "number,at")
    url = f"{PAGE}/{name}.csv?after=10&lang=en"
    async with admin.session.get(url, headers={"Cookie": admin.cookie}) as reply:
        body = await reply.text()
        assert (reply.status, body) == (200, '"number,at"')  # as the fake writes it
        assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert reply.headers["Content-Disposition"] == f'attachment; filename="winter-{name}.csv"'
    (asked,) = [one for one in harness.payments.received if one.path.endswith(name)]
    assert asked.headers["accept"] == "text/csv"
    assert asked.query == ("after=10" if name == "ledger" else "")
    harness.payments.answers[f"GET /v1/drives/{DRIVE}/{name}"] = (403, {"type": "/problems/forbidden"})
    assert (await admin.get(url))[0] == 403
    harness.payments.answers[f"GET /v1/drives/{DRIVE}/{name}"] = (503, {"type": "/problems/overloaded"})
    assert (await admin.get(url))[0] == 503


async def test_payouts_say_whether_they_agree(harness: Harness, admin: Browser) -> None:
    def payout(name: str, difference: str | None) -> Mapping[str, Any]:
        return {
            "id": name, "amount": usd("1250.00"), "arrival_date": "2026-11-30", "status": "paid",
            "reconciled": difference == "0.00", "difference": difference and usd(difference),
            "payments": None,
        }  # fmt: skip

    page = [payout("po_1", "0.00"), payout("po_2", "-3.10"), payout("po_3", None)]
    harness.payments.answers["GET /v1/payouts"] = (200, {"data": page, "next": "po_3"})
    status, html = await admin.get("/console/payouts")
    assert status == 200
    for shown in ("payout_agrees", "payout_incomplete"):
        assert str(LEDGER_EN[shown]) in html
    assert "Differs by -$3.10" in html
    assert "after=po_3" in html
    harness.payments.answers["GET /v1/payouts"] = (403, {"type": "/problems/forbidden"})
    assert (await admin.get("/console/payouts"))[0] == 403


async def test_payment_is_found_by_its_id_and_by_its_pledge(harness: Harness, admin: Browser) -> None:
    async def found(asked: str) -> tuple[int, str]:
        url = f"/console/payments?id={asked}"
        async with admin.session.get(url, headers={"Cookie": admin.cookie}, allow_redirects=False) as reply:
            return reply.status, reply.headers.get("Location", "")

    assert await found(PAYMENT.upper()) == (303, f"/console/payments/{PAYMENT}")
    assert await found(PLEDGE) == (303, f"/console/payments/{PAYMENT}")
    (asked,) = [one.query for one in harness.payments.received if one.path == "/v1/payments"]
    assert asked == f"pledge={PLEDGE}"
    harness.payments.answers["GET /v1/payments"] = (200, {"data": [PAID, PAID], "next": None})
    assert (await admin.get(f"/console/payments?id={PLEDGE}"))[1].count(PAYMENT) > 2
    assert str(LEDGER_EN["no_payment_found"]) in (await admin.get("/console/payments?id=../keys"))[1]


async def test_payment_is_refunded_in_its_own_currency(harness: Harness, admin: Browser) -> None:
    kuwaiti = {"currency": "KWD", "value": "25.000"}
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, {**PAID, "captured": kuwaiti})
    page = f"/console/payments/{PAYMENT}"
    form = {"action": "refund", "amount": "1.5", "note": " asked "}
    status, location, _ = await admin.submit(page, f"{page}/refunds", form)
    assert (status, "done=refunded" in location) == (303, True)
    ((body, key),) = sent(harness, f"/v1/payments/{PAYMENT}/refunds")
    assert body == {"amount": {"currency": "KWD", "value": "1.500"}, "reason": "asked"}
    assert key
    status, _, _ = await admin.submit(page, f"{page}/refunds", {"action": "refund"})
    assert sent(harness, f"/v1/payments/{PAYMENT}/refunds")[1][0] == {}


async def test_refund_whose_outcome_is_unknown_keeps_its_key(
    harness: Harness, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.console.refunding.REFUND_PAUSES_S", (0.0, 0.0))
    line = f"POST /v1/payments/{PAYMENT}/refunds"
    harness.payments.answers[line] = (503, {"type": "/problems/overloaded"})
    page = f"/console/payments/{PAYMENT}"
    form = {"action": "refund", "amount": "1.50", "note": "asked"}
    status, _, html = await admin.submit(page, f"{page}/refunds", form)
    assert (status, str(CONSOLE_EN["refused_refund_unknown"]) in unescape(html)) == (503, True)
    keys = {key for _, key in sent(harness, f"/v1/payments/{PAYMENT}/refunds")}
    assert len(sent(harness, f"/v1/payments/{PAYMENT}/refunds")) == 3
    (key,) = keys
    assert f'name="once" value="{str(key).removeprefix("console-")}"' in html
    assert 'value="1.50"' in html


async def test_held_payment_is_released_and_others_offer_no_release(harness: Harness, admin: Browser) -> None:
    page = f"/console/payments/{PAYMENT}"
    assert "/release" not in (await admin.get(page))[1]
    held = {**PAID, "drive": None, "held": {"reason": "unknown_drive", "since": AT}}
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, held)
    assert "/release" in (await admin.get(page))[1]
    form = {"action": "release", "note": "Right", "target": "winter", "creator": ""}
    status, location, _ = await admin.submit(page, f"{page}/release", form)
    assert (status, "done=released" in location) == (303, True)
    assert sent(harness, f"/v1/payments/{PAYMENT}/release")[0][0] == {"note": "Right", "drive": "winter"}
    assert (await admin.get("/console/payments/plg_x"))[0] == 404


async def test_only_what_the_processor_captured_offers_a_refund(harness: Harness, admin: Browser) -> None:
    page = f"/console/payments/{PAYMENT}"
    assert f"{PAYMENT}/refunds" in (await admin.get(page))[1]
    harness.payments.answers[f"GET /v1/payments/{PAYMENT}"] = (200, {**PAID, "facts": []})  # an offline gift
    assert f"{PAYMENT}/refunds" not in (await admin.get(page))[1]
