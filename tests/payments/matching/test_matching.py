"""Gifts are matched in the transaction that counts them, whatever becomes of them later; on both stores."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from backbone.contracts import MatchingPoolChanged, PaymentChanged
from services.payments.domain import DisputeRank, RefundRank
from services.payments.recording.record import record
from tests.payments.books import Books
from tests.payments.harness import a_drive
from tests.payments.matching.gifts import (
    add_pool,
    agreed,
    allocations,
    announced,
    captured,
    disputed,
    observe,
    refunded,
)
from tests.stores.plans import recording
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_gift_is_matched_by_every_pool_in_order_and_announced_after_it(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    first = await add_pool(books, drive.drive_id, 3_000)
    second = await add_pool(books, drive.drive_id, 10_000, ratio=5_000, per_gift_cap=1_100)
    await observe(books, captured(1, 2_500, drive.drive_id, now), captured(2, 2_500, drive.drive_id, now))
    assert await agreed(books) == {first: 3_000, second: 2_200}
    assert sorted((await allocations(books)).values()) == [500, 1_100, 1_100, 2_500]
    kinds = [type(event) for event in await announced(books)]
    assert kinds == [PaymentChanged, PaymentChanged, MatchingPoolChanged, MatchingPoolChanged]
    assert not any((await books.drift()).values())


async def test_batch_without_pools_takes_one_more_statement(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    with recording() as recorded:
        await observe(books, *(captured(n, 2_500, drive.drive_id, now) for n in range(5)))
    assert sum("matching_" in statement for statement in recorded.statements) == 1


async def test_repeated_reports_match_once(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 10_000)
    for _ in range(3):
        await observe(books, captured(1, 2_500, drive.drive_id, now))
    assert await agreed(books) == {pool: 2_500}
    assert sum(isinstance(event, MatchingPoolChanged) for event in await announced(books)) == 1


async def test_refund_returns_its_share_for_later_gifts_only(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 3_000)
    for number in (1, 2):
        await observe(books, captured(number, 2_500, drive.drive_id, now))
    await observe(books, refunded("a", 1, 1_000, RefundRank.PENDING, now))
    assert await agreed(books) == {pool: 2_000}
    await observe(books, captured(3, 400, drive.drive_id, now))
    await observe(books, refunded("a", 1, 1_000, RefundRank.FAILED, now))
    assert await agreed(books) == {pool: 3_000}
    assert sorted((await allocations(books)).values()) == [400, 500, 2_100]


async def test_dispute_takes_the_share_away_and_a_won_one_restores_it(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 3_000)
    await observe(books, captured(1, 2_500, drive.drive_id, now))
    await observe(books, disputed(1, 2_500, DisputeRank.OPEN, now, now))
    assert await agreed(books) == {}
    await observe(books, disputed(1, 2_500, DisputeRank.WON, now, now + timedelta(days=9)))
    assert await agreed(books) == {pool: 2_500}


async def test_held_gift_is_matched_once_its_drive_is_known(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    pool = await add_pool(books, drive.drive_id, 3_000)
    await observe(books, captured(1, 2_500, drive.drive_id, now))
    assert await agreed(books) == {}
    await books.consume(drive)
    assert await agreed(books) == {pool: 2_500}


async def test_gift_that_is_held_again_returns_its_share(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 3_000)
    await observe(books, captured(1, 2_500, drive.drive_id, now))
    await books.consume(a_drive("EUR", drive_id=drive.drive_id, version=2))
    await observe(books, refunded("a", 1, 500, RefundRank.PENDING, now))
    assert await agreed(books) == {}
    await books.consume(a_drive("USD", drive_id=drive.drive_id, version=3))
    assert await agreed(books) == {pool: 2_000}


async def test_released_gift_that_counted_before_is_not_matched_as_a_new_one(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    used_up = await add_pool(books, drive.drive_id, 100)
    await observe(books, captured(1, 2_500, drive.drive_id, now))
    await books.consume(a_drive("EUR", drive_id=drive.drive_id, version=2))
    await observe(books, refunded("a", 1, 500, RefundRank.PENDING, now))
    await add_pool(books, drive.drive_id, 3_000)
    await books.consume(a_drive("USD", drive_id=drive.drive_id, version=3))
    await observe(books, refunded("a", 1, 500, RefundRank.FAILED, now))
    assert await agreed(books) == {used_up: 100}


async def test_refund_that_is_known_before_its_capture_lowers_the_first_share_once(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 3_000)
    await observe(books, refunded("a", 1, 1_000, RefundRank.SUCCEEDED, now))
    await observe(books, captured(1, 2_000, drive.drive_id, now))
    assert await agreed(books) == {pool: 1_000}
    await observe(books, refunded("b", 1, 500, RefundRank.SUCCEEDED, now))
    assert await agreed(books) == {pool: 500}


async def test_gifts_that_counted_before_the_pool_was_made_are_not_matched(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    await observe(books, captured(1, 2_500, drive.drive_id, now))
    await add_pool(books, drive.drive_id, 3_000)
    await observe(books, refunded("a", 1, 1_000, RefundRank.SUCCEEDED, now))
    await observe(books, refunded("a", 1, 1_000, RefundRank.FAILED, now))
    assert await agreed(books) == {}


async def test_transaction_that_fails_stores_nothing_and_its_repetition_matches_once(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pool = await add_pool(books, drive.drive_id, 3_000)
    gift = captured(1, 2_500, drive.drive_id, now)
    with pytest.raises(ZeroDivisionError):
        async with books.database.transaction() as session:
            await record(session, [gift], now)
            raise ZeroDivisionError
    assert await agreed(books) == {}
    await observe(books, gift)
    assert await agreed(books) == {pool: 2_500}


async def test_thousand_concurrent_gifts_use_the_pool_to_the_last_minor_unit(books: Books) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    small = await add_pool(books, drive.drive_id, 123_457)
    large = await add_pool(books, drive.drive_id, 10**9, ratio=3_333)
    units = [100 + number % 977 for number in range(1_000)]
    done = [0]

    async def give(numbers: range) -> None:
        for number in numbers:
            if number % 5 == 4:  # a refund of an earlier gift comes in between
                await observe(books, refunded(f"{number}", number - 4, 50, RefundRank.SUCCEEDED, now))
            await observe(books, captured(number, units[number], drive.drive_id, now))
            done[0] += 1

    await asyncio.gather(*(give(range(start, 1_000, 25)) for start in range(25)))
    assert done == [1_000]
    found = await agreed(books)
    assert 123_457 - 50 * 200 <= found[small] <= 123_457
    await observe(books, captured(1_001, 10**6, drive.drive_id, now))
    assert (await agreed(books))[small] == 123_457
    assert found[large] > 0


async def test_batches_of_several_drives_in_opposite_orders_do_not_deadlock(books: Books) -> None:
    drives: list[Any] = [a_drive(slug=f"winter-{n}") for n in range(4)]
    await books.consume(*drives)
    for drive in drives:
        await add_pool(books, drive.drive_id, 10**6)
    now = books.clock.now()

    async def give(worker: int) -> None:
        for turn in range(15):
            order = drives if worker % 2 else drives[::-1]
            first = 1_000 * worker + 10 * turn
            gifts = [captured(first + n, 100, drive.drive_id, now) for n, drive in enumerate(order)]
            await observe(books, *gifts)
            await observe(
                books, *(refunded(f"{first + n}", first + n, 40, RefundRank.SUCCEEDED, now) for n in (3, 0))
            )

    await asyncio.gather(*(give(worker) for worker in range(8)))
    assert sum((await agreed(books)).values()) == 8 * 15 * (4 * 100 - 2 * 40)


@pytest.mark.parametrize("others", [0, 3_000])
async def test_pool_that_changes_while_a_gift_waits_for_it_is_still_found(books: Books, others: int) -> None:
    drive, now = a_drive(), books.clock.now()
    await books.consume(drive)
    pools = [await add_pool(books, drive.drive_id, 10**6) for _ in range(2)]
    for n in range(others):
        await add_pool(books, f"drv_{n}", 10**6)
    async with books.database.transaction() as session:
        await session.execute(text("ANALYZE"))
    await observe(books, captured(0, 1_000, drive.drive_id, now))
    async with asyncio.TaskGroup() as tasks, books.database.transaction() as session:
        await record(session, [captured(1, 700, drive.drive_id, now)], now)
        for gift in (refunded("0", 0, 400, RefundRank.SUCCEEDED, now), captured(2, 50, drive.drive_id, now)):
            tasks.create_task(observe(books, gift))
        await until(lambda: waiting_for_locks(books, 2))
    assert await agreed(books) == dict.fromkeys(pools, 600 + 700 + 50)


async def waiting_for_locks(books: Books, wanted: int) -> bool:
    """Whether so many transactions wait for a row on PostgreSQL; SQLite's wait for each other in order."""
    if books.database.is_sqlite:
        return True
    waiting = "wait_event_type = 'Lock' AND datname = current_database()"
    async with books.database.reading() as session:
        found = await session.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"))
        return bool(found.scalar_one() == wanted)
