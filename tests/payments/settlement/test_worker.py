"""The worker: balance transactions stored and posted, payouts compared with their lines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from backbone.money import Money
from services.payments.processor import TooFast, Unknown
from services.payments.recording import ledger
from services.payments.settlement.queries import FeeAndPayout, fee_and_payout
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, PAYOUTS
from services.payments.settlement.worker import Settlement
from services.payments.stripe.balance import movement_page
from services.payments.stripe.rate_limiter import RateLimiter
from tests.payments.books import Books
from tests.payments.settlement.ledger_rows import fee_row, payout_row, settled
from tests.payments.settlement.moving_processor import MovingProcessor, moved
from tests.payments.stripe.counting_limiter import CountingLimiter


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def processor(books: Books) -> MovingProcessor:
    return MovingProcessor(books.clock)


@pytest.fixture
def worker(books: Books, processor: MovingProcessor) -> Settlement:
    return Settlement(books.database, processor, RateLimiter(0), books.clock, every_s=10)


async def rows(books: Books, table: Any) -> list[Any]:
    async with books.database.reading() as session:
        return list((await session.execute(select(table).order_by(table.c.id))).all())


async def states(books: Books) -> dict[str, str]:
    return {row.id: row.state for row in await rows(books, BALANCE_TRANSACTIONS)}


async def paid(books: Books) -> str:
    """The payment of `pi_1`."""
    payment: str = (await books.payments(await books.paid_pledge()))[0].id
    return payment


async def test_fee_of_an_unknown_payment_is_posted_once_it_is_known(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    processor.movements = [moved("txn_1", "charge", "pi_1", 2_500, 103, at=books.clock.now())]
    await worker.run_once()
    assert (await states(books), await settled(books)) == ({"txn_1": "waiting"}, set())
    payment = await paid(books)
    books.clock.move(60)
    for _ in range(2):
        await worker.run_once()
    assert await settled(books) == {fee_row("txn_1", 103, payment)}
    assert await states(books) == {"txn_1": "posted"}


async def test_payout_is_compared_with_its_lines_and_changes_no_books(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    payment, now = await paid(books), books.clock.now()
    charge = moved("txn_1", "charge", "pi_1", 2_500, 103, at=now)
    refund = moved("txn_2", "refund", "pi_1", -500, at=now)
    foreign = moved("txn_3", "charge", "pi_shop", 1_000, 59, at=now)
    before = await books.database.read_whole(ledger.processor_balance)
    processor.movements = [charge]  # the others are found as lines of the payout
    processor.pays("po_1", charge, refund, foreign)
    await worker.run_once()
    (payout,) = await rows(books, PAYOUTS)
    assert (payout.amount, payout.difference, payout.payments) == (2_838, 0, 1)
    assert (payout.status, payout.next_try_at) == ("paid", None)
    assert await settled(books) == {fee_row("txn_1", 103, payment), payout_row("txn_po_1", 2_838)}
    assert await books.database.read_whole(ledger.processor_balance) == before
    assert not any((await books.drift()).values())
    async with books.database.reading() as session:
        shown = await fee_and_payout(session, [payment, "pay_unknown"])
    assert shown == {payment: FeeAndPayout(Money(103, "USD"), "po_1")}


async def test_payout_that_differs_is_reported_and_compared_again(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    charge = moved("txn_1", "charge", "pi_1", 2_500, 103, at=books.clock.now())
    late = moved("txn_2", "charge", "pi_2", 700, at=books.clock.now())
    processor.pays("po_1", charge, late)
    processor.lines["po_1"].remove(late)
    await worker.run_once()
    (payout,) = await rows(books, PAYOUTS)
    assert payout.difference == 700
    processor.lines["po_1"].append(late)
    books.clock.move(1 * 86_400)
    await worker.run_once()
    (payout,) = await rows(books, PAYOUTS)
    assert (payout.difference, payout.next_try_at) == (0, None)


async def test_failed_payout_returns_from_the_bank(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    charge = moved("txn_1", "charge", "pi_1", 2_500, 103, at=books.clock.now())
    processor.pays("po_1", charge, status="in_transit", lines=False)
    await worker.run_once()
    (payout,) = await rows(books, PAYOUTS)
    assert (payout.status, payout.difference) == ("in_transit", None)
    failure = moved("txn_po_1f", "payout_failure", None, 2_397, source="po_1", at=books.clock.now())
    processor.movements.append(failure)
    processor.pays("po_1", charge, status="failed")
    await worker.run_once()
    (payout,) = await rows(books, PAYOUTS)
    assert (payout.status, payout.difference, payout.next_try_at) == ("failed", 0, None)
    assert await settled(books) == {payout_row("txn_po_1", 2_397), payout_row("txn_po_1f", -2_397)}


async def test_other_settlement_currency_is_held_with_its_rate(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    await paid(books)
    processor.movements = [
        moved(
            "txn_1", "charge", "pi_1", 2_300, 95, at=books.clock.now(), currency="EUR", exchange_rate="0.92"
        ),
        moved("txn_2", "reserve_transaction", None, -100, at=books.clock.now()),
    ]
    await worker.run_once()
    assert await states(books) == {"txn_1": "held", "txn_2": "held"}
    assert (await rows(books, BALANCE_TRANSACTIONS))[0].exchange_rate == "0.92"
    assert await settled(books) == set()


async def test_listing_resumes_after_a_failure_and_restarts_from_the_newest(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    await paid(books)
    processor.page = 2
    now = books.clock.now()
    processor.movements = [
        moved(f"txn_{n}", "charge", "pi_1", 100, at=now - timedelta(minutes=n)) for n in range(5)
    ]
    processor.failure = lambda after: TooFast("429") if after == "txn_3" else None
    await worker.run_once()
    assert len(await states(books)) == 4
    processor.failure = lambda after: None
    await worker.run_once()
    assert len(await states(books)) == 5
    assert [after for after, _ in processor.asked] == [None, "txn_1", "txn_3", "txn_3"]
    await worker.run_once()
    assert processor.asked[-1] == (None, now - timedelta(seconds=30))


async def test_payout_that_cannot_be_read_delays_no_other(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    charge = moved("txn_1", "charge", "pi_1", 2_500, 103, at=books.clock.now())
    processor.pays("po_1", charge)
    del processor.payouts["po_1"]
    books.clock.move(1)
    processor.pays("po_2", moved("txn_2", "charge", "pi_2", 900, at=books.clock.now()))
    await worker.run_once()
    assert {row.id: row.difference for row in await rows(books, PAYOUTS)} == {"po_1": None, "po_2": 0}


async def test_unavailable_processor_ends_the_round(
    books: Books, processor: MovingProcessor, worker: Settlement
) -> None:
    processor.failure = lambda after: Unknown("no answer")
    await worker.run_once()
    assert await states(books) == {}


def test_unreadable_transactions_are_named_and_the_others_read() -> None:
    good = {
        "id": "txn_1", "type": "charge", "source": {"id": "ch_1", "payment_intent": {"id": "pi_1"}},
        "amount": 2500, "fee": 103, "currency": "usd", "exchange_rate": 1.25, "created": 1, "available_on": 2,
    }  # fmt: skip
    bad: list[dict[str, Any]] = [
        {**good, "id": "txn_2", "currency": "zzz"}, {**good, "id": "txn_3", "amount": None}, {"id": "txn_4"},
        {**good, "id": "txn_5", "fee": 5, "currency": "isk"},
    ]  # fmt: skip
    page = movement_page([good, *bad], None)
    (movement,) = page.movements
    assert (movement.intent, movement.source, movement.exchange_rate) == ("pi_1", "ch_1", "1.25")
    assert [text.partition(":")[0] for text in page.unreadable] == ["txn_2", "txn_3", "txn_4", "txn_5"]


async def test_every_call_that_succeeded_restores_the_rate(books: Books, processor: MovingProcessor) -> None:
    limiter = CountingLimiter()
    worker = Settlement(books.database, processor, limiter, books.clock, every_s=10)
    processor.movements = [moved("txn_1", "charge", "pi_1", 2_500, 103, at=books.clock.now())]
    await worker.run_once()
    assert limiter.successes == limiter.admitted > 0
