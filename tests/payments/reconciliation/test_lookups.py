"""Lookups at Stripe of what a webhook only hints at, and of facts without a payment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from backbone.money import Money
from services.payments.domain import CaptureRank, FactKind, Observation, RefundRank
from services.payments.processor import (
    CheckoutRequest,
    ListedCheckout,
    OpenedCheckout,
    ProcessorEvent,
    Unknown,
)
from services.payments.reconciliation.lookups import Reconciler
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import an_event, intent_succeeded, metadata, refund
from tests.rounds import run_lookups


class FakeProcessor:
    """A processor that responds to lookups from its fields; `looked_up` lists the intents looked up."""

    def __init__(self) -> None:
        self.captures: dict[str, Observation] = {}
        self.refunds: dict[str, list[Observation]] = {}
        self.disputes: dict[str, list[Observation]] = {}
        self.looked_up: list[str] = []
        self.unavailable = False

    async def find_capture(self, intent: str) -> Observation | None:
        self._note(intent)
        return self.captures.get(intent)

    async def list_refunds(self, intent: str) -> list[Observation]:
        self._note(intent)
        return self.refunds.get(intent, [])

    async def list_disputes(self, intent: str) -> list[Observation]:
        self._note(intent)
        return self.disputes.get(intent, [])

    def _note(self, intent: str) -> None:
        self.looked_up.append(intent)
        if self.unavailable:
            raise Unknown("no answer")

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        raise NotImplementedError

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        raise NotImplementedError

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        raise NotImplementedError

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        raise NotImplementedError

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        raise NotImplementedError

    async def expire_checkout(self, session_id: str) -> None:
        raise NotImplementedError

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        raise NotImplementedError

    async def close(self) -> None:
        return


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with open_books(tmp_path) as books:
        yield books


def a_charge_refunded(intent: str, refunded: int) -> dict[str, Any]:
    thing = {"id": "ch_1", "payment_intent": intent, "amount_refunded": refunded, "currency": "usd"}
    return an_event("charge.refunded", thing)


async def a_paid_pledge(books: Books, units: int = 2_500) -> str:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([intent_succeeded("pi_1", units, metadata(None, pledge.pledge_id, drive.drive_id))])
    return pledge.pledge_id


async def test_a_charge_refunded_event_without_refund_event_reads_the_refunds(books: Books) -> None:
    processor, pledge = FakeProcessor(), await a_paid_pledge(books)
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
    await a_paid_pledge(books)
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
    processor, pledge = FakeProcessor(), await a_paid_pledge(books)
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
    processor, pledge = FakeProcessor(), await a_paid_pledge(books)
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
