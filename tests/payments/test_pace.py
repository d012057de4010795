"""Pace: a ceiling that holds, a 429 that halves it, and its recovery."""

from __future__ import annotations

import asyncio

from services.payments.pace import Pace


async def admitted_within(pace: Pace, seconds: float) -> int:
    """How many calls are let through in that time."""
    count = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        try:
            async with asyncio.timeout(end - loop.time()):
                await pace.turn()
        except TimeoutError:
            break
        count += 1
    return count


async def test_a_ceiling_holds() -> None:
    assert await admitted_within(Pace(40), 0.5) <= 41  # half a second's burst, and half a second


async def test_without_a_ceiling_nothing_waits() -> None:
    pace = Pace(0)
    assert not pace.limited
    assert await admitted_within(pace, 0.05) > 500


async def test_a_429_halves_the_rate_once_however_many_calls_it_hits() -> None:
    pace = Pace(40)
    await admitted_within(pace, 1.1)
    before = pace.rate_per_s
    for _ in range(10):
        pace.slow_down()
    assert before / 2.5 <= pace.rate_per_s <= before / 1.5


async def test_a_slowed_pace_recovers() -> None:
    pace = Pace(20)
    await admitted_within(pace, 1.1)
    pace.slow_down()
    slowed = pace.rate_per_s
    await admitted_within(pace, 0.6)
    assert slowed < pace.rate_per_s <= 20
