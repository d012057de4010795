"""Processes killed at each crash point and restarted: no cent is lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.payments.recording.ledger import BANK, FEES
from tests.journeys.embedded_system import STRIPE_KEY, EmbeddedSystem, copied, running
from tests.payments.settlement.balances import account_balances
from tests.waiting import until

POINTS = [
    "pledges.intake.after_commit:2",
    "pledges.outbox.after_ack:3",
    "payments.consumer.before_commit:3",
    "payments.consumer.after_commit:3",
    "payments.checkout.before_call:2",
    "payments.checkout.after_call:2",
    "payments.webhooks.after_commit:2",
    "payments.applier.before_commit:2",
    "payments.applier.after_commit:2",
    "payments.outbox.after_ack:2",
    "payments.refunds.after_reserve:1",
    "payments.refunds.after_send:1",
    "payments.sweep.before_commit:1",
    "payments.sweep.after_record:4",
    "leaderboard.consumer.before_commit:4",
    "leaderboard.consumer.after_commit:4",
    "leaderboard.outbox.after_ack:3",
    "leaderboard.words.after_commit:3",
    "pledges.consumer.before_commit:2",
    "pledges.consumer.after_commit:2",
    "notify.consumer.before_commit:2",
    "notify.consumer.after_commit:2",
]


DECLINED = "4000000000000002"

SETTLEMENT_POINTS = [
    "payments.settlement.before_commit:1",
    "payments.settlement.after_record:1",
    "payments.settlement.payout_before_commit:1",
    "payments.settlement.before_place:1",
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a killed system in which the drive `crash` is open and nothing is in transit."""
    folder = tmp_path_factory.mktemp("opened") / "ataa"
    async with running(folder) as system:
        await system.open_drive("crash")
        await until(system.is_drained)
    return folder


@pytest.mark.parametrize("point", POINTS)
async def test_kill_at_crash_point_neither_loses_nor_duplicates_money(
    tmp_path: Path, opened: Path, point: str
) -> None:
    async with copied(opened, tmp_path / "ataa") as system:
        await system.start(ATAA_CRASH_AT=point)
        donating = asyncio.create_task(donate_ten(system))
        await system.wait_until_killed()
        before = system.rows()
        await system.start()
        await donating
        books = await system.wait_until_books_agree()
        assert books == {"USD": "225.00"}, before
        totals = await system.wait_for_raised("crash", "225.00", refunded="25.00")
        assert totals["donations"] == 9
        await assert_log_is_complete(system)
        assert "Traceback" not in system.log


async def test_kill_while_a_looked_up_dispute_is_recorded_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("crash")
        await system.donate("crash", "25.00")
        disputed = await system.donate("crash", "10.00")
        await system.wait_for_raised("crash", "35.00")
        system.kill()
        await system.start(ATAA_CRASH_AT="payments.asker.before_commit:1")
        intents = await system.request(
            "GET", f"{system.sandbox_url}/v1/payment_intents", Authorization=f"Bearer {STRIPE_KEY}"
        )
        (intent,) = [
            each["id"] for each in intents.body["data"] if each["metadata"]["ataa_pledge"] == disputed["id"]
        ]
        # In the cardholder's currency with nothing withdrawn yet: the amount has to be looked up at Stripe.
        body = {"payment_intent": intent, "status": "needs_response", "currency": "eur", "withdrawn": 0}
        opened = await system.request("POST", f"{system.sandbox_url}/_sandbox/disputes", body)
        assert opened.status == 200, opened.body
        await system.wait_until_killed()
        await system.start()
        await system.wait_for_raised("crash", "25.00", disputed="10.00")
        await system.request("POST", f"{system.sandbox_url}/_sandbox/disputes", body | {"status": "won"})
        await system.wait_for_raised("crash", "35.00", disputed="0.00")
        assert await system.wait_until_books_agree() == {"USD": "35.00"}


async def test_kill_while_an_unreported_payment_is_recorded_counts_it_once(tmp_path: Path) -> None:
    settings = {"ATAA_CHECKOUT_EXPIRES_S": "3", "ATAA_STRIPE_SWEEP_S": "3600"}
    async with running(tmp_path / "ataa", **settings) as system:
        await system.open_drive("crash")
        await system.donate("crash", "25.00")
        await system.wait_for_raised("crash", "25.00")
        system.kill()
        await system.start(ATAA_CRASH_AT="payments.hanging.before_commit:1")
        lost = ["checkout.session.completed", "payment_intent.succeeded", "checkout.session.expired"]
        faults = f"{system.sandbox_url}/_sandbox/faults"
        assert (await system.request("POST", faults, {"unsubscribed": lost})).status == 200
        await system.donate("crash", "10.00")
        await system.wait_until_killed()
        await system.start()
        await system.wait_for_raised("crash", "35.00")
        assert await system.wait_until_books_agree() == {"USD": "35.00"}


