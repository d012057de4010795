"""Early fraud warnings are counted for payments of ours, and move no money."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from services.payments.domain import CaptureRank, FactKind, Observation
from services.payments.reconciliation.lookups import Reconciler
from services.payments.statements import lock_payments
from services.payments.tables import APPLIED, IGNORED, PAYMENTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import an_event, intent_succeeded, metadata
from tests.payments.webhooks.test_foreign import states
from tests.rounds import run_lookups
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def a_warning(intent: str | None) -> dict[str, Any]:
    thing = {
        "id": "issfr_1",
        "object": "radar.early_fraud_warning",
        "charge": "ch_1",
        "payment_intent": intent,
    }
    return an_event("radar.early_fraud_warning.created", thing)


def counted() -> float:
    return REGISTRY.get_sample_value("ataa_early_fraud_warnings_total") or 0.0


async def test_warned_payment_is_marked_and_its_money_counts_as_before(books: Books) -> None:
    pledge = await books.paid_pledge()
    (payment,) = await books.payments(pledge)
    before, balances, events = counted(), await books.balances(payment.id), await books.published(pledge)
    await books.apply([a_warning("pi_1")])
    assert counted() == before + 1
    (warned,) = await books.payments(pledge)
    assert dict(warned._mapping) | {"warned_at": None} == dict(payment._mapping)
    assert warned.warned_at == books.clock.now()
    assert (await books.balances(payment.id), await books.published(pledge)) == (balances, events)
    assert (await states(books))[-1] == (APPLIED, None)


async def test_further_warning_keeps_the_time_of_the_first(books: Books) -> None:
    pledge = await books.paid_pledge()
    await books.apply([a_warning("pi_1")])
    first = books.clock.now()
    books.clock.move(3_600)
    await books.apply([a_warning("pi_1")])
    (payment,) = await books.payments(pledge)
    assert payment.warned_at == first


@pytest.mark.parametrize("together", [True, False])
async def test_warning_that_is_reported_before_its_capture_marks_the_payment(
    books: Books, together: bool
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    before = counted()
    paid = intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))
    for batch in [[a_warning("pi_1"), paid]] if together else [[a_warning("pi_1")], [paid], [paid]]:
        await books.apply(batch)
    (payment,) = await books.payments(pledge.pledge_id)
    assert (payment.captured, payment.warned_at) == (2_500, books.clock.now())
    assert counted() == before + 1
    assert await run_lookups(Reconciler(books.database, FakeProcessor(), books.clock)) == 0


async def test_warning_of_a_lost_capture_finds_it_at_stripe(books: Books) -> None:
    processor, drive = FakeProcessor(), a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([a_warning("pi_1")])
    processor.captures["pi_1"] = Observation(
        "pi_1", FactKind.CAPTURE, "pi_1", 2_500, "USD", CaptureRank.BY_INTENT, books.clock.now(),
        pledge_id=pledge.pledge_id, drive_id=drive.drive_id,
    )  # fmt: skip
    books.clock.move(601)
    reconciler = Reconciler(books.database, processor, books.clock)
    assert await run_lookups(reconciler) == 1
    (payment,) = await books.payments(pledge.pledge_id)
    assert (payment.captured, payment.warned_at) == (2_500, books.clock.now())
    books.clock.move(3_601)
    assert await run_lookups(reconciler) == 0


async def test_warning_of_an_intent_unknown_to_stripe_is_given_up(books: Books) -> None:
    processor = FakeProcessor()
    reconciler = Reconciler(books.database, processor, books.clock)
    await books.apply([a_warning("pi_shop")])
    for _ in range(40):
        books.clock.move(3_601)
        await run_lookups(reconciler)
    assert len(processor.looked_up) == 30


async def test_applier_that_waits_to_mark_a_payment_holds_no_other_lock(books: Books, store: str) -> None:
    """Payments are locked in the order of their tickets by every transaction, so that none deadlock."""
    if store == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    drive = a_drive()
    first, second = a_pledge(drive), a_pledge(drive)
    await books.consume(drive, first, second)
    one, two = (metadata(None, each.pledge_id, drive.drive_id) for each in (first, second))
    await books.apply([intent_succeeded("pi_1", 2_500, one)])
    ids = [(await books.payments(each.pledge_id))[0].id for each in (first, second)]
    async with books.database.transaction() as session:
        await lock_payments(session, ids[:1])
        applying = asyncio.create_task(books.apply([intent_succeeded("pi_2", 2_500, two), a_warning("pi_1")]))
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")

        async def is_waiting() -> bool:
            return bool((await session.execute(waiting)).scalar_one())

        await until(is_waiting)
        await session.execute(
            select(PAYMENTS.c.id).where(PAYMENTS.c.id == ids[1]).with_for_update(nowait=True)
        )
    await applying
    (payment,) = await books.payments(first.pledge_id)
    assert payment.warned_at is not None


@pytest.mark.parametrize("intent", ["pi_shop", None])
async def test_warning_of_another_payment_is_ignored(books: Books, intent: str | None) -> None:
    await books.paid_pledge()
    before = counted()
    await books.apply([a_warning(intent)])
    assert counted() == before
    assert (await states(books))[-1] == (IGNORED, "foreign")
