"""The sweep's passes: bounded, resumable, limited to our objects, and subject to the rate limit."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import select, text

from services.payments.domain import FactKind
from services.payments.processor import TooFast, Unknown
from services.payments.reconciliation import comparison
from services.payments.reconciliation.backfill import Backfill
from services.payments.reconciliation.sweep import PAGES, SLOW_PASS_ROUNDS, Sweeper
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import FACTS, OPEN_FACTS, PAYMENTS, SWEEPS
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.listing_processor import ListingProcessor
from tests.payments.stripe.counting_limiter import CountingLimiter
from tests.payments.stripe_events import as_stored, dispute, intent_succeeded, metadata, refund

EVERY_S = 300.0
SHOP = {"order": "4711"}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def a_sweep(books: Books, processor: ListingProcessor, **given: Any) -> Sweeper:
    options = {"every_s": EVERY_S, "grace_s": 1.0} | given
    return Sweeper(books.database, processor, RateLimiter(0), books.clock, **options)


async def backfilled(books: Books, processor: ListingProcessor) -> None:
    """Run a backfill without undelivered events."""
    await Backfill(books.database, processor, books.store, books.clock, 60.0).run_once()


async def rounds(books: Books, processor: ListingProcessor, sweep: Sweeper, count: int = 1) -> None:
    """Run `count` rounds, `EVERY_S` apart, each after a backfill."""
    for _ in range(count):
        await backfilled(books, processor)
        await sweep.sweep()
        books.clock.move(EVERY_S)


async def a_donation(
    books: Books, units: int = 2_500, *, told: bool = True
) -> tuple[str, str, dict[str, str]]:
    """A pledge paid by `pi_<pledge>`; returns the pledge, its intent and the intent's metadata."""
    drive = a_drive()
    pledge = a_pledge(drive, units)
    await books.consume(drive, pledge)
    (row,) = await books.payments(pledge.pledge_id)
    ours, intent = metadata(row.id, pledge.pledge_id, drive.drive_id), f"pi_{pledge.pledge_id}"
    if told:
        await books.apply([intent_succeeded(intent, units, ours)])
    return pledge.pledge_id, intent, ours


async def payment(books: Books, pledge: str) -> Any:
    return (await books.payments(pledge))[0]


async def facts(books: Books) -> set[str]:
    async with books.database.reading() as session:
        return {row.id for row in await session.execute(select(FACTS.c.id))}


async def test_before_the_first_backfill_nothing_is_listed(books: Books) -> None:
    processor = ListingProcessor(books.clock)
    await a_sweep(books, processor).sweep()
    assert processor.calls == []


async def test_objects_younger_than_the_oldest_waiting_webhook_are_not_compared(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    processor = ListingProcessor(books.clock)
    sweep = a_sweep(books, processor)
    told = refund("created", "re_1", intent, 700, "succeeded")
    await books.store.keep_all([as_stored(told)])  # stored, not yet applied
    processor.refund("re_2", intent, 100, "succeeded", created=processor.ago(seconds=-30))
    books.clock.move(60)
    await rounds(books, processor, sweep)
    assert (await payment(books, pledge)).refunded == 0
    await books.apply([])
    await rounds(books, processor, sweep)
    assert (await payment(books, pledge)).refunded == 800


def reported(why: str = "missing") -> float:
    """The finds of captures that were counted."""
    labels = {"type": "capture", "why": why}
    return REGISTRY.get_sample_value("ataa_stripe_sweep_found_total", labels) or 0.0


async def test_an_old_object_is_not_reported_as_missing_while_a_webhook_that_names_it_waits(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PAGE", 2)
    before = reported()
    processor = ListingProcessor(books.clock)
    waiting = []
    for units in (1_000, 2_000, 3_000, 4_000, 5_000):  # after an outage
        _, intent, ours = await a_donation(books, units, told=False)
        processor.intent(intent, units, ours)
        waiting.append(as_stored(intent_succeeded(intent, units, ours)))
    await books.store.keep_all(waiting)
    books.clock.move(60)
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep)
    assert (len(await facts(books)), reported()) == (5, before)
    await books.apply([])
    await rounds(books, processor, sweep)
    assert (len(await facts(books)), reported()) == (5, before)
    pledge, intent, ours = await a_donation(books, told=False)
    processor.intent(intent, 2_500, ours)
    await rounds(books, processor, sweep)
    assert (await payment(books, pledge)).status == "captured"
    assert reported() == before + 1


async def test_a_truncated_listing_resumes_in_the_next_round_and_in_another_process(
    books: Books,
) -> None:
    pledge, intent, _ = await a_donation(books, 1_000_000)
    processor = ListingProcessor(books.clock, page=2)
    count = 2 * PAGES * 2 + 3
    for n in range(count):
        processor.refund(f"re_{n:03}", intent, 100, "succeeded", created=processor.ago(minutes=10, seconds=n))
    await rounds(books, processor, a_sweep(books, processor))
    assert (await payment(books, pledge)).refunded == 100 * 2 * PAGES
    for _ in range(2):
        await rounds(books, processor, a_sweep(books, processor))  # a new process
    assert (await payment(books, pledge)).refunded == 100 * count


async def test_objects_created_during_a_long_listing_are_found_by_the_next(books: Books) -> None:
    pledge, intent, _ = await a_donation(books, 1_000_000)
    processor = ListingProcessor(books.clock, page=1)
    for n in range(PAGES + 2):
        processor.refund(f"re_{n:03}", intent, 100, "succeeded", created=processor.ago(minutes=10, seconds=n))
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep)
    processor.refund("re_late", intent, 5_000, "succeeded", created=processor.ago(seconds=30))
    await rounds(books, processor, sweep, 3)
    assert (await payment(books, pledge)).refunded == 100 * (PAGES + 2) + 5_000


