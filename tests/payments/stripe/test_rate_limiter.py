"""The rate limiter: its limit, the halving by a 429 and the recovery by success, in simulated time."""

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


async def succeed(rate_limiter: RateLimiter, seconds: float) -> None:
    """Calls at the admitted rate that all succeed."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await rate_limiter.acquire()
        rate_limiter.succeeded()


async def refused(rate_limiter: RateLimiter) -> None:
    rate_limiter.slow_down()


@pytest.fixture
def slowed(clocked: asyncio.Runner) -> RateLimiter:
    """A limiter of 20 calls a second, just halved by a 429."""
    rate_limiter = RateLimiter(20)
    clocked.run(admitted_within(rate_limiter, 2.5))
    clocked.run(refused(rate_limiter))
    assert rate_limiter.rate_per_s == 10
    return rate_limiter


def test_success_restores_a_lowered_rate(clocked: asyncio.Runner, slowed: RateLimiter) -> None:
    clocked.run(succeed(slowed, 2.0))
    assert 11 <= slowed.rate_per_s <= 13
    clocked.run(succeed(slowed, 10.0))
    assert slowed.rate_per_s == 20
    assert slowed.expected_per_s == 20


def test_calls_that_do_not_succeed_restore_nothing(clocked: asyncio.Runner, slowed: RateLimiter) -> None:
    clocked.run(admitted_within(slowed, 30.0))
    assert slowed.rate_per_s == 10


def test_one_success_after_a_quiet_minute_restores_the_whole_rate(
    clocked: asyncio.Runner, slowed: RateLimiter
) -> None:
    async def wait_and_succeed() -> None:
        await asyncio.sleep(60.0)
        slowed.succeeded()

    clocked.run(wait_and_succeed())
    assert slowed.rate_per_s == 20


def test_repeated_429s_halve_the_rate_down_to_one_a_second(
    clocked: asyncio.Runner, slowed: RateLimiter
) -> None:
    async def be_refused() -> None:
        for _ in range(10):
            await asyncio.sleep(1.1)
            slowed.slow_down()

    clocked.run(be_refused())
    assert slowed.rate_per_s == 1
