"""Every value that Stripe may send is read, known, new or null; nothing is quarantined."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from services.payments.queries import quarantined_webhooks
from services.payments.stripe.client import StripeProcessor
from services.payments.stripe.events import READERS, read_event
from services.payments.tables import FACTS
from tests.payments.books import Books
from tests.payments.stripe.enumerations import (
    CASE_IN_DOUBT,
    CASE_TYPE,
    DISPUTE_IN_DOUBT,
    DISPUTE_STATUS,
    INVENTED,
    PAYMENT_INTENT_STATUS,
    REFUND_STATUS,
    SESSION_MODE,
    SESSION_NULLABLE,
    SESSION_PAYMENT_STATUS,
    SESSION_STATUS,
)
from tests.payments.stripe_events import OURS, an_event, dispute, refund


async def doubts(books: Books) -> list[str]:
    async with books.database.reading() as session:
        rows = await session.execute(select(FACTS.c.doubt).where(FACTS.c.doubt.is_not(None)))
        return [row.doubt for row in rows]


async def nothing_is_set_aside(books: Books) -> bool:
    async with books.database.reading() as session:
        return await quarantined_webhooks(session) == 0


@pytest.mark.parametrize(("status", "counted"), REFUND_STATUS.items())
@pytest.mark.parametrize("kind", ["created", "updated", "failed"])
async def test_a_refund_in_any_status_counts_unless_it_failed(
    books: Books, kind: str, status: str | None, counted: int
) -> None:
    pledge = await books.paid_pledge()
    await books.apply([refund(kind, "re_1", "pi_1", 700, status)])
    assert (await books.payments(pledge))[0].refunded == counted
    assert await doubts(books) == (["unknown_status"] if status in (None, INVENTED) else [])
    assert await nothing_is_set_aside(books)


async def test_a_refund_without_a_status_counts(books: Books) -> None:
    pledge = await books.paid_pledge()
    event = refund("created", "re_1", "pi_1", 700, None)
    del event["data"]["object"]["status"]
    await books.apply([event])
    assert (await books.payments(pledge))[0].refunded == 700


async def test_the_refund_that_a_charge_refund_updated_carries_counts(books: Books) -> None:
    pledge = await books.paid_pledge()
    for status, counted in (("succeeded", 700), ("failed", 0)):
        told = refund("updated", "re_1", "pi_1", 700, status) | {"type": "charge.refund.updated"}
        await books.apply([told])
        assert (await books.payments(pledge))[0].refunded == counted


@pytest.mark.parametrize(("status", "counted"), DISPUTE_STATUS.items())
async def test_a_dispute_in_any_status_that_may_have_withdrawn_money_counts(
    books: Books, status: str, counted: int
) -> None:
    pledge = await books.paid_pledge()
    await books.apply([dispute("created", "dp_1", "pi_1", 700, status)])
    assert (await books.payments(pledge))[0].disputed == counted
    assert await doubts(books) == (["unknown_status"] if status in DISPUTE_IN_DOUBT else [])
    assert await nothing_is_set_aside(books)


@pytest.mark.parametrize(("case_type", "counted"), CASE_TYPE.items())
async def test_a_prevented_dispute_counts_unless_it_was_blocked(
    books: Books, case_type: str | None, counted: int
) -> None:
    pledge = await books.paid_pledge()
    await books.apply([dispute("created", "dp_1", "pi_1", 700, "prevented", case_type=case_type)])
    assert (await books.payments(pledge))[0].disputed == counted
    assert await doubts(books) == (["unknown_status"] if case_type in CASE_IN_DOUBT else [])


@pytest.mark.parametrize("status", DISPUTE_STATUS)
@pytest.mark.parametrize("case_type", [None, *CASE_TYPE])
async def test_the_balance_counts_whatever_the_status(
    books: Books, status: str, case_type: str | None
) -> None:
    pledge = await books.paid_pledge()
    found = dispute("closed", "dp_1", "pi_1", 700, status, moves=[-700, 300], case_type=case_type)
    await books.apply([found])
    assert (await books.payments(pledge))[0].disputed == 400


async def test_an_unknown_status_is_corrected_by_the_next_event(books: Books) -> None:
    pledge = await books.paid_pledge()
    await books.apply([refund("created", "re_1", "pi_1", 700, None)])
    await books.apply([dispute("created", "dp_1", "pi_1", 700, INVENTED, at=1_700_000_000)])
    await books.apply([refund("updated", "re_1", "pi_1", 700, "failed")])
    await books.apply([dispute("closed", "dp_1", "pi_1", 700, "won", at=1_700_000_100)])
    (row,) = await books.payments(pledge)
    assert (row.status, row.refunded, row.disputed) == ("captured", 0, 0)
    assert await doubts(books) == []


def a_session(kind: str, **fields: Any) -> dict[str, Any]:
    plain = {
        "id": "cs_1", "payment_intent": "pi_1", "payment_status": "paid", "amount_total": 2_500,
        "currency": "usd", "metadata": {"ataa_payment": "pay_1"}, "client_reference_id": "plg_1",
        "mode": "payment", "status": "complete", "payment_link": None,
    }  # fmt: skip
    return an_event(f"checkout.session.{kind}", plain | fields)


@pytest.mark.parametrize(("status", "paid"), SESSION_PAYMENT_STATUS.items())
def test_a_session_reports_a_capture_only_where_it_is_paid(status: str, paid: bool) -> None:
    for kind in ("completed", "async_payment_succeeded"):
        found = read_event(a_session(kind, payment_status=status)).observation
        assert (found is not None) is paid


@pytest.mark.parametrize("name", SESSION_NULLABLE)
@pytest.mark.parametrize("mode", SESSION_MODE)
@pytest.mark.parametrize("payment_status", SESSION_PAYMENT_STATUS)
def test_a_session_with_any_nullable_field_null_is_read(name: str, mode: str, payment_status: str) -> None:
    for kind in ("completed", "async_payment_succeeded", "async_payment_failed", "expired"):
        event = a_session(kind, mode=mode, payment_status=payment_status)
        event["data"]["object"][name] = None
        if name == "currency":
            event["data"]["object"]["amount_total"] = None  # null together, Stripe says
        read_event(event)


def test_a_foreign_setup_session_reports_nothing() -> None:
    setup = {
        "mode": "setup", "currency": None, "amount_total": None, "payment_intent": None, "metadata": {},
        "payment_status": "no_payment_required", "client_reference_id": None,
    }  # fmt: skip
    for kind in ("completed", "expired"):
        assert read_event(a_session(kind, **setup)).observation is None


def test_a_subscription_session_reports_nothing() -> None:
    assert read_event(a_session("completed", mode="subscription", payment_intent=None)).observation is None


@pytest.mark.parametrize("status", SESSION_STATUS)
def test_a_session_ended_event_counts_whatever_the_sessions_status(status: str | None) -> None:
    assert read_event(a_session("expired", status=status)).observation is not None


class StripeSaying(StripeProcessor):
    """Responds to every request with `thing`."""

    def __init__(self, thing: dict[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__("sk_test_1", base="", timeout_s=1, expires_s=1, donor_url="", in_flight=1)
        self.thing, self.headers = thing, headers

    async def _respond(self, method: str, path: str, parameters: Mapping[str, Any]) -> Any:
        return SimpleNamespace(data=self.thing, headers=self.headers)


@pytest.mark.parametrize(("status", "captured"), PAYMENT_INTENT_STATUS.items())
async def test_an_intent_is_a_capture_only_where_it_succeeded(status: str, captured: bool) -> None:
    intent = {
        "id": "pi_1", "amount_received": 0 if not captured else 2_500, "currency": "usd", "status": status,
        "created": 1_700_000_000, "metadata": OURS,
    }  # fmt: skip
    found = await StripeSaying(intent, {}).find_capture("pi_1")
    assert (found is not None) is captured


async def test_listed_disputes_are_dated_by_stripes_response() -> None:
    listed = dispute("updated", "dp_1", "pi_1", 700, "won", moves=[-700, 700])["data"]["object"]
    page = {"object": "list", "data": [listed, listed | {"payment_intent": None}], "has_more": False}
    published = StripeSaying(page, {"date": "Fri, 07 Jan 2022 12:00:00 GMT"})
    (found,) = await published.list_disputes("pi_1")
    assert found.told_at is not None
    assert found.told_at.isoformat() == "2022-01-07T12:00:00+00:00"
    assert (found.withdrawn, found.returned, found.settled_in) == (700, 700, "USD")


@pytest.mark.parametrize("currency", ["eur", "zzz", "isk"])
async def test_a_dispute_in_another_currency_subtracts_all_that_is_left(books: Books, currency: str) -> None:
    pledge = await books.paid_pledge()
    await books.apply([refund("created", "re_1", "pi_1", 1_000, "succeeded")])
    await books.apply([dispute("created", "dp_1", "pi_1", 2_333, "needs_response", currency=currency)])
    (row,) = await books.payments(pledge)
    assert (row.refunded, row.disputed, row.status) == (1_000, 1_500, "disputed")
    assert await books.balances(row.id) == {"refunds": 1_000, "disputes": 1_500, "drive_raised": -2_500}
    assert await doubts(books) == ["other_currency"]
    assert await nothing_is_set_aside(books)


def test_every_event_about_a_refund_or_dispute_is_read() -> None:
    """schemas.event.type of Stripe's OpenAPI, those that carry a refund or a dispute of a charge."""
    assert {name for name in READERS if "refund" in name or "dispute" in name} == {
        "charge.refunded", "charge.refund.updated", "refund.created", "refund.updated", "refund.failed",
        "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed",
        "charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated",
    }  # fmt: skip
