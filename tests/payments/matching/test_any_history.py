"""Whatever happens to gifts and pools, in any order: what pools gave equals a plain model, on both stores.

Allocations, ledger, announcements and leaderboard's figures have the same sums after every transaction.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from backbone.clock import FrozenClock
from backbone.contracts import DriveChanged, Event
from backbone.database.database import Database
from services.leaderboard import queries
from services.payments.domain import DisputeRank, Observation, RefundRank
from services.payments.matching.tables import POOLS
from tests.engines import fresh_postgres
from tests.leaderboard import builders
from tests.payments.books import Books, open_books
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
from tests.payments.matching.model import Model, ModelGift, ModelPool

START = datetime(2026, 1, 7, 12, tzinfo=UTC)
DRIVES = st.sampled_from([0, 0, 0, 1])
GIFTS = st.integers(0, 3)
UNITS = st.sampled_from([99, 500, 1_000, 3_333])
POOLS_MADE = st.tuples(
    st.just("pool"),
    DRIVES,
    st.tuples(
        st.sampled_from([700, 2_500, 10_000]),
        st.sampled_from([3_333, 10_000, 25_000]),
        st.sampled_from([None, None, 400]),
        st.sampled_from([-1_000, -1_000, 0, 5]),
        st.sampled_from([None, None, None, 9]),
    ),
)
STEPS = st.one_of(
    st.tuples(st.just("give"), DRIVES, UNITS),
    st.tuples(st.just("give"), DRIVES, UNITS),
    st.tuples(st.just("refund"), GIFTS, UNITS),
    st.tuples(st.just("fail"), GIFTS, st.none()),
    st.tuples(st.just("dispute"), GIFTS, st.sampled_from(["open", "won", "lost"])),
    st.tuples(st.just("repeat"), GIFTS, st.none()),
    POOLS_MADE,
    st.tuples(st.just("end"), GIFTS, st.none()),
    st.tuples(st.just("currency"), DRIVES, st.sampled_from(["USD", "EUR"])),
    st.tuples(st.just("commit"), st.just(0), st.none()),
)
HISTORIES = st.builds(
    lambda pools, steps: [*pools, *steps],
    st.lists(POOLS_MADE, max_size=2),
    st.lists(STEPS, min_size=8, max_size=40),
)
_numbers = itertools.count(1)
Step = tuple[str, int, Any]


class History:
    """Applies steps to payments and to the model; facts are recorded in batches."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.model = Model()
        self.drives = [a_drive(slug=f"winter-{n}") for n in range(2)]
        self.pools: list[str] = []
        self.seconds = 0
        self.batch: list[Observation] = []
        self.changed: set[int] = set()
        self.refunds: dict[str, int] = {}
        self.given: dict[int, Observation] = {}
        self.versions = [1, 1]

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    async def apply(self, step: Step) -> None:
        self.seconds += 1
        assert isinstance(self.books.clock, FrozenClock)
        self.books.clock.at = self.now
        kind, number, value = step
        gifts = list(self.model.gifts)
        if kind == "give":
            self._give(number, value)
        elif kind in ("refund", "dispute", "repeat") and gifts:
            getattr(self, f"_{kind}")(gifts[number % len(gifts)], value)
        elif kind == "fail" and self.refunds:
            self._fail(list(self.refunds)[number % len(self.refunds)])
        elif kind in ("pool", "end", "currency"):
            await self.commit()
            await getattr(self, f"_{kind}")(number, value)
        elif kind == "commit":
            await self.commit()

    def _give(self, drive: int, units: int) -> None:
        number = next(_numbers)
        self.model.gifts[number] = ModelGift(drive, units, self.seconds)
        self.given[number] = captured(number, units, self.drives[drive].drive_id, self.now)
        self._observe(number, self.given[number])

    def _observe(self, number: int, observation: Observation) -> None:
        self.batch.append(observation)
        self.changed.add(number)

    def _refund(self, number: int, units: int) -> None:
        name = str(next(_numbers))
        self.refunds[name] = number
        self.model.gifts[number].refunds[name] = units
        self._observe(number, refunded(name, number, units, RefundRank.PENDING, self.now))

    def _fail(self, name: str) -> None:
        number = self.refunds[name]
        if self.model.gifts[number].refunds[name]:
            self.model.gifts[number].refunds[name] = 0
            self._observe(number, refunded(name, number, 0, RefundRank.FAILED, self.now))

    def _dispute(self, number: int, status: str) -> None:
        gift = self.model.gifts[number]
        gift.disputed = status != "won"
        rank = {"open": DisputeRank.OPEN, "won": DisputeRank.WON, "lost": DisputeRank.LOST}[status]
        self._observe(number, disputed(number, 10**6, rank, self.now, self.now))

    def _repeat(self, number: int, _: None) -> None:
        self.batch.append(self.given[number])

    async def commit(self) -> None:
        """Record the batch in one transaction, and once more: repeats change nothing."""
        if self.batch:
            await observe(self.books, *self.batch)
            self.model.settle(self.changed)
            await observe(self.books, *self.batch)
            self.batch, self.changed = [], set()

    async def _pool(self, drive: int, shape: tuple[int, int, int | None, int, int | None]) -> None:
        cap, ratio, per_gift_cap, start, end = shape
        starts_at, ends_at = self.seconds + start, None if end is None else self.seconds + end
        self.model.pools.append(ModelPool(drive, cap, ratio, per_gift_cap, starts_at, ends_at))
        self.pools.append(
            await add_pool(
                self.books, self.drives[drive].drive_id, cap, ratio, per_gift_cap=per_gift_cap,
                starts_at=START + timedelta(seconds=starts_at),
                ends_at=None if ends_at is None else START + timedelta(seconds=ends_at),
            )
        )  # fmt: skip

    async def _end(self, number: int, _: None) -> None:
        if self.pools:
            place = number % len(self.pools)
            pool = self.model.pools[place]
            pool.ends_at = self.seconds if pool.ends_at is None else min(pool.ends_at, self.seconds)
            async with self.books.database.transaction() as session:
                this = update(POOLS).where(POOLS.c.id == self.pools[place], POOLS.c.ended_at.is_(None))
                await session.execute(this.values(ended_at=self.now))

    async def _currency(self, drive: int, currency: str) -> None:
        """Gifts that change while their drive has another currency are held until it has theirs again."""
        self.versions[drive] += 1
        self.model.currencies[drive] = currency
        old = self.drives[drive]
        changed = a_drive(currency, drive_id=old.drive_id, slug=old.slug, version=self.versions[drive])
        await self.books.consume(changed)
        if currency == "USD":
            held = (number for number, gift in self.model.gifts.items() if gift.held and gift.drive == drive)
            self.model.settle(set(held))

    def expected(self) -> dict[str, int]:
        """What each pool has given by the model."""
        used = {pool: self.model.used(place) for place, pool in enumerate(self.pools)}
        assert all(0 <= units <= self.model.pools[place].cap for place, units in enumerate(used.values()))
        return {pool: units for pool, units in used.items() if units}


