"""The console's page of exchange rates, and the other currencies of a drive in its form."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import unescape
from typing import Any, Final

import pytest

from gateway.console.drive_form import changes_of, fields_of, request_of
from gateway.console.rates_page import age_days
from gateway.console.rates_texts import RATES_EN
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, PLEDGE, Harness, drive
from tests.gateway.test_console_drive_form import usd

PATH: Final = "/console/rates"
PUT: Final = "PUT /v1/rates/KWD/USD"
TYPED: Final = {"source": " kwd", "target": "USD", "rate": "٣٫٢٥٨١", "as_of": "2030-01-07T18:00"}
RATE: Final[dict[str, Any]] = {
    "from": "KWD", "to": "USD", "rate": "3.2581", "as_of": "2020-01-07T18:00:00.000Z", "source": "api",
    "set_at": "2020-01-07T18:00:05.000Z", "fresh": False,
    "refused": {
        "rate": "32.581", "as_of": "2030-01-08T16:00:00.000Z", "reason": "jump",
        "refused_at": "2030-01-08T16:00:05.000Z",
    },
}  # fmt: skip
NEVER: Final = {
    **dict.fromkeys(("rate", "as_of", "source", "set_at")), "from": "AED", "to": "USD", "fresh": False,
    "refused": None,
}  # fmt: skip


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    harness.payments.answers["GET /v1/rates"] = (200, {"data": [NEVER, RATE]})
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


def put(harness: Harness) -> list[Any]:
    return [json.loads(one.body) for one in harness.payments.received if one.method == "PUT"]


def refused(pointer: str) -> tuple[int, Any]:
    errors = [{"pointer": pointer, "detail": "why"}]
    return 409, {"type": "/problems/rate-refused", "status": 409, "errors": errors}


async def test_rates_show_age_source_and_what_was_refused(harness: Harness, admin: Browser) -> None:
    status, html = await admin.get(PATH)
    text = unescape(html)
    assert status == 200
    assert "1 KWD = 3.2581 USD" in text
    assert "days old" in text
    for key in ("rate_source_api", "rate_stale", "rate_none", "rate_refused_jump"):
        assert str(RATES_EN[key]) in text
    assert "Refused: 32.581." in text
    assert "from=KWD&to=USD" in text
    assert 'name="source" type="text" value="KWD"' in (await admin.get(f"{PATH}?from=KWD&to=USD"))[1]


async def test_a_rate_is_set_as_people_write_it(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[PUT] = (200, RATE)
    status, location, _ = await admin.submit(PATH, PATH, TYPED)
    assert (status, location) == (303, "/console/rates?done=rate_set")
    await admin.submit(PATH, PATH, {**TYPED, "as_of": ""})
    sent = put(harness)
    assert sent[0] == {"rate": "3.2581", "as_of": "2030-01-07T18:00:00Z", "confirm": False}
    assert sent[1]["as_of"].endswith("Z")  # the moment at which it was sent


async def test_a_jump_is_refused_until_it_is_confirmed(harness: Harness, admin: Browser) -> None:
    assert 'name="confirm"' not in (await admin.get(PATH))[1]
    harness.payments.answers[PUT] = refused("/rate")
    status, _, html = await admin.submit(PATH, PATH, TYPED)
    assert status == 409
    assert str(RATES_EN["refused_rate_jump"]) in unescape(html)
    assert 'name="confirm" value="yes">' in html  # not chosen beforehand
    assert 'name="rate" type="text" value="٣٫٢٥٨١"' in html
    harness.payments.answers[PUT] = (200, RATE)
    assert (await admin.submit(PATH, PATH, {**TYPED, "confirm": "yes"}))[0] == 303
    assert [one["confirm"] for one in put(harness)] == [False, True]


async def test_an_old_rate_is_refused_without_a_way_to_confirm_it(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[PUT] = refused("/as_of")
    status, _, html = await admin.submit(PATH, PATH, TYPED)
    assert (status, 'name="confirm"' in html) == (409, False)
    assert str(RATES_EN["refused_rate_old"]) in unescape(html)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"source": "../x"}, "source"), ({"target": "QQQ"}, "target"), ({"target": "KWD"}, "target"),
        ({"source": ""}, "source"),
    ],
)  # fmt: skip
async def test_a_pair_that_is_none_is_not_sent(
    harness: Harness, admin: Browser, changed: dict[str, str], field: str
) -> None:
    status, _, html = await admin.submit(PATH, PATH, {**TYPED, **changed})
    assert (status, put(harness)) == (422, [])
    assert f'id="{field}"' in html
    assert html.count('aria-invalid="true"') == 1


async def test_a_rate_that_no_service_confirmed_is_shown_again(harness: Harness, admin: Browser) -> None:
    harness.payments.answers[PUT] = (503, {"type": "/problems/overloaded", "status": 503})
    status, _, html = await admin.submit(PATH, PATH, TYPED)
    assert (status, 'value="٣٫٢٥٨١"' in html) == (503, True)


async def test_a_partner_reads_rates_and_sets_none(harness: Harness) -> None:
    harness.payments.answers["GET /v1/rates"] = (200, {"data": [RATE]})
    key = await harness.key(kind="secret", partner="shop", scopes=["drives"])
    browser = Browser(harness.session, harness.url)
    await browser.log_in(key)
    status, html = await browser.get(PATH)
    assert (status, 'action="/console/rates"' in html) == (200, False)


def test_age_counts_whole_days() -> None:
    now = datetime(2030, 1, 8, 18, tzinfo=UTC)
    assert age_days({"as_of": "2030-01-07T18:00:00.000Z"}, now) == 1
    assert age_days({"as_of": "2030-01-07T18:00:01.000Z"}, now) == 0
    assert age_days({"as_of": "2030-01-09T18:00:00.000Z"}, now) == 0
    assert age_days({"as_of": None}, now) is None


# --- the form of a drive ---


def test_other_currencies_of_a_drive_are_read_as_people_write_them() -> None:
    found = {**drive(), "goal": usd("1.00"), "currencies": ["KWD"]}
    fields = fields_of(found)
    assert ("currencies", "KWD") in fields
    assert changes_of(found, fields) == {}
    edited = [(name, "kwd، AED" if name == "currencies" else value) for name, value in fields]
    assert changes_of(found, edited) == {"currencies": ["KWD", "AED"]}
    assert request_of([("currencies", "")])["currencies"] == []


async def test_a_partial_refund_is_in_the_currency_of_the_pledge(harness: Harness, admin: Browser) -> None:
    taking = {**drive(), "partner": "default", "currencies": ["KWD"]}
    gift: dict[str, Any] = {"id": PLEDGE, "amount": {"currency": "KWD", "value": "10.000"}, "status": "paid"}
    gift["created_at"] = "2030-01-07T18:00:00.000Z"
    harness.pledges.answers |= {
        f"GET /v1/drives/{DRIVE}": (200, taking),
        "GET /v1/pledges": (
            200,
            {"data": [{**gift, "created_at": "2030-01-07T18:00:00.000Z"}], "next": None},
        ),
    }
    refunds = f"/v1/pledges/{PLEDGE}/refunds"
    harness.payments.answers[f"POST {refunds}"] = (201, {"id": "rfd_1"})
    page = f"/console/drives/{DRIVE}"
    status, html = await admin.get(f"{page}/pledges")
    assert status == 200
    assert '<input type="hidden" name="currency" value="KWD">' in html  # the row's form
    assert "<option>USD</option><option>KWD</option>" in html  # the form for any pledge of the drive
    for currency, value in (("KWD", "2.500"), ("USD", "2.50"), ("EUR", "2.50")):
        fields = {"pledge": PLEDGE, "amount": "2.5", "currency": currency}
        status, _, _ = await admin.submit(f"{page}/pledges", f"{page}/refunds", fields)
        assert status == 303
        sent = [json.loads(one.body) for one in harness.payments.received if one.path == refunds]
        taken = "KWD" if currency == "KWD" else "USD"
        assert sent[-1] == {"amount": {"currency": taken, "value": value}}
