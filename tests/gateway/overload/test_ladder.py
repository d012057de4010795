"""The ladder as a state machine: order, dwell times and hysteresis, for every course of the pressure."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.overload.ladder import BOUNDS, ENTER_AFTER_S, LEAVE_AFTER_S, Ladder, Step

pressures = st.floats(0.0, 3.0)
courses = st.lists(st.tuples(pressures, st.floats(0.01, 3.0)), max_size=80)
"""Pressures, and how many seconds after the one before each is observed."""


def climbed(ladder: Ladder, to: Step, now: float = 0.0) -> float:
    """Climb until `to`; the time then."""
    while ladder.step < to:
        now += ENTER_AFTER_S
        ladder.observe(BOUNDS[Step(ladder.step + 1)].enter, now)
    return now


def walk(course: list[tuple[float, float]]) -> list[tuple[float, float, Step]]:
    """Time, pressure and step after each observation."""
    ladder, now, found = Ladder(), 0.0, []
    for pressure, pause_s in course:
        now += pause_s
        found.append((now, pressure, ladder.observe(pressure, now)))
    return found


def test_bounds_rise_with_the_step_and_each_is_left_below_where_it_is_entered() -> None:
    assert set(BOUNDS) == set(Step) - {Step.NOTHING}
    for lower, higher in pairwise(BOUNDS.values()):
        assert lower.enter < higher.enter
        assert lower.leave < higher.leave
    assert all(bounds.leave < bounds.enter for bounds in BOUNDS.values())


@given(courses)
def test_ladder_moves_one_step_at_a_time_and_only_on_the_pressure_of_that_step(
    course: list[tuple[float, float]],
) -> None:
    before = Step.NOTHING
    for _, pressure, step in walk(course):
        assert abs(step - before) <= 1
        if step > before:
            assert pressure >= BOUNDS[step].enter
        if step < before:
            assert pressure < BOUNDS[before].leave
        before = step


@given(courses)
def test_step_lasts_for_its_dwell_time(course: list[tuple[float, float]]) -> None:
    found = [(0.0, 0.0, Step.NOTHING), *walk(course)]
    moves = [(at, step, before) for (_, _, before), (at, _, step) in pairwise(found) if step != before]
    for (first_at, *_), (second_at, step, before) in pairwise(moves):
        assert second_at - first_at >= (ENTER_AFTER_S if step > before else LEAVE_AFTER_S)


@given(st.lists(st.tuples(pressures, st.floats(0.0, 1.0)), max_size=60))
def test_more_pressure_never_leads_to_a_lower_step(course: list[tuple[float, float]]) -> None:
    """Observed once a dwell time, so that no move of either ladder is still held back."""
    calm, loaded = Ladder(), Ladder()
    for number, (pressure, more) in enumerate(course):
        now = number * LEAVE_AFTER_S
        assert calm.observe(pressure, now) <= loaded.observe(pressure + more, now)


@given(courses, st.floats(0.0, BOUNDS[Step.RECENT].leave, exclude_max=True))
def test_ladder_steps_back_to_nothing_by_itself(course: list[tuple[float, float]], calm: float) -> None:
    ladder, now = Ladder(), 0.0
    for pressure, pause_s in course:
        now += pause_s
        ladder.observe(pressure, now)
    for _ in Step:
        now += LEAVE_AFTER_S
        ladder.observe(calm, now)
    assert ladder.step is Step.NOTHING


@given(st.sampled_from(list(BOUNDS)), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_pressure_between_the_bounds_of_a_step_keeps_it(step: Step, shares: list[float]) -> None:
    ladder = Ladder()
    now = climbed(ladder, step)
    higher = BOUNDS[Step(step + 1)].enter if step < Step.PLEDGES else 3.0
    for share in shares:
        now += LEAVE_AFTER_S
        pressure = BOUNDS[step].leave + share * (higher - BOUNDS[step].leave) * 0.999
        assert ladder.observe(pressure, now) is step


def test_every_step_is_reached_in_half_a_second_and_left_within_eleven() -> None:
    ladder = Ladder()
    seen, now = [], 0.0
    while ladder.step < Step.PLEDGES:
        now += 0.1
        seen.append(ladder.observe(1.0, now))
    assert now <= 0.6
    assert sorted(set(seen)) == list(Step)[1:]
    began = now
    while ladder.step:
        now += 0.1
        ladder.observe(0.0, now)
    assert now - began <= 11.0
