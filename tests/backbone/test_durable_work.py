"""Durable work ends each item done, due again later, or quarantined, whatever fails around it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from backbone.bisection import bisect
from backbone.database.transient import DatabaseSlow, DatabaseUnavailable
from backbone.durable_work import (
    SLOW_ROUNDS,
    DurableWork,
    Failed,
    Failure,
    RetryAfter,
    Round,
    error_reason,
    exponential,
)
from tests.waiting import until

State = Literal["due", "done", "quarantined"]


@dataclass
class Item:
    """An item that raises, or is returned as failed, so many times before it succeeds."""

    id: int
    raises: int = 0
    fails: int = 0
    state: State = "due"
    failures: int = 0
    delay: timedelta | None = None


@dataclass
class FakeQueue:
    """A queue in memory whose database fails as its test says; `now_s` decides what is due."""

    items: Sequence[Item]
    limit: int = 1_000
    trouble: list[Exception | None] = field(default_factory=list)
    """What each further access to the database raises; None, and past the end: nothing."""
    unrecordable: frozenset[int] = frozenset()
    batches: list[list[int]] = field(default_factory=list)
    done_in_round: Counter[int] = field(default_factory=Counter)

    def access(self) -> None:
        error = self.trouble.pop(0) if self.trouble else None
        if error is not None:
            raise error

    async def fetch_due(self) -> Sequence[Item]:
        self.done_in_round.clear()
        self.access()
        return [item for item in self.items if item.state == "due"][: self.limit]

    async def run_batch(self, batch: Sequence[Item]) -> Sequence[Failed[Item]]:
        self.batches.append([item.id for item in batch])
        self.access()
        for item in batch:
            if item.raises > item.failures:
                raise ValueError(f"item {item.id}")
        failed = [item for item in batch if item.fails > item.failures]
        for item in batch:
            if item not in failed:
                assert item.state == "due"
                item.state = "done"
                self.done_in_round[item.id] += 1
        return [Failed(item, "failed") for item in failed]

    def label(self, item: Item) -> str:
        return str(item.id)

    def failures(self, item: Item) -> int:
        return item.failures

    async def retry(self, item: Item, failure: Failure) -> None:
        self._note(item, failure)

    async def quarantine(self, item: Item, failure: Failure) -> None:
        self._note(item, failure)
        item.state = "quarantined"

    def _note(self, item: Item, failure: Failure) -> None:
        self.access()
        if item.id in self.unrecordable:
            raise IntegrityError("UPDATE", {}, Exception("constraint"))
        item.failures, item.delay = failure.attempts, failure.delay


def work(queue: FakeQueue, retry_after: RetryAfter | None = None, **options: object) -> DurableWork[Item]:
    retry_after = retry_after or exponential(0.001, 0.002, most=3)
    return DurableWork("test.work", queue, retry_after=retry_after, poll_s=0.001, max_pause_s=0.01, **options)  # type: ignore[arg-type]


ITEMS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=24)
TROUBLE = st.lists(
    st.sampled_from([None, None, None, DatabaseUnavailable("away"), DatabaseSlow("slow")]), max_size=40
)


@given(ITEMS, TROUBLE, st.booleans(), st.integers(1, 30), st.sets(st.integers(0, 23), max_size=3))
async def test_every_item_ends_done_due_or_quarantined_whatever_fails(
    plan: list[tuple[int, int]],
    trouble: list[Exception | None],
    one_by_one: bool,
    limit: int,
    unrecordable: set[int],
) -> None:
    items = [Item(n, raises, fails) for n, (raises, fails) in enumerate(plan)]
    queue = FakeQueue(items, limit + len(unrecordable), list(trouble), frozenset(unrecordable))
    running = work(queue, one_by_one=one_by_one)
    with capture_logs():  # rendering them would take most of the time
        for _ in range(100):
            try:
                outcome = await running.run_round()
            except DatabaseUnavailable:
                continue
            assert outcome.done == queue.done_in_round.total()
            assert all(times == 1 for times in queue.done_in_round.values())
            if not queue.trouble and outcome.items == outcome.unrecorded:
                break
    for item in items:
        needed = max(item.raises, item.fails)
        if needed == 0 or (needed < 3 and item.id not in unrecordable):
            assert item.state == "done"
        elif item.id in unrecordable:
            assert item.state == "due"
        else:
            assert item.state == "quarantined"
            assert item.failures == 3


@given(
    st.lists(st.sampled_from([DatabaseUnavailable("away"), DatabaseSlow("slow")]), min_size=1, max_size=30)
)
async def test_transient_errors_never_quarantine(trouble: list[Exception | None]) -> None:
    items = [Item(n) for n in range(8)]
    queue = FakeQueue(items, trouble=list(trouble))
    running = work(queue, retry_after=lambda _: None)
    for _ in range(len(trouble) + 3):
        with suppress(DatabaseUnavailable):
            await running.run_round()
    assert {item.state for item in items} == {"done"}


@given(st.integers(1, 300), st.data())
async def test_one_poison_item_is_isolated_in_logarithmic_time(size: int, data: st.DataObject) -> None:
    poison = data.draw(st.integers(0, size - 1))
    items = [Item(n, raises=9 if n == poison else 0) for n in range(size)]
    queue = FakeQueue(items)
    assert await work(queue).run_round() == Round(done=size - 1, retried=1)
    assert len(queue.batches) <= 1 + 2 * math.ceil(math.log2(size) if size > 1 else 0)


async def test_item_is_retried_after_growing_delays_then_quarantined() -> None:
    poison = Item(0, raises=9)
    running = work(FakeQueue([poison]), exponential(1.0, 3.0, most=4))
    delays = []
    while poison.state == "due":
        await running.run_round()
        delays.append(poison.delay and poison.delay.total_seconds())
    assert delays == [1.0, 2.0, 3.0, None]


async def test_permanent_error_quarantines_at_once() -> None:
    items = [Item(0), Item(1, raises=9)]
    outcome = await work(FakeQueue(items), permanent=(ValueError,)).run_round()
    assert outcome == Round(done=1, quarantined=1)


async def test_error_of_an_unavailable_service_interrupts_and_counts_no_failure() -> None:
    items = [Item(0, raises=1)]
    running = work(FakeQueue(items), unavailable=(ValueError,))
    with pytest.raises(ValueError, match="item 0"):
        await running.run_round()
    assert items[0].failures == 0


async def test_one_by_one_runs_every_item_by_itself() -> None:
    queue = FakeQueue([Item(0), Item(1, raises=1), Item(2)])
    assert await work(queue, one_by_one=True).run_round() == Round(done=2, retried=1)
    assert queue.batches == [[0], [1], [2]]


async def test_unrecordable_failure_does_not_stop_the_items_behind_it() -> None:
    items = [Item(0, raises=9), Item(1)]
    outcome = await work(FakeQueue(items, unrecordable=frozenset({0}))).run_round()
    assert outcome == Round(done=1, unrecorded=1)
    assert [item.state for item in items] == ["due", "done"]


async def test_batch_that_is_always_too_slow_is_bisected_and_its_slow_item_is_retried_later() -> None:
    class SlowQueue(FakeQueue):
        async def run_batch(self, batch: Sequence[Item]) -> Sequence[Failed[Item]]:
            if any(item.id == 2 for item in batch):
                raise DatabaseSlow("statement timeout")
            return await super().run_batch(batch)

    items = [Item(n) for n in range(4)]
    running = work(SlowQueue(items), retry_after=lambda _: None)
    for _ in range(SLOW_ROUNDS):
        with pytest.raises(DatabaseSlow):
            await running.run_round()
    assert await running.run_round() == Round(done=3, retried=1)
    assert items[2].state == "due"


async def test_loop_goes_on_after_transient_errors_and_counts_them() -> None:
    def interruptions() -> float:
        return REGISTRY.get_sample_value("ataa_worker_failures_total", {"worker": "test.work"}) or 0.0

    before = interruptions()
    items = [Item(n) for n in range(3)]
    queue = FakeQueue(items, trouble=[DatabaseUnavailable("away")] * 4)
    stop = asyncio.Event()
    running = asyncio.create_task(work(queue).run(stop))
    await until(lambda: all(item.state == "done" for item in items))
    stop.set()
    await running
    assert interruptions() - before == 4


async def test_loop_raises_what_reading_the_queue_raises_if_it_is_not_transient() -> None:
    with pytest.raises(KeyError):
        await work(FakeQueue([], trouble=[KeyError("bug")])).run(asyncio.Event())


async def test_news_wakes_an_idle_loop_and_stop_ends_it_promptly() -> None:
    queue = FakeQueue([])
    stop, news = asyncio.Event(), asyncio.Event()
    idle = DurableWork("test.work", queue, retry_after=exponential(1, 1), poll_s=3600.0)
    running = asyncio.create_task(idle.run(stop, news))
    await asyncio.sleep(0.01)
    queue.items = [Item(0)]
    news.set()
    await until(lambda: queue.items[0].state == "done")
    stop.set()
    await asyncio.wait_for(running, 5.0)


async def test_stop_ends_a_round_between_two_items() -> None:
    stop = asyncio.Event()

    class StoppingQueue(FakeQueue):
        async def run_batch(self, batch: Sequence[Item]) -> Sequence[Failed[Item]]:
            stop.set()
            return await super().run_batch(batch)

    items = [Item(0), Item(1)]
    await work(StoppingQueue(items), one_by_one=True).run(stop)
    assert [item.state for item in items] == ["done", "due"]


async def test_rounds_without_success_are_spaced_apart() -> None:
    queue = FakeQueue([Item(0, fails=10**6)])
    stop = asyncio.Event()
    failing = DurableWork("test.work", queue, retry_after=exponential(1, 1), poll_s=0.05, max_pause_s=10.0)
    running = asyncio.create_task(failing.run(stop))
    await asyncio.sleep(0.4)
    stop.set()
    await running
    assert 2 <= len(queue.batches) <= 4  # at 0, 0.05, 0.15, 0.35 s


async def test_outcomes_are_counted_by_worker() -> None:
    def done() -> float:
        labels = {"worker": "test.work", "outcome": "done"}
        return REGISTRY.get_sample_value("ataa_work_items_total", labels) or 0.0

    before = done()
    await work(FakeQueue([Item(0), Item(1)])).run_round()
    assert done() - before == 2


def test_reason_of_a_database_error_holds_neither_statement_nor_values() -> None:
    error = IntegrityError("INSERT INTO t", ("sara@example.org",), Exception("NOT NULL\x00 \ud800"))
    assert error_reason(error) == "IntegrityError: NOT NULL\\u0000 \\ud800"


async def test_bisection_finishes_the_items_before_an_interruption_and_tries_none_after_it() -> None:
    tried: list[int] = []

    async def act(items: Sequence[int]) -> None:
        if 1 in items:
            raise ValueError
        if 2 in items:
            raise DatabaseUnavailable("away")
        tried.extend(items)

    async def isolate(item: int, _error: Exception) -> None:
        tried.append(-item)

    with pytest.raises(DatabaseUnavailable):
        await bisect([0, 1, 2, 3], act, isolate)
    assert tried == [0, -1]
