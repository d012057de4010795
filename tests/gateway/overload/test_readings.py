"""Readings of the load, and the pressure that follows from the last of them."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.access.limits import ConcurrencyLimit
from gateway.overload import readings
from gateway.overload.ladder import BOUNDS, Step
from gateway.overload.readings import (
    BUSY_PRESSURE,
    FEW,
    LAG_WINDOW,
    Pressure,
    ProcessLoad,
    Reading,
    expected_wait_s,
)


def test_one_stall_of_the_event_loop_is_no_pressure_and_a_lasting_delay_is() -> None:
    pressure = Pressure(0.5, 1.0)
    for _ in range(LAG_WINDOW):
        pressure.after(Reading(0.0))
    stalls = LAG_WINDOW // 2
    assert [pressure.after(Reading(0.0, lag_s=30.0)) for _ in range(stalls)] == [0.0] * stalls
    assert [pressure.after(Reading(0.0, lag_s=0.25)) for _ in range(LAG_WINDOW)][-1] == 0.5


def test_queue_of_pledges_is_pressure_within_two_readings() -> None:
    pressure = Pressure(0.5, 1.0)
    for _ in range(LAG_WINDOW):
        pressure.after(Reading(0.0))
    assert [pressure.after(Reading(0.0, wait_s=0.9)) for _ in range(2)] == [0.0, 0.9]


def test_pressure_is_the_greater_of_delay_and_wait() -> None:
    assert Pressure(0.5, 1.0).after(Reading(0.0, lag_s=0.1, wait_s=0.7)) == pytest.approx(0.7)
    assert Pressure(0.5, 1.0).after(Reading(0.0, lag_s=0.4, wait_s=0.7)) == pytest.approx(0.8)


def test_saturated_process_that_answers_in_time_enters_no_step_and_keeps_only_the_first() -> None:
    assert Pressure(0.5, 1.0).after(Reading(0.0, cpu=1.0)) == BUSY_PRESSURE
    assert BOUNDS[Step.RECENT].leave <= BUSY_PRESSURE < BOUNDS[Step.RECENT].enter
    assert BOUNDS[Step.BOARDS].leave > BUSY_PRESSURE


def test_wait_is_the_queue_divided_by_the_rate() -> None:
    assert expected_wait_s(590, 590.0) == 1.0
    assert expected_wait_s(64, 77.0) == 0.0  # the demo's donors on a saturated stack: nothing gives way
    assert expected_wait_s(FEW, 0.0) == 0.0
    assert expected_wait_s(FEW + 1, 0.0) > 30.0


async def test_delay_of_the_event_loop_and_cpu_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "EVERY_S", 0.01)
    load, stop = ProcessLoad(ConcurrencyLimit("pledges", 10)), asyncio.Event()
    await load.next(stop)
    reading = asyncio.create_task(load.next(stop))
    await asyncio.sleep(0)
    until = time.perf_counter() + 0.06
    while time.perf_counter() < until:
        pass
    found = await reading
    assert found.lag_s >= 0.04
    assert found.cpu > 0.0


async def test_rate_of_pledges_approaches_what_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "EVERY_S", 0.0)
    pledges = ConcurrencyLimit("pledges", 10_000)
    load = ProcessLoad(pledges)
    for tenth in range(60):
        for _ in range(50):
            with pledges:
                pass
        pledges.in_flight = 400
        found = load._read(tenth / 10, 0.0)
    assert found.pledges_per_s == pytest.approx(500, rel=0.02)
    assert found.wait_s == pytest.approx(0.8, rel=0.02)
