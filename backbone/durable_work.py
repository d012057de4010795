"""Durable background work: fetch what is due, run it, isolate what fails, retry it later, quarantine it.

The items are rows of a table, or can be read again from one: a crash loses nothing, because an item stays due
until its outcome is recorded. What differs between kinds of work is a `WorkQueue`; the loop, the bisection,
the back-off, the metric and the log lines are the same for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError

from backbone.bisection import bisect
from backbone.database.transient import TransientFailure, is_transient, transient_failure
from backbone.service import note_interruption
from backbone.wakeups import wait_for, wake_on_stop

POLL_S: Final = 0.5
"""How long a queue without due items waits for news."""

MAX_PAUSE_S: Final = 5.0
"""The longest pause after a round that was interrupted, or in which nothing succeeded."""

SLOW_ROUNDS: Final = 3
"""After so many interrupted rounds, a batch that the database did not finish in time may be too large."""

SLOW_RETRY: Final = timedelta(minutes=1)
MAX_REASON: Final = 2_000

log = structlog.get_logger()

_ITEMS = Counter(
    "ataa_work_items",
    "Items of durable background work by outcome: done, retried, quarantined, unrecorded.",
    ["worker", "outcome"],
)

T = TypeVar("T")

RetryAfter = Callable[[int], timedelta | None]
"""The delay before the next try of an item that has failed so often; None: quarantine it."""


@dataclass(frozen=True, slots=True)
class Failed(Generic[T]):
    """An item that failed by itself while the rest of its batch was done; `final`: retrying cannot help."""

    item: T
    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item failed, how often it has failed by now, and the delay before its next try."""

    reason: str
    attempts: int
    delay: timedelta | None
    """None where the item is quarantined."""


class WorkQueue(Protocol[T]):
    """One kind of durable work. What these methods read and write survives a crash, or can be read again."""

    async def fetch_due(self) -> Sequence[T]:
        """Read a bounded number of items that are due, in the order in which they are to be run."""
        ...

    async def run_batch(self, batch: Sequence[T]) -> Sequence[Failed[T]]:
        """Run a batch and record its outcome; the items that failed by themselves.

        The others are done: they are not due any more. Raising means that nothing of the batch was recorded.
        """
        ...

    def label(self, item: T) -> str:
        """The item's id, for log lines."""
        ...

    def failures(self, item: T) -> int:
        """How often the item has failed before."""
        ...

    async def retry(self, item: T, failure: Failure) -> None:
        """Record a failure; the item is due again after `failure.delay`."""
        ...

    async def quarantine(self, item: T, failure: Failure) -> None:
        """Record a failure after which the item is left to a person, or to rare retries."""
        ...


@dataclass(slots=True)
class Round:
    """How many items of a round had which outcome."""

    done: int = 0
    retried: int = 0
    quarantined: int = 0
    unrecorded: int = 0

    @property
    def items(self) -> int:
        """All of them."""
        return self.done + self.retried + self.quarantined + self.unrecorded


