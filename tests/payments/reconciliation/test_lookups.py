"""Lookups at Stripe of what a webhook only hints at, and of facts without a payment."""

from __future__ import annotations

import pytest

from services.payments.domain import CaptureRank, FactKind, Observation, RefundRank
from services.payments.reconciliation.lookups import Reconciler
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import a_charge_refunded, refund
from tests.rounds import run_lookups


async def test_a_charge_refunded_event_without_refund_event_reads_the_refunds(books: Books) -> None:
    processor, pledge = FakeProcessor(), await books.paid_pledge()
    reconciler = Reconciler(books.database, processor, books.clock)
    processor.refunds["pi_1"] = [
        Observation("re_1", FactKind.REFUND, "pi_1", 700, "USD", RefundRank.SUCCEEDED, books.clock.now())
    ]
    await books.apply([a_charge_refunded("pi_1", 700)])
    assert await run_lookups(reconciler) == 0  # not due: its own webhook may still arrive
    books.clock.move(3)
    assert await run_lookups(reconciler) == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert await run_lookups(reconciler) == 0


async def test_a_refund_with_its_own_event_is_not_looked_up(books: Books) -> None:
    processor = FakeProcessor()
    reconciler = Reconciler(books.database, processor, books.clock)
    await books.paid_pledge()
    await books.apply([a_charge_refunded("pi_1", 700)])
    await books.apply([refund("created", "re_1", "pi_1", 700, "succeeded")])
    books.clock.move(3)
    assert await run_lookups(reconciler) == 1
    await books.apply([a_charge_refunded("pi_1", 700)])
    books.clock.move(3)
    assert await run_lookups(reconciler) == 0
    assert processor.looked_up == []


async def test_an_unknown_payment_is_looked_up_after_ten_minutes(books: Books) -> None:
    processor, drive = FakeProcessor(), a_drive()
    reconciler = Reconciler(books.database, processor, books.clock)
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([refund("created", "re_1", "pi_1", 700, "succeeded")])
    books.clock.move(599)
    assert await run_lookups(reconciler) == 0
    books.clock.move(2)
    processor.unavailable = True
    assert await run_lookups(reconciler) == 1
    processor.unavailable = False
    processor.captures["pi_1"] = Observation(
        "pi_1", FactKind.CAPTURE, "pi_1", 2_500, "USD", CaptureRank.BY_INTENT, books.clock.now(),
        pledge_id=pledge.pledge_id, drive_id=drive.drive_id,
    )  # fmt: skip
    books.clock.move(5)
    assert await run_lookups(reconciler) == 1
    (published,) = await books.published(pledge.pledge_id)
    assert (published.captured.minor_units, published.refunded.minor_units) == (2_500, 700)


async def test_an_intent_unknown_to_stripe_is_looked_up_a_bounded_number_of_times(books: Books) -> None:
    processor = FakeProcessor()
    reconciler = Reconciler(books.database, processor, books.clock)
    await books.apply([refund("created", "re_1", "pi_none", 700, "succeeded")])
    for _ in range(60):
        books.clock.move(3_601)
        await run_lookups(reconciler)
    assert len(processor.looked_up) == 30


async def test_a_response_that_cannot_be_stored_does_not_block_the_others(books: Books) -> None:
    processor, pledge = FakeProcessor(), await books.paid_pledge()
    reconciler = Reconciler(books.database, processor, books.clock)
    too_much = 2**64  # too large for a column of either store
    for intent, units in (("pi_0", too_much), ("pi_1", 700)):
        processor.refunds[intent] = [
            Observation(
                f"re_{intent}", FactKind.REFUND, intent, units, "USD", RefundRank.SUCCEEDED, books.clock.now()
            )
        ]
        await books.apply([a_charge_refunded(intent, 700)])
        books.clock.move(1)
    books.clock.move(3)
    assert await run_lookups(reconciler) == 2
    assert (await books.payments(pledge))[0].refunded == 700
    books.clock.move(5)
    assert await run_lookups(reconciler) == 1  # the first one, retried later
    assert processor.looked_up == ["pi_0", "pi_1", "pi_0"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_contradicting_hints_are_resolved_by_reading_the_refunds(books: Books, at_once: bool) -> None:
    processor, pledge = FakeProcessor(), await books.paid_pledge()
    reconciler = Reconciler(books.database, processor, books.clock)
    processor.refunds["pi_1"] = [
        Observation(f"re_{n}", FactKind.REFUND, "pi_1", 500, "USD", RefundRank.SUCCEEDED, books.clock.now())
        for n in (1, 2)
    ]
    late, early = a_charge_refunded("pi_1", 1_000), a_charge_refunded("pi_1", 500)  # reordered
    for events in [[late, early]] if at_once else [[late], [early]]:
        await books.apply(events)
    await books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])  # re_2's event is lost
    books.clock.move(3)
    await run_lookups(reconciler)
    assert (await books.payments(pledge))[0].refunded == 1_000
