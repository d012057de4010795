"""Refunds past the threshold: sent once another key approves them, returned where it rejects them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select

from services.payments.disbursements.pending import read_pending
from services.payments.funds import FundSums
from services.payments.large_refunds.tables import LARGE_REFUNDS
from services.payments.proof.tracing import tell
from services.payments.tables import REFUNDS
from services.payments.treasury.money_gauges import MoneyGauges
from tests.payments.harness import a_drive
from tests.payments.large_refunds.large_refunds_api import MAKER, RefundApi, open_refunds
from tests.payments.stripe_events import refund as refund_event
from tests.rounds import run_round

SECOND_KEY = (409, "/problems/second-approver-needed", "")
DECIDED = (409, "/problems/approval-state", "")
TOO_MUCH = (409, "/problems/refund-exceeds-payment", "")
APPROVED = (200, "succeeded", "approved")
REJECTED = (200, "failed", "rejected")
ADMIN: dict[str, Any] = {"partner": "default", "scopes": ("admin",)}


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RefundApi]:
    async with open_refunds(request.param, tmp_path) as api:
        yield api


async def test_a_refund_past_the_threshold_is_sent_once_another_key_approves_it(api: RefundApi) -> None:
    payment = await api.paid()
    asked = await api.ask_refund(payment, "100.01", once="one")
    refund = asked.json()["id"]
    assert (asked.status, asked.json()["status"]) == (201, "pending")
    assert asked.json()["approval"] == {
        "state": "needed", "requested_by": "key_a", "requested_at": asked.json()["approval"]["requested_at"],
        "decided_by": None, "decided_at": None, "reason": None,
    }  # fmt: skip
    assert await api.decided(refund, "approve", "key_a") == SECOND_KEY
    api.books.clock.move(3600)
    assert (await run_round(api.refunds), api.stripe.calls) == (0, [])
    assert await api.decided(refund, "approve") == APPROVED
    assert await api.decided(refund, "approve") == APPROVED
    assert await api.decided(refund, "approve", "key_a") == APPROVED
    assert await api.decided(refund, "reject") == DECIDED
    assert [(each.key, each.units) for each in api.stripe.sent.values()] == [(refund, 10_001)]
    assert api.stripe.calls == [refund]
    again = await api.ask_refund(payment, "100.01", once="one")
    assert (again.body, again.headers["idempotency-replayed"]) == (asked.body, "true")
    shown = await api.payment(payment)
    assert shown["refunded"]["value"] == "100.01"
    (large,) = shown["large_refunds"]
    assert (large["id"], large["status"], large["approval"]["decided_by"]) == (refund, "succeeded", "key_b")
    assert large["approval"]["reason"] == "checked"
    assert not any((await api.books.drift()).values())


async def test_a_refund_up_to_the_threshold_is_made_at_once(api: RefundApi) -> None:
    reply = await api.ask_refund(await api.paid(), "100.00")
    assert (reply.status, reply.json()["status"]) == (201, "succeeded")
    assert set(reply.json()) == {"id", "status", "amount"}
    assert await api.listed() == []


async def test_small_parts_of_a_large_refund_need_a_second_key_too(api: RefundApi) -> None:
    payment = await api.paid()
    assert (await api.ask_refund(payment, "60.00")).json()["status"] == "succeeded"
    assert (await api.ask_refund(payment, "40.00")).json()["status"] == "succeeded"
    part = await api.waiting(payment, "0.01")
    other = await api.waiting(payment, "0.02")
    assert await api.decided(part, "reject") == REJECTED
    assert await api.decided(other, "approve") == APPROVED
    assert sum(each.units for each in api.stripe.sent.values()) == 10_002


async def test_what_was_refunded_in_the_dashboard_is_part_of_the_measure(api: RefundApi) -> None:
    payment = await api.paid()
    await api.refund_elsewhere("pi_1", 9_000)
    await api.waiting(payment, "10.01")
    assert (await api.payment(payment))["refunded"]["value"] == "90.00"


async def test_a_waiting_refund_reserves_its_amount_and_a_rejection_returns_it(api: RefundApi) -> None:
    payment = await api.paid()
    refund = await api.waiting(payment, "450.00")
    assert (await api.ask_refund(payment, "50.01")).status == 409
    drive = api.drive.drive_id
    assert await api.books.database.read_whole(lambda one: read_pending(one, drive, "USD")) == FundSums(
        45_000
    )
    assert await api.decided(refund, "reject", "key_a") == REJECTED
    assert await api.decided(refund, "reject") == REJECTED
    assert await api.decided(refund, "approve") == DECIDED
    assert api.stripe.calls == []
    rest = await api.waiting(payment)
    assert await api.decided(rest, "approve") == APPROVED
    assert (await api.payment(payment))["status"] == "refunded"


@pytest.mark.parametrize("gone", ["refunded", "disputed"])
async def test_an_approval_is_refused_while_less_is_left(api: RefundApi, gone: str) -> None:
    payment = await api.paid()
    refund = await api.waiting(payment, "400.00")
    if gone == "refunded":
        await api.refund_elsewhere("pi_1", 10_001)
    else:
        await api.disputed("pi_1", 10_001)
    assert await api.decided(refund, "approve") == TOO_MUCH
    assert api.stripe.calls == []
    (still,) = await api.listed("approval=needed")
    assert (still["id"], still["status"]) == (refund, "pending")
    if gone == "disputed":
        await api.disputed("pi_1", 10_001, "won")
        assert await api.decided(refund, "approve") == APPROVED
    else:
        assert await api.decided(refund, "reject") == REJECTED
        assert (await api.ask_refund(payment, "399.99")).status == 201


async def test_a_refund_that_stripe_has_already_is_approved_without_being_sent_again(api: RefundApi) -> None:
    """After a restore of the database Stripe may report a refund whose approval is not stored any more."""
    payment = await api.paid()
    refund = await api.waiting(payment, "400.00")
    await api.books.apply([refund_event("updated", "re_1", "pi_1", 40_000, "succeeded", ours=refund)])
    assert (await api.decided(refund, "reject"))[0] == 409
    assert await api.decided(refund, "approve") == APPROVED
    assert api.stripe.calls == []
    assert await api.listed("approval=needed") == []


async def test_an_approved_refund_of_unknown_outcome_is_sent_again_under_its_key(api: RefundApi) -> None:
    refund = await api.waiting(await api.paid(), "200.00")
    api.stripe.down = True
    assert await api.decided(refund, "approve") == (200, "pending", "approved")
    api.stripe.down = False
    for _ in range(2):
        api.books.clock.move(120)
        await run_round(api.refunds)
    assert api.stripe.calls == [refund, refund]
    assert await api.decided(refund, "approve") == APPROVED


async def test_a_refund_that_waited_for_days_is_sent_under_its_first_key(api: RefundApi) -> None:
    refund = await api.waiting(await api.paid(), "200.00")
    api.books.clock.move(5 * 86_400)
    assert await api.decided(refund, "approve") == APPROVED
    assert api.stripe.calls == [refund]


async def test_decisions_at_the_same_time_send_it_once_or_not_at_all(api: RefundApi) -> None:
    payment = await api.paid()
    refund = await api.waiting(payment, "200.00")
    replies = await asyncio.gather(
        *(api.decided(refund, action, key) for action in ("approve", "reject") for key in ("key_b", "key_c"))
    )
    sent = [each.units for each in api.stripe.sent.values()]
    states = {state for status, _, state in replies if status == 200}
    assert states in ({"approved"}, {"rejected"})
    assert sent == ([20_000] if states == {"approved"} else [])
    assert [status for status, _, _ in replies].count(200) == 2


async def test_who_may_ask_and_decide(api: RefundApi) -> None:
    refund = await api.waiting(await api.paid(), "200.00", partner=MAKER, key="key_shop")
    for action in ("approve", "reject"):
        refused = await api.decided(refund, action, partner="neighbour")
        assert refused == (403, "/problems/not-your-drive", "")
    assert (await api.decided(refund, "approve", scopes=("ledger",)))[0] == 403
    assert (await api.decided(refund, "approve", mode="test"))[0] == 403
    assert (await api.decided("rfd_01j00000000000000000000000", "approve"))[0] == 404
    assert (await api.decided("rfd_1", "approve"))[0] == 404
    assert await api.decided(refund, "approve", "key_shop", partner=MAKER) == SECOND_KEY
    assert await api.decided(refund, "approve", "key_shop_2", partner=MAKER) == APPROVED


async def test_an_admin_key_cannot_do_both_and_a_key_without_id_neither(api: RefundApi) -> None:
    refund = await api.waiting(await api.paid(), "200.00", key="key_admin", **ADMIN)
    assert await api.decided(refund, "approve", "key_admin", **ADMIN) == SECOND_KEY
    assert await api.decided(refund, "approve", "", **ADMIN) == SECOND_KEY
    assert await api.decided(refund, "approve") == APPROVED


async def test_lists(api: RefundApi) -> None:
    own = await api.paid()
    foreign = await api.paid(intent="pi_2", drive=a_drive(partner="other", slug="summer"))
    first = await api.waiting(own, "200.00")
    second = await api.waiting(own, "210.00")
    third = await api.waiting(foreign, "220.00", partner="other")
    await api.decided(first, "reject")

    async def found(query: str = "", **caller: Any) -> list[str]:
        return [one["id"] for one in await api.listed(query, **caller)]

    assert await found(**ADMIN) == [third, second, first]
    assert await found(partner=MAKER) == [third, second, first]
    assert await found() == [second, first]
    assert await found("approval=needed") == [second]
    assert await found("approval=rejected") == [first]
    assert await found("approval=approved") == []
    assert await found("drive=winter") == [second, first]
    assert await found("drive=winter", partner="other") == []
    assert await found("drive=summer", partner=MAKER) == [third]
    assert await found(partner="neighbour") == []
    assert await found(mode="test") == []
    page = await api.ask("GET", "/v1/refunds", query="limit=1", **ADMIN)
    assert (page.json()["next"], page.json()["data"][0]["id"]) == (third, third)
    assert await found(f"after={third}", **ADMIN) == [second, first]
    assert (await api.ask("GET", "/v1/refunds", query="approval=lost")).status == 422
    assert (await api.ask("GET", "/v1/refunds", query="drive=nowhere")).status == 404
    assert (await api.ask("GET", "/v1/refunds", scopes=("ledger",))).status == 403


async def test_trace_and_gauge_show_a_waiting_refund(api: RefundApi) -> None:
    payment = await api.paid()
    pledge = (await api.payment(payment))["pledge"]
    refund = await api.waiting(payment, "200.00")
    gauges = MoneyGauges(api.books.database, api.books.clock)
    await gauges.read()
    assert REGISTRY.get_sample_value("ataa_refunds_to_decide") == 1
    api.books.clock.move(60)
    await api.decided(refund, "approve")
    await gauges.read()
    assert REGISTRY.get_sample_value("ataa_refunds_to_decide") == 0
    steps = (await api.books.database.read_whole(lambda one: tell(one, pledge))).steps
    told = [(str(each.at), each.text) for each in steps if each.text.startswith(f"refund {refund}")]
    assert [what.partition(refund)[2] for _, what in told] == [
        " of 200.00 USD was asked for here: sent now as re_" + refund,
        ": key key_a asked for it; it needs a second key",
        ": key key_b approved it",
    ]
    assert told[0][0] == told[1][0] < told[2][0]


async def test_an_impossible_large_refund_stores_nothing(api: RefundApi) -> None:
    payment = await api.paid()
    assert (await api.ask_refund(payment, "500.01")).status == 409
    async with api.books.database.reading() as session:
        for table in (REFUNDS, LARGE_REFUNDS):
            assert (await session.execute(select(func.count()).select_from(table))).scalar_one() == 0


async def test_without_a_threshold_one_key_refunds_everything(tmp_path: Path) -> None:
    async with open_refunds("sqlite", tmp_path, None) as api:
        assert (await api.ask_refund(await api.paid())).json()["status"] == "succeeded"
