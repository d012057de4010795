"""Old attempts are deleted in bounded batches, and none that may still be needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from services.payments.checkout import pruning
from services.payments.checkout.pruning import KEPT, SHORTEST, prune_attempts
from services.payments.tables import ATTEMPTS, PAYMENTS
from tests.payments.books import Books
from tests.payments.harness import a_drive, a_pledge

OLD = KEPT + timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def a_payment(books: Books, checkout: str = "open") -> str:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    (row,) = await books.payments(pledge.pledge_id)
    async with books.database.transaction() as session:
        await session.execute(update(PAYMENTS).where(PAYMENTS.c.id == row.id).values(checkout=checkout))
    return str(row.id)


async def attempts(books: Books, payment: str, *states: str, ago: timedelta = OLD, count: int = 1) -> None:
    """Insert `count` attempts of a payment for each of `states`, ended that long ago."""
    at = books.clock.now() - ago
    rows = [
        {"key": f"{payment}.{state}.{n}", "payment_id": payment, "n": 1, "state": state, "parameters": "{}",
         "made_at": at, "done_at": None if state == "sent" else at}
        for state in states for n in range(count)
    ]  # fmt: skip
    async with books.database.transaction() as session:
        await session.execute(insert(ATTEMPTS), rows)


async def left(books: Books) -> set[str]:
    async with books.database.reading() as session:
        return {row.key.split(".")[1] for row in await session.execute(select(ATTEMPTS.c.key))}


async def test_only_attempts_that_ended_long_ago_are_pruned(books: Books) -> None:
    payment = await a_payment(books)
    await attempts(books, payment, "opened", "failed", "sent", "quarantined")
    assert await prune_attempts(books.database, books.clock.now()) == 2
    assert await left(books) == {"sent", "quarantined"}
    assert await prune_attempts(books.database, books.clock.now()) == 0


async def test_attempts_that_ended_recently_are_kept(books: Books) -> None:
    await attempts(books, await a_payment(books), "opened", "failed", ago=KEPT - timedelta(seconds=1))
    assert await prune_attempts(books.database, books.clock.now()) == 0


@pytest.mark.parametrize("checkout", ["waiting", "opening"])
async def test_refused_attempts_of_a_checkout_still_to_be_opened_are_kept(
    books: Books, checkout: str
) -> None:
    await attempts(books, await a_payment(books, checkout), "failed")
    assert await prune_attempts(books.database, books.clock.now()) == 0


async def test_a_key_that_stripe_may_still_know_is_kept_whatever_the_retention(books: Books) -> None:
    payment = await a_payment(books)
    await attempts(books, payment, "opened", ago=SHORTEST - timedelta(seconds=1))
    assert await prune_attempts(books.database, books.clock.now(), timedelta(0)) == 0


async def test_a_batch_is_bounded_and_the_next_continues(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 3)
    await attempts(books, await a_payment(books), "opened", count=7)
    assert [await prune_attempts(books.database, books.clock.now()) for _ in range(4)] == [3, 3, 1, 0]


async def test_old_attempts_are_found_by_an_index(books: Books) -> None:
    await attempts(books, await a_payment(books), "opened", count=50)
    old = select(ATTEMPTS.c.key).where(ATTEMPTS.c.done_at.is_not(None), ATTEMPTS.c.done_at < text("17"))
    statement = str(old.order_by(ATTEMPTS.c.done_at).limit(5).compile(compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN" if books.database.is_sqlite else "EXPLAIN"
    async with books.database.transaction() as session:
        if not books.database.is_sqlite:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        rows: list[Any] = list(await session.execute(text(f"{explain} {statement}")))
    assert "attempts_done" in str(rows)
