"""Checkouts whose end no webhook reports: Stripe is asked, and the pledge is paid or lapses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from backbone.durable_work import Failure
from services.payments.domain import FactKind
from services.payments.processor import TooFast
from services.payments.reconciliation.hanging import BATCH, PAGES, HangingCheckouts
from services.payments.stripe.events import checkout_outcome
from services.payments.stripe.objects import moment_of
from services.payments.tables import PAYMENTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import Harness, a_drive, a_pledge, running
from tests.payments.stripe.counting_limiter import CountingLimiter

NO_ENDS = [
    "checkout.session.expired", "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded", "payment_intent.payment_failed",
]  # fmt: skip
SWEPT_NEVER = {"stripe_sweep_s": 3_600.0, "stripe_backfill_s": 0.2}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Checkouts of two seconds, at an endpoint that is not told how they end."""
    async with running(tmp_path, checkout_expires_s=2, **SWEPT_NEVER) as harness:
        await harness.faults(unsubscribed=NO_ENDS)
        yield harness


async def test_a_checkout_that_expired_unreported_lapses_its_pledge(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    await harness.opened(pledge.pledge_id)
    await harness.status(pledge.pledge_id, "lapsed")
    assert await harness.books() == {}


async def test_a_bank_debit_that_failed_unreported_lapses_its_pledge(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    await harness.pay(await harness.opened(pledge.pledge_id), "000111111116")
    await harness.status(pledge.pledge_id, "lapsed")
    assert await harness.books() == {}


async def test_a_payment_that_no_webhook_reported_counts_once(tmp_path: Path) -> None:
    """Neither the event of the session nor that of the intent arrives, and no sweep runs."""
    async with running(tmp_path, checkout_expires_s=2, **SWEPT_NEVER) as harness:
        await harness.faults(
            unsubscribed=[*NO_ENDS, "checkout.session.completed", "payment_intent.succeeded"]
        )
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.publish_events(drive, pledge)
        await harness.pay(await harness.opened(pledge.pledge_id))
        await harness.status(pledge.pledge_id, "paid")
        assert await harness.agreed_books() == {"USD": "25.00"}
        captured = [each for each in harness.published if each.status == "captured"]
        assert len(captured) == 1


async def test_a_checkout_before_its_end_is_not_asked_about(tmp_path: Path) -> None:
    async with running(tmp_path, checkout_expires_s=3_600, **SWEPT_NEVER) as harness:
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.publish_events(drive, pledge)
        await harness.opened(pledge.pledge_id)
        await asyncio.gather(*(harness.drained() for _ in range(3)))
        assert (await harness.checkout(pledge.pledge_id))["checkout"] is not None


SESSION: dict[str, Any] = {
    "id": "cs_1", "status": "complete", "payment_status": "unpaid", "amount_total": 2_500, "currency": "usd",
    "client_reference_id": None, "metadata": {"ataa_payment": "pay_1", "ataa_pledge": "plg_1"},
}  # fmt: skip
INTENT_STATES = (
    "requires_payment_method", "requires_confirmation", "requires_action", "processing", "requires_capture",
    "canceled", "succeeded", "new_at_stripe",
)  # fmt: skip


@given(
    status=st.sampled_from(["open", "complete", "expired", "new_at_stripe"]),
    paid=st.sampled_from(["paid", "unpaid", "no_payment_required", "new_at_stripe"]),
    intent=st.none() | st.sampled_from(INTENT_STATES),
)
def test_an_answer_ends_a_checkout_only_where_no_money_can_arrive_by_it(
    status: str, paid: str, intent: str | None
) -> None:
    session = SESSION | {"status": status, "payment_status": paid}
    session["payment_intent"] = None if intent is None else {"id": "pi_1", "status": intent}
    found = checkout_outcome(session, moment_of(1_700_000_000))
    if paid == "paid" and intent is not None:
        assert found is not None
        assert (found.kind, found.id, found.units, found.currency) == (FactKind.CAPTURE, "pi_1", 2_500, "USD")
    elif status == "expired" or (status == "complete" and intent in ("requires_payment_method", "canceled")):
        assert found is not None
        assert (found.kind, found.id, found.payment_id) == (FactKind.ENDED, "cs_1", "pay_1")
    else:
        assert found is None


async def test_only_a_call_that_succeeded_restores_the_rate(books: Books) -> None:
    answers: list[Exception | None] = [None, TooFast("429"), None]

    class Undecided(FakeProcessor):
        async def read_checkout(self, session_id: str) -> None:
            if (error := answers.pop()) is not None:
                raise error

    limiter = CountingLimiter()
    hanging = HangingCheckouts(books.database, cast(Any, Undecided()), limiter, books.clock, 1.0)
    rows = [SimpleNamespace(id=f"pay_{n}", session_id=f"cs_{n}") for n in range(3)]
    assert len(await hanging.run_batch(cast(Any, rows))) == 3
    assert (limiter.admitted, limiter.successes) == (3, 2)


async def test_every_undecided_checkout_is_asked_about_before_one_is_asked_again(books: Books) -> None:
    drive, number = a_drive(), BATCH * (PAGES + 3)
    await books.consume(drive, *(a_pledge(drive) for _ in range(number)))
    ended = books.clock.now() - timedelta(minutes=5)
    async with books.database.transaction() as session:
        opened = {"checkout": "open", "session_id": "cs_1", "expires_at": ended}
        await session.execute(update(PAYMENTS).values(**opened))
    hanging = HangingCheckouts(
        books.database, cast(Any, FakeProcessor()), CountingLimiter(), books.clock, 1.0
    )
    asked: list[str] = []
    for _ in range(2 * number // BATCH):
        for row in await hanging.fetch_due():
            asked.append(row.id)
            await hanging.retry(row, Failure("undecided", 1, timedelta(hours=1)))
    assert len(asked) == len(set(asked)) == number
