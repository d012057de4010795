"""The clock, the event loop and the randomness of a simulated run."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from datetime import UTC, datetime
from random import random

import pytest

from simulation.virtual_time import BEGINNING, Livelock, repeatable, run


def test_an_hour_of_sleep_passes_at_once_on_every_clock() -> None:
    real = time.perf_counter()

    async def sleep() -> tuple[float, float, float]:
        began = time.time(), time.monotonic(), datetime.now(UTC)
        await asyncio.sleep(3600)
        return (
            time.time() - began[0],
            time.monotonic() - began[1],
            (datetime.now(UTC) - began[2]).total_seconds(),
        )

    with repeatable(1) as loop:
        passed = run(loop, sleep())
    assert all(3600 <= seconds < 3601 for seconds in passed)
    assert time.perf_counter() - real < 60


def _draw(seed: int) -> list[object]:
    async def draw() -> list[object]:
        return [secrets.token_hex(8), uuid.uuid4(), random(), datetime.now(UTC)]  # noqa: S311

    with repeatable(seed) as loop:
        drawn: list[object] = run(loop, draw())
    return drawn


def test_randomness_and_timestamps_follow_from_the_seed() -> None:
    assert _draw(7) == _draw(7)
    assert not set(_draw(7)[:3]) & set(_draw(8)[:3])


def test_real_time_and_randomness_are_back_after_the_run() -> None:
    _draw(7)
    assert datetime.now(UTC) > BEGINNING.replace(year=2024)
    assert secrets.token_hex(8) != secrets.token_hex(8)
    before = time.monotonic()
    assert time.monotonic() - before < 60


def test_a_run_that_waits_for_nothing_is_reported() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with repeatable(1) as loop, pytest.raises(Livelock, match="nothing is scheduled"):
        run(loop, wait())


def test_a_run_that_never_rests_is_reported() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the livelock that is meant
            await asyncio.sleep(0)

    with repeatable(1) as loop, pytest.raises(Livelock, match="iterations"):
        run(loop, spin())


def test_sets_of_tasks_are_iterated_in_the_order_of_their_creation() -> None:
    async def gather() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(1), name=str(number)) for number in range(5)}
        done, _ = await asyncio.wait(tasks)
        return [task.get_name() for task in done]

    with repeatable(1) as loop:
        first = run(loop, gather())
    with repeatable(1) as loop:
        assert run(loop, gather()) == first
