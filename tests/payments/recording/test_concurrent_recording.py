"""A refund is counted although its capture was recorded concurrently by another transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from services.payments.domain import CaptureRank, FactKind, Observation, RefundRank
from services.payments.reconciliation.lookups import Reconciler
from services.payments.recording import lookup_requests
from services.payments.recording.record import record
from services.payments.tables import FACTS, LOOKUPS
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.foreign import OurAccount
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import as_stored, intent_succeeded, metadata, refund
from tests.rounds import apply_waiting, run_lookups
from tests.waiting import until


@pytest.fixture
async def on_postgres(tmp_path: Path) -> AsyncIterator[Books]:
    postgres_server()
    async with fresh_postgres("services.payments") as url, open_books(tmp_path, url) as books:
        yield books


async def an_open_pledge(books: Books) -> tuple[str, dict[str, str]]:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    return pledge.pledge_id, metadata(None, pledge.pledge_id, drive.drive_id)


async def leave_behind(books: Books) -> str:
    """A captured donation with a refund that has no payment, as two concurrent transactions may leave it."""
    pledge, ours = await an_open_pledge(books)
    await books.apply([refund("created", "re_1", "pi_1", 700, "succeeded")])
    async with books.database.transaction() as session:
        await session.execute(update(FACTS).values(intent="pi_hidden"))
    await books.apply([intent_succeeded("pi_1", 2_500, ours)])
    async with books.database.transaction() as session:
        await session.execute(update(FACTS).where(FACTS.c.id == "re_1").values(intent="pi_1"))
    assert (await books.payments(pledge))[0].refunded == 0
    return pledge


async def test_an_intent_lookup_ends_once_its_refund_has_a_payment(books: Books) -> None:
    pledge = await leave_behind(books)
    processor = FakeProcessor()
    books.clock.move(601)
    assert await run_lookups(Reconciler(books.database, processor, books.clock)) == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert processor.looked_up == []  # the capture was known: no lookup was needed
    async with books.database.reading() as session:
        assert (await session.execute(select(LOOKUPS))).all() == []


async def test_unplaced_facts_are_placed_without_a_lookup(books: Books) -> None:
    pledge = await leave_behind(books)
    async with books.database.transaction() as session:
        await session.execute(delete(LOOKUPS))
    reconciler = Reconciler(books.database, FakeProcessor(), books.clock)
    assert await reconciler.place_left_facts() == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert await reconciler.place_left_facts() == 0
    assert not any((await books.drift()).values())


async def test_the_reconciler_places_unplaced_facts_at_its_start(books: Books) -> None:
    pledge = await leave_behind(books)
    stop = asyncio.Event()
    running = asyncio.create_task(Reconciler(books.database, FakeProcessor(), books.clock).run(stop))

    async def placed() -> bool:
        return bool((await books.payments(pledge))[0].refunded == 700)

    await until(placed)
    stop.set()
    await running


async def test_on_postgresql_two_transactions_record_a_refund_and_its_capture_concurrently(
    on_postgres: Books,
) -> None:
    """The applier has written a refund but not committed when the reconciler records the capture."""
    books, now = on_postgres, on_postgres.clock.now()
    pledge, ours = await an_open_pledge(books)
    capture = Observation(
        "pi_1", FactKind.CAPTURE, "pi_1", 2_500, "USD", CaptureRank.BY_INTENT, now,
        pledge_id=ours["ataa_pledge"], drive_id=ours["ataa_drive"],
    )  # fmt: skip
    refunded = Observation("re_1", FactKind.REFUND, "pi_1", 700, "USD", RefundRank.SUCCEEDED, now)

    async def record_capture() -> None:
        async with books.database.transaction() as session:
            await record(session, [capture], now)

    async with books.database.transaction() as session:
        await record(session, [refunded], now)
        await lookup_requests.request_capture_lookups(session, ["pi_1"], now + timedelta(minutes=10))
        capturing = asyncio.create_task(record_capture())
        await asyncio.wait([capturing], timeout=0.5)
    await capturing
    assert (await books.payments(pledge))[0].refunded == 700
    books.clock.move(601)
    await run_lookups(Reconciler(books.database, FakeProcessor(), books.clock))
    async with books.database.reading() as session:
        assert (await session.execute(select(LOOKUPS))).all() == []
    assert not any((await books.drift()).values())


async def test_on_postgresql_two_transactions_record_the_same_refund_before_its_capture(
    on_postgres: Books,
) -> None:
    """Observations of a fact without a payment are merged, whichever transaction commits last."""
    books, now = on_postgres, on_postgres.clock.now()
    pending, failed = (
        Observation("re_1", FactKind.REFUND, "pi_1", 700, "USD", rank, now)
        for rank in (RefundRank.PENDING, RefundRank.FAILED)
    )

    async def record_pending() -> None:
        async with books.database.transaction() as session:
            await record(session, [pending], now)

    async with books.database.transaction() as session:
        await record(session, [failed], now)
        recording = asyncio.create_task(record_pending())
        await asyncio.wait([recording], timeout=0.5)
    await recording
    async with books.database.reading() as session:
        assert [row.rank for row in await session.execute(select(FACTS.c.rank))] == [RefundRank.FAILED]


async def test_on_postgresql_applier_and_reconciler_record_the_same_payments_concurrently(
    on_postgres: Books,
) -> None:
    books, processor = on_postgres, FakeProcessor()
    pledges = {}
    for n in range(30):
        pledge, ours = await an_open_pledge(books)
        pledges[f"pi_{n}"] = pledge
        await books.apply([refund("created", f"re_{n}a", f"pi_{n}", 300, "succeeded")])
        processor.captures[f"pi_{n}"] = Observation(
            f"pi_{n}", FactKind.CAPTURE, f"pi_{n}", 2_500, "USD", CaptureRank.BY_INTENT, books.clock.now(),
            pledge_id=ours["ataa_pledge"], drive_id=ours["ataa_drive"],
        )  # fmt: skip
    books.clock.move(601)
    reconciler = Reconciler(books.database, processor, books.clock)
    applier = Applier(books.database, books.store, books.clock, OurAccount())

    async def apply_more() -> None:
        for n in range(30):
            more = refund("created", f"re_{n}b", f"pi_{n}", 400, "succeeded")
            await books.store.keep_all([as_stored(more)])
            await apply_waiting(applier)

    async def ask_all() -> None:
        while await run_lookups(reconciler):
            pass

    await asyncio.gather(apply_more(), ask_all())
    for pledge in pledges.values():
        assert (await books.payments(pledge))[0].refunded == 700
    assert not any((await books.drift()).values())


async def test_a_fact_that_cannot_be_placed_does_not_block_other_facts_or_lookups(
    books: Books,
) -> None:
    pledge = await leave_behind(books)
    other, ours = await an_open_pledge(books)
    await books.apply([intent_succeeded("pi_2", 2_500, ours)])
    overflowing = await refunds_that_overflow(books)
    async with books.database.transaction() as session:
        await session.execute(insert(FACTS), overflowing)
    reconciler = Reconciler(books.database, FakeProcessor(), books.clock)
    assert await reconciler.place_left_facts() == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert (await books.payments(other))[0].refunded == 0
    assert await reconciler.place_left_facts() == 0  # it is not retried without a delay


async def refunds_that_overflow(books: Books) -> list[dict[str, Any]]:
    """Two refunds whose sum exceeds the column: every transaction that records one of them fails."""
    async with books.database.reading() as session:
        (row,) = (await session.execute(select(FACTS).where(FACTS.c.id == "re_1"))).all()
    odd = dict(row._mapping) | {"intent": "pi_2", "units": 2**63 - 1, "payment_id": None}
    return [odd | {"id": "re_2"}, odd | {"id": "re_3"}]
