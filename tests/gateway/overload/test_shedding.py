"""The ladder fed with readings: how fast it climbs, and the bound of the queue of pledges."""

from __future__ import annotations

import pytest

from gateway.access.limits import ConcurrencyLimit
from gateway.overload.ladder import Step
from gateway.overload.readings import LAG_WINDOW, ProcessLoad, Reading
from gateway.overload.shedding import LEAST_PLEDGES, Shedding

FULL = Reading(0.0, lag_s=1.0, wait_s=1.0)


def shedding_of(pledges: ConcurrencyLimit, steps: list[Step]) -> Shedding:
    return Shedding(pledges, FULL, ProcessLoad(pledges), steps.append)


def test_readings_that_come_seldom_enter_several_steps_at_once() -> None:
    steps: list[Step] = []
    shedding = shedding_of(ConcurrencyLimit("pledges", 1000), steps)
    for second in range(3):
        shedding.observe(Reading(float(second)))
    for second in range(3, 5):
        shedding.observe(Reading(float(second), wait_s=2.0))
    assert steps == [Step.PLEDGES]


def test_readings_in_time_enter_one_step_each() -> None:
    steps: list[Step] = []
    shedding = shedding_of(ConcurrencyLimit("pledges", 1000), steps)
    for tenth in range(10):
        shedding.observe(Reading(tenth / 10, wait_s=2.0))
    assert steps == list(Step)[1:]


def test_readings_that_come_seldom_leave_one_step_each() -> None:
    steps: list[Step] = []
    shedding = shedding_of(ConcurrencyLimit("pledges", 1000), steps)
    for tenth in range(10):
        shedding.observe(Reading(tenth / 10, wait_s=2.0))
    steps.clear()
    for number in range(1, 5):
        shedding.observe(Reading(number * 60.0))
    assert steps == [Step.STREAMS, Step.SNAPSHOTS, Step.BOARDS]


@pytest.mark.parametrize(
    ("per_s", "limit"), [(0.0, LEAST_PLEDGES), (50.0, LEAST_PLEDGES), (590.0, 590), (5000.0, 1000)]
)
def test_pledges_are_bounded_by_their_rate_on_the_last_step_only(per_s: float, limit: int) -> None:
    pledges = ConcurrencyLimit("pledges", 1000)
    shedding = shedding_of(pledges, [])
    for number in range(LAG_WINDOW):
        assert pledges.limit == 1000 or shedding.step is Step.PLEDGES
        shedding.observe(Reading(number / 10, wait_s=2.0, pledges_per_s=per_s))
    assert pledges.limit == limit
    for number in range(10):
        shedding.observe(Reading(100.0 + number * 10.0, pledges_per_s=per_s))
    assert (shedding.step, pledges.limit) == (Step.NOTHING, 1000)
