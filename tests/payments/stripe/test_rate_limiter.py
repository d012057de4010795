"""The rate limiter: its limit, the halving by a 429 and the recovery, in simulated time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from typing import Any

import pytest

from services.payments.stripe.rate_limiter import RateLimiter


class _Waits(selectors.DefaultSelector):
    """A clock that advances by the time slept, and by a microsecond for each reading."""

    waited_s = 100.0

    def select(self, timeout: float | None = None) -> Any:
        self.waited_s += max(timeout or 0.0, 1e-6)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._waits = _Waits()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.waited_s


@pytest.fixture
def clocked() -> Iterator[asyncio.Runner]:
    """Runs a coroutine in simulated time, which does not advance while code computes."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        yield runner


async def admitted_within(rate_limiter: RateLimiter, seconds: float) -> int:
    """The number of calls admitted in that time."""
    count = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        try:
            async with asyncio.timeout(end - loop.time()):
                await rate_limiter.acquire()
        except TimeoutError:
            break
        count += 1
    return count


def test_the_configured_rate_is_not_exceeded(clocked: asyncio.Runner) -> None:
    admitted = clocked.run(admitted_within(RateLimiter(40), 0.5))
    assert 38 <= admitted <= 40  # half a second's burst, and half a second


def test_without_a_rate_limit_nothing_waits(clocked: asyncio.Runner) -> None:
    async def take_turns() -> None:
        for _ in range(5_000):
            await rate_limiter.acquire()

    rate_limiter = RateLimiter(0)
    assert not rate_limiter.limited
    began = clocked.get_loop().time()
    clocked.run(take_turns())
    assert clocked.get_loop().time() - began < 0.001


def test_a_429_halves_the_rate_once_however_many_calls_it_hits(clocked: asyncio.Runner) -> None:
    async def refuse() -> None:
        for _ in range(10):
            rate_limiter.slow_down()

    rate_limiter = RateLimiter(40)
    clocked.run(admitted_within(rate_limiter, 2.5))
    clocked.run(refuse())
    assert 19 <= rate_limiter.rate_per_s <= 20


def test_a_lowered_rate_recovers(clocked: asyncio.Runner) -> None:
    async def refuse() -> None:
        rate_limiter.slow_down()

    rate_limiter = RateLimiter(20)
    clocked.run(admitted_within(rate_limiter, 2.5))
    clocked.run(refuse())
    slowed = rate_limiter.rate_per_s
    clocked.run(admitted_within(rate_limiter, 0.6))
    assert slowed < rate_limiter.rate_per_s < 20
    clocked.run(admitted_within(rate_limiter, 20.0))
    assert rate_limiter.rate_per_s == 20
