"""Fees that are read while their payment is captured or moved by another transaction, on PostgreSQL.

A fee ends in the drive in which its payment is, whichever transaction is first, and is posted once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from backbone.contracts import DriveChanged, PledgeChanged, PledgeMade
from services.payments.handlers import HANDLERS
from services.payments.processor import Movement
from services.payments.settlement.record import place_waiting, record_movements
from tests.engines import fresh_postgres, postgres_server
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata
from tests.waiting import until


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    postgres_server()
    async with fresh_postgres("services.payments") as url, open_books(tmp_path, url) as books:
        yield books


async def read_fee(books: Books) -> None:
    """Read the balance transaction of `pi_1`."""
    at = books.clock.now()
    movement = Movement("txn_1", "charge", "ch_1", "pi_1", 2_500, 59, "USD", None, at, at)
    async with books.database.transaction() as session:
        await record_movements(session, [movement], at)


async def place_fees(books: Books) -> None:
    books.clock.move(3_600)
    async with books.database.transaction() as session:
        await place_waiting(session, books.clock.now())


async def blocked(books: Books, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start `work`, and return once it waits for a lock of another transaction."""
    task = asyncio.create_task(work)
    waiting = text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    async def is_waiting() -> bool:
        assert not task.done()
        async with books.database.reading() as session:
            return bool((await session.execute(waiting)).all())

    await until(is_waiting)
    return task


async def counted(books: Books) -> tuple[DriveChanged, DriveChanged, PledgeMade]:
    """A gift to the first drive, captured as `pi_1`, and another drive."""
    drive, other = a_drive(), a_drive(slug="spring")
    pledge = a_pledge(drive)
    await books.consume(drive, other, pledge)
    ours = metadata(None, pledge.pledge_id, drive.drive_id)
    await books.apply([intent_succeeded("pi_1", 2_500, ours)])
    return drive, other, pledge


def moved_to(drive: DriveChanged, pledge: PledgeMade) -> PledgeChanged:
    return PledgeChanged(**pledge.model_dump() | {"drive_id": drive.drive_id, "version": 2})


async def fees_of(books: Books, *drives: DriveChanged) -> list[int]:
    return [(await books.drive_balances(drive.drive_id)).get("processor_fees", 0) for drive in drives]


async def test_fee_that_is_read_while_its_payment_moves_is_posted_in_the_new_drive(books: Books) -> None:
    drive, other, pledge = await counted(books)
    async with books.database.transaction() as session:
        await HANDLERS[PledgeChanged]([moved_to(other, pledge)], session)
        reading = await blocked(books, read_fee(books))
    await reading
    assert await fees_of(books, drive, other) == [0, 59]
    assert not any((await books.drift()).values())


async def test_payment_that_moves_while_its_fee_is_read_takes_the_fee_with_it(books: Books) -> None:
    drive, other, pledge = await counted(books)
    at = books.clock.now()
    movement = Movement("txn_1", "charge", "ch_1", "pi_1", 2_500, 59, "USD", None, at, at)
    async with books.database.transaction() as session:
        await record_movements(session, [movement], at)
        moving = await blocked(books, books.consume(moved_to(other, pledge)))
    await moving
    assert await fees_of(books, drive, other) == [0, 59]
    assert not any((await books.drift()).values())


async def test_fee_that_is_read_before_its_capture_is_committed_is_posted_later_and_once(
    books: Books,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await read_fee(books)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    assert await fees_of(books, drive) == [0]
    await asyncio.gather(*(place_fees(books) for _ in range(4)))
    assert await fees_of(books, drive) == [59]
    await asyncio.gather(*(read_fee(books) for _ in range(4)))
    assert await fees_of(books, drive) == [59]


async def test_balance_transaction_that_several_transactions_read_is_posted_once(books: Books) -> None:
    drive, _, _ = await counted(books)
    await asyncio.gather(*(read_fee(books) for _ in range(6)))
    assert await fees_of(books, drive) == [59]
