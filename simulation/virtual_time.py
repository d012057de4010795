"""A virtual clock, an event loop that runs on it, and a source of randomness that repeats.

Nothing waits: when no callback is ready, the clock advances to the next timer. `time.time`, `datetime.now`
and `time.monotonic` follow the loop's clock, so every timestamp repeats. `os.urandom` and `random` are
seeded, so every id, key and jitter repeats.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import time_machine

BEGINNING: Final = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)
TURN_US: Final = 20
"""How far the clock advances with each iteration of the loop: code takes time, and no moment occurs twice."""
MAX_TURNS: Final = 400_000
"""Iterations of one run. More is a loop that never rests (`Livelock`)."""

_numbers = count()


class Livelock(RuntimeError):
    """The simulated system never becomes idle, or waits for something that cannot happen."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks are iterated in the same order in every run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _VirtualSelector(selectors.SelectSelector):
    """Reports no I/O; the wait for it advances the loop's clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        assert self.loop is not None
        self.loop.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without I/O whose clock jumps to the next timer."""

    def __init__(self, traveller: time_machine.Traveller) -> None:
        selector = _VirtualSelector()
        self._now_us = 1_000_000
        self._turns = 0
        self._traveller = traveller
        super().__init__(selector)
        selector.loop = self
        self.set_task_factory(
            lambda loop, coroutine, **options: NumberedTask(coroutine, loop=loop, **options)
        )

    def time(self) -> float:
        """The clock: seconds since a second before the run began."""
        return self._now_us / 1_000_000

    def advance(self, timeout: float | None) -> None:
        """Move the clock by an iteration, or by `timeout` seconds where nothing is ready. Raises Livelock."""
        self._turns += 1
        if timeout is None:
            raise Livelock("nothing is scheduled, and the run has not ended")
        if self._turns > MAX_TURNS:
            raise Livelock(f"more than {MAX_TURNS} iterations of the event loop")
        step = TURN_US if timeout <= 0 else round(timeout * 1_000_000) + 1
        self._now_us += step
        self._traveller.shift(timedelta(microseconds=step))


@contextmanager
def repeatable(seed: int, *, offset_s: float = 0.0) -> Iterator[VirtualLoop]:
    """Within the block time is virtual, and randomness follows from `seed` alone.

    The clock starts `offset_s` after `BEGINNING`.
    """
    global _numbers
    _numbers = count()
    source = random.Random(seed)  # noqa: S311 - it has to repeat
    real = os.urandom, time.monotonic
    random.seed(seed)
    with time_machine.travel(BEGINNING + timedelta(seconds=offset_s), tick=False) as traveller:
        loop = VirtualLoop(traveller)
        _replace_sources(source.randbytes, loop.time)
        try:
            yield loop
        finally:
            _replace_sources(*real)
            loop.close()


def _replace_sources(urandom: Any, monotonic: Any) -> None:
    os.urandom = urandom
    random._urandom = urandom  # type: ignore[attr-defined]  # what `secrets` reads
    time.monotonic = monotonic


def run(loop: VirtualLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` on `loop` to its end and return its result."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)