class DurableWork(Generic[T]):
    """Runs the items of a queue, in batches or `one_by_one`.

    A batch that fails is bisected until the failing item stands alone. That item is retried after
    `retry_after` its number of failures, or quarantined. `permanent` errors quarantine at once. An error
    that does not depend on the items never quarantines: a transient database error, or one of `unavailable`
    (another service), interrupts the round, and the worker tries again after a pause that doubles up to
    `max_pause_s`; so does a round in which nothing succeeded. `interval_s` is the least time between the
    starts of two rounds. Nothing is kept in memory between rounds but the length of those pauses.
    """

    def __init__(
        self,
        worker: str,
        queue: WorkQueue[T],
        *,
        retry_after: RetryAfter,
        one_by_one: bool = False,
        unavailable: tuple[type[Exception], ...] = (),
        permanent: tuple[type[Exception], ...] = (),
        poll_s: float = POLL_S,
        interval_s: float = 0.0,
        max_pause_s: float = MAX_PAUSE_S,
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._retry_after = retry_after
        self._one_by_one = one_by_one
        self._unavailable = unavailable
        self._permanent = permanent
        self._poll_s = poll_s
        self._interval_s = interval_s
        self._max_pause_s = max_pause_s
        self._stop: asyncio.Event | None = None
        self._interruptions = 0
        self._without_success = 0

    async def run(self, stop: asyncio.Event, news: asyncio.Event | None = None) -> None:
        """Run rounds until `stop`; `news` ends the wait for due items early.

        Raises what `fetch_due` raises, unless it is transient. A stop ends a round between two batches.
        """
        self._stop, news = stop, news or asyncio.Event()
        async with wake_on_stop(stop, news):
            while not stop.is_set():
                news.clear()
                earliest = asyncio.get_running_loop().time() + self._interval_s
                try:
                    outcome = await self.run_round()
                except Exception as error:
                    if not self._interrupts(error):
                        raise
                    self._report_interruption(error)
                    await wait_for(stop, self._pause_s(self._interruptions))
                    continue
                pause_s = self._pause_s(self._without_success) if outcome.items else self._poll_s
                pause_s = max(pause_s, earliest - asyncio.get_running_loop().time())
                if pause_s > 0:
                    await wait_for(news, pause_s)

    async def run_round(self) -> Round:
        """Fetch the due items and run them once. Raises what interrupts the round."""
        try:
            outcome = await self.process(await self._queue.fetch_due())
        except Exception:
            self._interruptions += 1
            raise
        self._interruptions = 0
        if outcome.items:
            progress = outcome.done or outcome.quarantined
            self._without_success = 0 if progress else self._without_success + 1
        return outcome

    async def process(self, items: Sequence[T]) -> Round:
        """Run `items` once. Raises what interrupts the round; what was done before stays done."""
        outcome = Round()
        try:
            for batch in [[item] for item in items] if self._one_by_one else [items]:
                if self._stop is not None and self._stop.is_set():
                    break
                await self._process_batch(batch, outcome)
        finally:
            self._count(outcome)
        return outcome

    async def _process_batch(self, batch: Sequence[T], outcome: Round) -> None:
        failed: list[Failed[T]] = []

        async def act(part: Sequence[T]) -> None:
            failures = await self._queue.run_batch(part)
            outcome.done += len(part) - len(failures)
            failed.extend(failures)  # recorded later: an error of that must not run the part again

        async def isolate(item: T, error: Exception) -> None:
            final = isinstance(error, self._permanent)
            await self._record(Failed(item, error_reason(error), final), outcome, error)

        await bisect(batch, act, isolate, self._stops_round)
        for each in failed:
            await self._record(each, outcome)

    async def _record(self, failed: Failed[T], outcome: Round, error: Exception | None = None) -> None:
        item = failed.item
        attempts = self._queue.failures(item) + 1
        delay = None if failed.final else self._retry_after(attempts)
        if delay is None and error is not None and is_transient(error):
            delay = SLOW_RETRY
        failure = Failure(failed.reason, attempts, delay)
        about = {"worker": self._worker, "item": self._queue.label(item), "attempts": attempts}
        try:
            if delay is None:
                await self._queue.quarantine(item, failure)
            else:
                await self._queue.retry(item, failure)
        except Exception as problem:
            if self._interrupts(problem):
                raise
            # The item stays due. It must not end the worker: no item behind it would be run.
            outcome.unrecorded += 1
            log.exception("work.failure_not_recorded", **about, reason=failed.reason)
            return
        if delay is None:
            outcome.quarantined += 1
            log.error("work.quarantined", **about, reason=failed.reason)
        else:
            outcome.retried += 1
            log.warning("work.retried", **about, delay_s=delay.total_seconds(), reason=failed.reason)

    def _interrupts(self, error: Exception) -> bool:
        """Whether an error does not depend on the items."""
        return is_transient(error) or isinstance(error, self._unavailable)

    def _stops_round(self, error: Exception) -> bool:
        """Whether an error ends the round.

        A batch that is too slow again and again is bisected like a failing one: it may be too large, or hold
        one item that is too slow. That one is retried later, so that those behind it are run.
        """
        too_slow = transient_failure(error) is TransientFailure.SLOW and self._interruptions >= SLOW_ROUNDS
        return self._interrupts(error) and not too_slow

    def _report_interruption(self, error: Exception) -> None:
        if isinstance(error, self._unavailable):
            log.warning("work.service_unavailable", worker=self._worker, reason=error_reason(error))
        else:
            note_interruption(self._worker, error)

    def _pause_s(self, rounds: int) -> float:
        """The pause after so many rounds in a row that were interrupted, or in which nothing succeeded."""
        if rounds == 0:
            return 0.0
        return float(min(self._poll_s * 2.0 ** min(rounds - 1, 16), self._max_pause_s))

    def _count(self, outcome: Round) -> None:
        for name in ("done", "retried", "quarantined", "unrecorded"):
            if number := getattr(outcome, name):
                _ITEMS.labels(self._worker, name).inc(number)


def exponential(first_s: float, longest_s: float, most: int | None = None) -> RetryAfter:
    """`first_s` after the first failure, twice as long after each further one, at most `longest_s`.

    After `most` failures the item is quarantined; None: never.
    """

    def retry_after(failures: int) -> timedelta | None:
        if most is not None and failures >= most:
            return None
        return timedelta(seconds=min(first_s * 2.0 ** min(failures - 1, 32), longest_s))

    return retry_after


def error_reason(error: BaseException) -> str:
    """What is stored and logged of an error, in text that every store takes.

    A database error is given without the statement and its values, which may hold personal data.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = f"{type(error).__name__}: {cause}"[:MAX_REASON]
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\u0000")
