"""Cancelling and listing pledges through the API, and payments that arrive after a cancellation."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbone import ids
from backbone.contracts.payments import PaymentStatus, pledge_status
from backbone.contracts.pledges import PledgeChanged, PledgeStatus
from services.pledges.domain import current_status
from tests.pledges.harness import Harness, a_pledge, pledges_harness
from tests.pledges.test_payment_events import change, status_of, wait_until_consumed

S = PaymentStatus


async def cancel(harness: Harness, pledge: str, **who: Any) -> Any:
    return await harness.post(f"/v1/pledges/{pledge}/cancel", **who)


async def test_cancellation_is_announced_once(harness: Harness) -> None:
    await harness.drive()
    made = (await harness.pledge()).json()
    replies = await asyncio.gather(*(cancel(harness, made["id"]) for _ in range(4)))
    assert {reply.status for reply in replies} == {200}
    assert all(reply.json() == made | {"status": "cancelled"} for reply in replies)
    news = [event for event in await harness.announced() if isinstance(event, PledgeChanged)]
    assert [(event.status, event.version) for event in news] == [(PledgeStatus.CANCELLED, 2)]


@pytest.mark.parametrize("status", [S.CAPTURED, S.PARTLY_REFUNDED, S.REFUNDED, S.DISPUTED, S.LAPSED])
async def test_pledge_that_is_not_open_cannot_be_cancelled(harness: Harness, status: PaymentStatus) -> None:
    await harness.drive()
    pledge = (await harness.pledge()).json()["id"]
    money = (0, 0, 0) if status is S.LAPSED else (2500, 0, 0)
    async with harness.running_workers("pledges.consumer"):
        await harness.publish(change(ids.new("pay"), 1, status, pledge=pledge, money=money))
        await wait_until_consumed(harness)
    reply = await cancel(harness, pledge)
    assert (reply.status, reply.json()["type"]) == (409, "/problems/pledge-not-open")


async def test_only_the_partner_of_a_pledge_can_cancel_or_list_it(harness: Harness) -> None:
    await harness.drive()
    pledge = (await harness.pledge(partner="one")).json()["id"]
    assert (await cancel(harness, pledge, partner="other")).status == 404
    assert (await cancel(harness, pledge, partner="one", scopes=("drives",))).status == 403
    key: dict[str, Any] = {"publishable": True, "scopes": ("pledges-of-a-page",)}
    assert (await cancel(harness, pledge, partner="one", **key)).status == 403
    assert (await cancel(harness, pledge, partner="one", mode="test")).status == 403
    assert (await cancel(harness, "plg_0", partner="one")).status == 404
    assert (await listed(harness, partner="other"))["data"] == []
    assert (await cancel(harness, pledge, partner="one", scopes=("pledges",))).status == 200


async def listed(harness: Harness, query: str = "", status: int = 200, **who: Any) -> Any:
    reply = await harness.read("/v1/pledges", query, **who)
    assert reply.status == status, reply.body
    return reply.json()


async def test_pledges_are_listed_newest_first_in_pages(harness: Harness) -> None:
    await harness.drive()
    made = [(await harness.pledge()).json() for _ in range(5)]
    seen: list[dict[str, Any]] = []
    after = ""
    for size in (2, 2, 1):
        page = await listed(harness, f"limit=2{after}")
        assert len(page["data"]) == size
        seen += page["data"]
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert seen == list(reversed(made))


async def test_pledge_list_filters_by_drive_reference_and_status(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("summer")
    one = (await harness.pledge(a_pledge(reference="order 1"))).json()
    two = (await harness.pledge(a_pledge(reference="order 2"))).json()
    other = (await harness.pledge(drive="summer")).json()
    await cancel(harness, two["id"])

    async def found(query: str) -> list[str]:
        return [row["id"] for row in (await listed(harness, query))["data"]]

    assert await found("reference=order%201") == [one["id"]]
    assert await found("drive=summer") == [other["id"]]
    assert await found(f"drive={one['drive']}&status=open") == [one["id"]]
    assert await found("status=cancelled") == [two["id"]]
    assert await found("reference=nobody") == []
    await listed(harness, "drive=nowhere", status=404)
    for query in (
        "status=lost",
        "limit=0",
        "limit=101",
        "after=%00",
        "reference=%00",
        "reference=" + "x" * 256,
    ):
        await listed(harness, query, status=422)
    await listed(harness, scopes=("drives",), status=403)


async def test_test_key_lists_only_pledges_of_test_drives(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("trial", test=True)
    await harness.pledge()
    trial = (await harness.pledge(drive="trial")).json()["id"]
    assert [row["id"] for row in (await listed(harness, mode="test"))["data"]] == [trial]


@given(st.lists(st.sampled_from(list(S)), max_size=4))
def test_pledge_stays_cancelled_only_without_payments(payments: list[PaymentStatus]) -> None:
    without = pledge_status(payments)
    unpaid = without in (PledgeStatus.OPEN, PledgeStatus.LAPSED)
    assert current_status(payments, cancelled=True) == (PledgeStatus.CANCELLED if unpaid else without)


LIVES = {
    "paid": [(S.AWAITED, (0, 0, 0)), (S.CAPTURED, (2500, 0, 0))],
    "partly_refunded": [
        (S.LAPSED, (0, 0, 0)),
        (S.CAPTURED, (2500, 0, 0)),
        (S.PARTLY_REFUNDED, (2500, 1000, 0)),
    ],
    "cancelled": [(S.AWAITED, (0, 0, 0)), (S.LAPSED, (0, 0, 0))],
}
NET = {"paid": 25, "partly_refunded": 15, "cancelled": 0}


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(LIVES)), st.randoms(use_true_random=False), st.integers(0, 4))
def test_cancellation_concurrent_with_a_payment_loses_no_money(life: str, chance: Any, at: int) -> None:
    """A cancellation at any point, and payment events in any order, with repetitions."""
    steps = [(version, *step) for version, step in enumerate(LIVES[life], 1)]
    steps += chance.sample(steps, 1)
    chance.shuffle(steps)
    asyncio.run(_race(life, steps, at))


async def _race(life: str, steps: list[tuple[int, PaymentStatus, tuple[int, int, int]]], at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with pledges_harness(Path(folder)) as harness, harness.running_workers("pledges.consumer"):
            await harness.drive()
            pledge, payment = (await harness.pledge()).json()["id"], ids.new("pay")
            cancelled = None
            for place, (version, status, money) in enumerate([*steps, (0, S.AWAITED, (0, 0, 0))]):
                if place == min(at, len(steps)):
                    cancelled = (await cancel(harness, pledge)).status
                if version:
                    await harness.publish(change(payment, version, status, pledge=pledge, money=money))
                    await wait_until_consumed(harness)
            ended = await status_of(harness, pledge)
            assert cancelled in (200, 409)
            assert ended == life or (life, ended, cancelled) == ("cancelled", "lapsed", 409)
            assert (await harness.get("/internal/books")).json().get("USD", "0.00") == f"{NET[life]}.00"
            versions = [
                event.version for event in await harness.announced() if isinstance(event, PledgeChanged)
            ]
            assert versions == list(range(2, 2 + len(versions)))