@pytest.mark.parametrize("point", SETTLEMENT_POINTS)
async def test_kill_while_fees_and_payouts_are_read_posts_each_once(
    tmp_path: Path, opened: Path, point: str
) -> None:
    async with copied(opened, tmp_path / "ataa") as system:
        await system.start()
        for _ in range(3):
            await system.donate("crash", creator="star")
        await system.wait_for_raised("crash", "75.00")
        assert (await system.request("POST", f"{system.sandbox_url}/_sandbox/payouts", {})).status == 200
        await until(lambda: all_payouts_are_paid(system))
        system.kill()
        await system.start(ATAA_CRASH_AT=point)
        await system.wait_until_killed()
        await system.start(ATAA_STRIPE_SETTLEMENT_S="0.5")

        async def reconciled() -> list[dict[str, Any]]:
            found = (await system.admin("GET", "/v1/payouts")).body["data"]
            return [each for each in found if each["reconciled"]]

        (payout,) = await until(reconciled)
        assert (payout["amount"]["value"], payout["payments"]) == ("71.91", 3)
        assert account_balances(system.folder / "data", FEES) == {"USD": Decimal("3.09")}
        assert account_balances(system.folder / "data", BANK) == {"USD": Decimal("71.91")}
        assert await system.wait_until_books_agree() == {"USD": "75.00"}
        assert "Traceback" not in system.log


async def test_kill_while_a_used_up_checkout_is_stored_ends_it_after_the_restart(
    tmp_path: Path, opened: Path
) -> None:
    async with copied(opened, tmp_path / "ataa") as system:
        await system.start(ATAA_CRASH_AT="payments.screening.before_commit:1")
        pledge = await system.pledge("crash", "5.00")
        with contextlib.suppress(aiohttp.ClientError):  # it is killed after the tenth
            for _ in range(10):
                assert (await system.pay(pledge, DECLINED))["payment_status"] == "unpaid"
        await system.wait_until_killed()
        await system.start()

        async def lapsed() -> bool:
            found = await system.request("GET", f"/v1/pledges/{pledge['id']}?token={pledge['token']}")
            return found.status == 200 and bool(found.body["status"] == "lapsed")

        await until(lapsed)
        await system.donate("crash")
        assert await system.wait_until_books_agree() == {"USD": "25.00"}
        assert "Traceback" not in system.log


async def all_payouts_are_paid(system: EmbeddedSystem) -> bool:
    """Whether the sandbox has paid out, with complete balance transactions."""
    url = f"{system.sandbox_url}/v1/payouts"
    listed = (await system.request("GET", url, Authorization=f"Bearer {STRIPE_KEY}")).body["data"]
    return {each["status"] for each in listed} == {"paid"}


async def donate_ten(system: EmbeddedSystem) -> None:
    """Make ten donations of 25.00 and refund the first; each request is retried until it succeeds.

    The first four are counted one after the other: together they might pass a crash point in one batch.
    """
    donations = []
    for number in range(1, 5):
        donations.append(await system.donate("crash", creator="star"))
        await until(lambda number=number: has_donations(system, number))  # type: ignore[misc]
    donations += await asyncio.gather(*(system.donate("crash", creator="star") for _ in range(6)))
    key = f"refund-{donations[0]['id']}"
    for _ in range(600):
        with contextlib.suppress(aiohttp.ClientError):
            path = f"/v1/pledges/{donations[0]['id']}/refunds"
            refund = await system.admin("POST", path, {}, Idempotency_Key=key)
            if refund.status == 201:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("the refund was never accepted")


async def has_donations(system: EmbeddedSystem, donations: int) -> bool:
    """Whether so many donations are shown; False while the system is down."""
    with contextlib.suppress(aiohttp.ClientError):
        answer = await system.request("GET", "/v1/drives/crash/totals")
        return answer.status == 200 and bool(answer.body["donations"] == donations)
    return False


async def assert_log_is_complete(system: EmbeddedSystem) -> None:
    """Fail unless the log has no gap in its sequence and its last row agrees with the totals."""
    rows = (await system.request("GET", "/v1/drives/crash/events?after=0&limit=100")).body["data"]
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["raised_after"]["value"] == "225.00"
    assert len({row["pledge"] for row in rows if row["type"] == "donation.counted"}) == 10