async def figures_of(board: Database, events: Sequence[Event], drives: Sequence[DriveChanged]) -> list[int]:
    """What leaderboard counts as matched in each drive, after it consumed what payments announced."""
    await builders.empty(board)
    await builders.handle_events(board, *drives)
    for event in events:
        await builders.handle_events(board, event)
    async with board.reading() as session:
        assert await queries.differences(session) == []
    return [int((await builders.drive_row(board, drive.drive_id)).matched) for drive in drives]


async def check(books: Books, board: Database | None, steps: Sequence[Step]) -> None:
    books.clock.at = START
    history = History(books)
    before = await agreed(books)
    seen = len(await announced(books)) if board else 0
    await books.consume(*history.drives)
    for step in [*steps, ("commit", 0, None)]:
        await history.apply(step)
    assert await agreed(books) == before | history.expected()
    mine = {key: units for key, units in (await allocations(books)).items() if key[0] in history.pools}
    shares = sorted(share for gift in history.model.gifts.values() for share in gift.shares.values())
    assert sorted(mine.values()) == shares
    if board is not None:
        matched = await figures_of(board, (await announced(books))[seen:], history.drives)
        used = [
            sum(
                history.model.used(place)
                for place, pool in enumerate(history.model.pools)
                if pool.drive == drive
            )
            for drive in range(2)
        ]
        assert matched == used


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=HISTORIES)
async def test_pools_give_what_the_model_gives(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_books(Path(folder)) as books, builders.open_database(Path(folder)) as board:
            await check(books, board, steps)


@pytest.fixture
async def on_postgresql(tmp_path: Path) -> Any:
    async with AsyncExitStack() as held:
        url = await held.enter_async_context(fresh_postgres())
        yield await held.enter_async_context(open_books(tmp_path, url))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=HISTORIES)
async def test_pools_give_what_the_model_gives_on_postgresql(on_postgresql: Books, steps: list[Step]) -> None:
    await check(on_postgresql, None, steps)