async def test_a_listing_whose_next_page_is_gone_restarts(books: Books) -> None:
    pledge, intent, _ = await a_donation(books, 1_000_000)
    processor = ListingProcessor(books.clock, page=1)
    for n in range(PAGES + 2):
        processor.refund(f"re_{n:03}", intent, 100, "succeeded", created=processor.ago(minutes=10, seconds=n))
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep)
    del processor.objects[FactKind.REFUND][PAGES - 1]
    await rounds(books, processor, sweep, 4)
    assert (await payment(books, pledge)).refunded == 100 * (PAGES + 2)


async def test_a_round_without_response_from_stripe_is_repeated(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    processor = ListingProcessor(books.clock)
    processor.refund("re_1", intent, 700, "succeeded")
    sweep = a_sweep(books, processor)
    processor.failure = lambda kind, after: Unknown("no answer")
    await rounds(books, processor, sweep)
    assert {kind for kind, _ in processor.calls} == {FactKind.CAPTURE, FactKind.REFUND, FactKind.DISPUTE}
    processor.failure = lambda kind, after: None
    await rounds(books, processor, sweep)
    assert (await payment(books, pledge)).refunded == 700


async def test_a_429_ends_the_round(books: Books) -> None:
    processor = ListingProcessor(books.clock)
    processor.failure = lambda kind, after: TooFast("429")
    await rounds(books, processor, a_sweep(books, processor))
    assert len(processor.calls) == 1


async def test_every_call_that_succeeded_restores_the_rate(books: Books) -> None:
    _, intent, _ = await a_donation(books, 1_000_000)
    processor = ListingProcessor(books.clock)
    processor.refund("re_1", intent, 100, "pending")
    limiter = CountingLimiter()
    sweep = Sweeper(books.database, processor, limiter, books.clock, every_s=EVERY_S, grace_s=1.0)
    await backfilled(books, processor)
    await rounds(books, processor, sweep)
    assert limiter.successes == limiter.admitted > 0


async def test_a_sweep_of_many_pages_alternates_with_checkouts(tmp_path: Path) -> None:
    async with open_books(tmp_path) as books:
        _, intent, _ = await a_donation(books, 1_000_000)
        processor = ListingProcessor(books.clock, page=1)
        for n in range(PAGES):
            processor.refund(f"re_{n:03}", intent, 100, "succeeded")
        rate_limiter = RateLimiter(200.0)
        sweep = Sweeper(books.database, processor, rate_limiter, books.clock, every_s=EVERY_S, grace_s=1.0)
        await backfilled(books, processor)
        for _ in range(100):
            await rate_limiter.acquire()  # the burst allows half a second's calls at once
        turns = 0
        between: list[int] = []

        async def checkouts() -> None:
            nonlocal turns
            while not over:
                await rate_limiter.acquire()
                turns += 1

        def note(kind: FactKind, after: str | None) -> None:
            between.append(turns)

        processor.failure = note
        over = False
        waiting = [asyncio.create_task(checkouts()) for _ in range(8)]
        await asyncio.sleep(0)
        await sweep.sweep()
        over = True
        await asyncio.gather(*waiting)
    gaps = [later - earlier for earlier, later in itertools.pairwise(between)]
    assert len(between) > PAGES
    assert min(gaps[1:]) >= 7  # every waiting caller ran between two calls of the sweep


async def test_the_sweep_ignores_other_business_on_the_account(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    processor = ListingProcessor(books.clock)
    shop = processor.intent("pi_shop", 9_900, SHOP)
    odd = processor.intent("pi_odd", 9_900, {}, currency=None)
    processor.refund("re_shop", shop, 9_900, "succeeded")
    processor.refund("re_odd", odd, 1, "succeeded", currency=None)
    processor.refund("re_bare", "pi_of_somebody", 100, "succeeded")
    processor.refund("re_charge", None, 100, "succeeded")
    processor.dispute("dp_shop", shop, 9_900, "needs_response")
    processor.dispute("dp_ours", intent, 2_500, "needs_response")
    await rounds(books, processor, a_sweep(books, processor))
    assert await facts(books) == {intent, "dp_ours"}
    assert (await payment(books, pledge)).status == "disputed"


async def test_a_refund_of_an_unknown_capture_records_the_capture_too(books: Books) -> None:
    pledge, intent, ours = await a_donation(books, told=False)
    processor = ListingProcessor(books.clock)
    whole = processor.intent(intent, 2_500, ours, created=processor.ago(days=20))
    processor.refund("re_1", whole, 700, "succeeded")
    await rounds(books, processor, a_sweep(books, processor))
    row = await payment(books, pledge)
    assert (row.captured, row.refunded) == (2_500, 700)
    assert set((await books.drift()).values()) <= {0}


async def test_an_unreadable_object_of_ours_does_not_end_the_pass(books: Books) -> None:
    pledge, intent, ours = await a_donation(books)
    processor = ListingProcessor(books.clock)
    whole = processor.intent(intent, 2_500, ours)
    processor.refund("re_odd", whole, 100, "succeeded", amount=None)
    processor.refund("re_1", whole, 700, "succeeded")
    await rounds(books, processor, a_sweep(books, processor))
    assert (await payment(books, pledge)).refunded == 700


async def test_an_object_that_cannot_be_stored_does_not_end_the_pass(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    processor = ListingProcessor(books.clock)
    processor.refund("re_\ud800", intent, 100, "succeeded")
    processor.refund("re_1", intent, 700, "succeeded")
    await rounds(books, processor, a_sweep(books, processor))
    assert (await payment(books, pledge)).refunded == 700


@pytest.mark.parametrize("days", [3, 40])
async def test_a_refund_that_failed_long_after_its_creation_is_found(books: Books, days: int) -> None:
    pledge, intent, _ = await a_donation(books)
    await books.apply([refund("created", "re_1", intent, 700, "succeeded")])
    processor = ListingProcessor(books.clock)
    processor.refund("re_1", intent, 700, "failed", created=processor.ago(days=days))
    await rounds(books, processor, a_sweep(books, processor), 2)
    assert (await payment(books, pledge)).refunded == 0


async def test_a_capture_days_after_its_intent_is_found(books: Books) -> None:
    pledge, intent, ours = await a_donation(books, told=False)
    processor = ListingProcessor(books.clock)
    made = processor.intent(intent, 2_500, ours, status="processing")
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep, 2)
    books.clock.move(5 * 86_400)
    made["status"] = "succeeded"  # a bank debit
    await rounds(books, processor, sweep, 2)
    assert (await payment(books, pledge)).status == "captured"


async def test_with_hold_foreign_the_sweep_records_unmarked_money_in_suspense(
    books: Books,
) -> None:
    processor = ListingProcessor(books.clock)
    whole = processor.intent("pi_shop", 2_500, SHOP)
    processor.refund("re_shop", whole, 700, "succeeded")
    await rounds(books, processor, a_sweep(books, processor))
    assert await facts(books) == set()
    await rounds(books, processor, a_sweep(books, processor, hold_foreign=True), 2 * SLOW_PASS_ROUNDS)
    assert await facts(books) == {"pi_shop", "re_shop"}
    async with books.database.reading() as session:
        (row,) = (await session.execute(select(PAYMENTS))).all()
    assert (row.held, row.captured, row.refunded) == (True, 2_500, 700)


async def test_a_dispute_that_closed_a_month_later_is_found(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    await books.apply([dispute("created", "dp_1", intent, 2_500, "needs_response")])
    processor = ListingProcessor(books.clock)
    processor.dispute("dp_1", intent, 2_500, "won", created=processor.ago(days=31))
    await rounds(books, processor, a_sweep(books, processor), 2)
    assert (await payment(books, pledge)).status == "captured"


async def test_an_open_dispute_older_than_any_listing_is_read_by_id(books: Books) -> None:
    gifts = [await a_donation(books) for _ in range(25)]
    told = [
        dispute("created", f"dp_{n:02}", intent, 100, "needs_response")
        for n, (_, intent, _) in enumerate(gifts)
    ]
    await books.apply(told)
    processor = ListingProcessor(books.clock)
    for n, (_, intent, _) in enumerate(gifts):
        status = "won" if n == 24 else "under_review"
        processor.dispute(f"dp_{n:02}", intent, 100, status, created=processor.ago(days=400))
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep, 3)
    assert len(set(processor.read)) == 25
    assert (await payment(books, gifts[24][0])).status == "captured"
    read = len(processor.read)
    await rounds(books, processor, sweep, SLOW_PASS_ROUNDS - 3)
    assert len(processor.read) == read  # all were read, and the next pass is not due
    await rounds(books, processor, sweep, 2)
    assert len(processor.read) > read


async def test_a_change_whose_webhook_arrives_meanwhile_is_not_reported_by_the_sweep(books: Books) -> None:
    pledge, intent, _ = await a_donation(books)
    await books.apply([refund("created", "re_1", intent, 700, "pending")])
    processor = ListingProcessor(books.clock)
    processor.refund("re_1", intent, 700, "failed")
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep)
    assert (await payment(books, pledge)).refunded == 700  # a change is read again first
    before = await stored_at(books, "re_1")
    await books.apply([refund("failed", "re_1", intent, 700, "failed")])
    assert (await payment(books, pledge)).refunded == 0
    await rounds(books, processor, sweep)
    assert before != await stored_at(books, "re_1")


async def stored_at(books: Books, fact: str) -> Any:
    async with books.database.reading() as session:
        return (await session.execute(select(FACTS.c.rank).where(FACTS.c.id == fact))).scalar_one()


async def test_open_facts_and_progress_are_found_by_an_index(books: Books) -> None:
    explain = "EXPLAIN QUERY PLAN" if books.database.is_sqlite else "EXPLAIN"
    statement = select(FACTS.c.id).where(text(f"({OPEN_FACTS})"), FACTS.c.id > "re_1").order_by(FACTS.c.id)
    async with books.database.transaction() as session:
        if not books.database.is_sqlite:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        bound = str(statement.limit(20).compile(compile_kwargs={"literal_binds": True}))
        plan = "\n".join(str(row) for row in await session.execute(text(f"{explain} {bound}")))
        assert "facts_open" in plan, plan
        rows = (await session.execute(select(SWEEPS))).all()
    assert rows == []


async def live_and_sweep(life: dict[str, Any], told: list[bool], url: str = "") -> None:
    """After a sweep, a payment with lost webhooks equals one whose webhooks all arrived."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder), url) as books:
            outcomes = [await swept(books, life, told), await swept(books, life, [True] * len(told))]
            assert outcomes[0] == outcomes[1]
            assert set((await books.drift()).values()) <= {0}


async def swept(books: Books, life: dict[str, Any], told: list[bool]) -> Any:
    pledge, intent, ours = await a_donation(books, 1_000, told=False)
    processor = ListingProcessor(books.clock, page=2)
    whole = processor.intent(intent, 1_000, ours)
    webhooks = [intent_succeeded(intent, 1_000, ours)]
    for n, states in enumerate(life["refunds"]):
        fact = f"re_{n}_{pledge}"
        webhooks += [refund("updated", fact, intent, 100, state) for state in states]
        processor.refund(fact, whole, 100, states[-1])
    if life["dispute"]:
        webhooks += [dispute("updated", f"dp_{pledge}", intent, 500, state) for state in life["dispute"]]
        processor.dispute(f"dp_{pledge}", whole, 500, life["dispute"][-1])
    await books.apply([each for each, comes in zip(webhooks, told, strict=False) if comes])
    sweep = a_sweep(books, processor)
    await rounds(books, processor, sweep, 2)
    books.clock.move(SLOW_PASS_ROUNDS * EVERY_S)
    await rounds(books, processor, sweep, 2)
    row = await payment(books, pledge)
    money = (row.status, row.held, row.captured, row.refunded, row.disputed)
    published = (await books.published(pledge))[-1]
    assert (published.version, published.status) == (row.version, row.status)
    return money, await books.balances(row.id)


LIVES = st.fixed_dictionaries(
    {
        "refunds": st.lists(
            st.sampled_from(
                [("pending",), ("pending", "succeeded"), ("succeeded",), ("succeeded", "failed")]
            ),
            max_size=4,
        ),
        "dispute": st.sampled_from(
            [(), ("needs_response",), ("needs_response", "lost"), ("needs_response", "won")]
        ),
    }
)
TOLD = st.lists(st.booleans(), min_size=12, max_size=12)


@settings(max_examples=25, deadline=None)
@given(LIVES, TOLD)
def test_with_any_webhooks_lost_the_sweep_gives_the_same_result_as_all_webhooks(
    life: dict[str, Any], told: list[bool]
) -> None:
    asyncio.run(live_and_sweep(life, told))


@pytest.fixture
def a_postgres() -> str:
    """A fixture of its own, so that a missing PostgreSQL skips the test before its first example."""
    return postgres_server()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LIVES, TOLD)
def test_with_any_webhooks_lost_the_sweep_gives_the_same_result_as_all_webhooks_on_postgresql(
    a_postgres: str, life: dict[str, Any], told: list[bool]
) -> None:
    async def on_postgresql() -> None:
        async with fresh_postgres() as url:
            await live_and_sweep(life, told, url)

    asyncio.run(on_postgresql())
