"""A refund is never left uncounted because its capture was recorded at the same moment by somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from services.payments.domain import CaptureRank, FactKind, Observation, RefundRank
from services.payments.reconciliation import lookups
from services.payments.reconciliation.lookups import Reconciler
from services.payments.recording.record import record
from services.payments.tables import FACTS, LOOKUPS
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.foreign import OurAccount
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.reconciliation.test_lookups import FakeProcessor
from tests.payments.stripe_events import as_stored, intent_succeeded, metadata, refund
from tests.waiting import until


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with open_books(tmp_path) as books:
        yield books


@pytest.fixture
async def on_postgres(tmp_path: Path) -> AsyncIterator[Books]:
    postgres_server()
    async with fresh_postgres() as url, open_books(tmp_path, url) as books:
        yield books


async def an_open_pledge(books: Books) -> tuple[str, dict[str, str]]:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.hear(drive, pledge)
    return pledge.pledge_id, metadata(None, pledge.pledge_id, drive.drive_id)


async def leave_behind(books: Books) -> str:
    """A captured gift with a refund that has no payment, as two transactions may have left it."""
    pledge, ours = await an_open_pledge(books)
    await books.take([refund("created", "re_1", "pi_1", 700, "succeeded")])
    async with books.database.transaction() as session:
        await session.execute(update(FACTS).values(intent="pi_hidden"))
    await books.take([intent_succeeded("pi_1", 2_500, ours)])
    async with books.database.transaction() as session:
        await session.execute(update(FACTS).where(FACTS.c.id == "re_1").values(intent="pi_1"))
    assert (await books.payments(pledge))[0].refunded == 0
    return pledge


async def test_a_question_about_an_intent_is_answered_once_its_refund_is_placed(books: Books) -> None:
    pledge = await leave_behind(books)
    oracle = FakeProcessor()
    books.clock.move(601)
    assert await Reconciler(books.database, oracle, books.clock).run_due() == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert oracle.asked == []  # the capture was known: nothing had to be asked
    async with books.database.reading() as session:
        assert (await session.execute(select(LOOKUPS))).all() == []


async def test_what_was_left_behind_is_placed_though_nobody_asks(books: Books) -> None:
    pledge = await leave_behind(books)
    async with books.database.transaction() as session:
        await session.execute(delete(LOOKUPS))
    asker = Reconciler(books.database, FakeProcessor(), books.clock)
    assert await asker.place_left_facts() == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert await asker.place_left_facts() == 0
    assert not any((await books.drift()).values())


async def test_the_asker_places_what_was_left_behind_when_it_starts(books: Books) -> None:
    pledge = await leave_behind(books)
    stop = asyncio.Event()
    running = asyncio.create_task(Reconciler(books.database, FakeProcessor(), books.clock).run(stop))

    async def placed() -> bool:
        return bool((await books.payments(pledge))[0].refunded == 700)

    await until(placed)
    stop.set()
    await running


async def test_on_postgresql_two_transactions_record_a_refund_and_its_capture_at_once(
    on_postgres: Books,
) -> None:
    """The applier has written a refund and not yet committed when the asker records the capture."""
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
        await lookups.request_capture_lookups(session, ["pi_1"], now + timedelta(minutes=10))
        capturing = asyncio.create_task(record_capture())
        await asyncio.wait([capturing], timeout=0.5)
    await capturing
    assert (await books.payments(pledge))[0].refunded == 700
    books.clock.move(601)
    await Reconciler(books.database, FakeProcessor(), books.clock).run_due()
    async with books.database.reading() as session:
        assert (await session.execute(select(LOOKUPS))).all() == []
    assert not any((await books.drift()).values())


async def test_on_postgresql_two_transactions_tell_of_the_same_refund_before_its_capture(
    on_postgres: Books,
) -> None:
    """What was told of a fact without a payment is merged, whoever commits last."""
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


async def test_on_postgresql_applier_and_asker_meet_at_many_payments(on_postgres: Books) -> None:
    books, oracle = on_postgres, FakeProcessor()
    pledges = {}
    for n in range(30):
        pledge, ours = await an_open_pledge(books)
        pledges[f"pi_{n}"] = pledge
        await books.take([refund("created", f"re_{n}a", f"pi_{n}", 300, "succeeded")])
        oracle.captures[f"pi_{n}"] = Observation(
            f"pi_{n}", FactKind.CAPTURE, f"pi_{n}", 2_500, "USD", CaptureRank.BY_INTENT, books.clock.now(),
            pledge_id=ours["ataa_pledge"], drive_id=ours["ataa_drive"],
        )  # fmt: skip
    books.clock.move(601)
    asker = Reconciler(books.database, oracle, books.clock)
    applier = Applier(books.database, books.store, books.clock, OurAccount())

    async def apply_more() -> None:
        for n in range(30):
            more = refund("created", f"re_{n}b", f"pi_{n}", 400, "succeeded")
            await books.store.keep_all([as_stored(more)])
            await applier.apply_waiting()

    async def ask_all() -> None:
        while await asker.run_due():
            pass

    await asyncio.gather(apply_more(), ask_all())
    for pledge in pledges.values():
        assert (await books.payments(pledge))[0].refunded == 700
    assert not any((await books.drift()).values())


async def test_one_fact_that_cannot_be_placed_does_not_hold_up_the_others_nor_the_questions(
    books: Books,
) -> None:
    pledge = await leave_behind(books)
    other, ours = await an_open_pledge(books)
    await books.take([intent_succeeded("pi_2", 2_500, ours)])
    overflowing = await refunds_that_overflow(books)
    async with books.database.transaction() as session:
        await session.execute(insert(FACTS), overflowing)
    asker = Reconciler(books.database, FakeProcessor(), books.clock)
    assert await asker.place_left_facts() == 1
    assert (await books.payments(pledge))[0].refunded == 700
    assert (await books.payments(other))[0].refunded == 0
    assert await asker.place_left_facts() == 0  # and it is not tried again and again without a pause


async def refunds_that_overflow(books: Books) -> list[dict[str, Any]]:
    """Two refunds whose sum no column holds: every transaction that records one of them fails."""
    async with books.database.reading() as session:
        (row,) = (await session.execute(select(FACTS).where(FACTS.c.id == "re_1"))).all()
    odd = dict(row._mapping) | {"intent": "pi_2", "units": 2**63 - 1, "payment_id": None}
    return [odd | {"id": "re_2"}, odd | {"id": "re_3"}]
