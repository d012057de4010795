"""Rests between rounds, in a time that only the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from backbone.adaptive_interval import LOADED_EVENTS, ROUND_INTERVAL_S, AdaptiveInterval


@dataclass
class Clock:
    """Stands in for the loop, of which `AdaptiveInterval.rest` asks nothing but the time."""

    now: float = 1_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def rested_s(interval: AdaptiveInterval, clock: Clock, took_s: float, events: int) -> float:
    """How long the rest is after a round that takes so long and has so many events; it is then over."""
    began = clock.now
    clock.now += took_s
    interval.rest(began, events)
    rest_s = interval.due - clock.now
    clock.now = max(interval.due, clock.now)
    return rest_s


def test_the_first_round_starts_at_once(clock: Clock) -> None:
    assert AdaptiveInterval().due < clock.now


@pytest.mark.parametrize(("took_s", "rest_s"), [(0.001, 0.002), (0.005, 0.010), (0.016, 0.032)])
def test_a_round_of_few_events_is_followed_by_twice_what_it_took(
    clock: Clock, took_s: float, rest_s: float
) -> None:
    assert rested_s(AdaptiveInterval(), clock, took_s, 1) == pytest.approx(rest_s)


def test_no_rest_ends_later_than_the_longest_distance_between_two_starts(clock: Clock) -> None:
    assert rested_s(AdaptiveInterval(), clock, 0.03, 1) == pytest.approx(ROUND_INTERVAL_S - 0.03)
    assert rested_s(AdaptiveInterval(), clock, 0.07, 1) <= 0


def test_rounds_keep_the_long_distance_under_load_and_rest_shortly_after_it(clock: Clock) -> None:
    interval = AdaptiveInterval()
    for _ in range(40):
        rest_s = rested_s(interval, clock, 0.002, 2 * LOADED_EVENTS)
    assert rest_s == pytest.approx(ROUND_INTERVAL_S - 0.002)
    for _ in range(40):
        rest_s = rested_s(interval, clock, 0.002, 1)
        clock.now += 0.1
    assert rest_s == pytest.approx(0.004)


def test_whether_there_is_load_depends_on_events_a_second_and_not_on_the_size_of_batches(
    clock: Clock,
) -> None:
    """Short rounds make small batches: by their size load would never be seen again."""
    interval = AdaptiveInterval()
    for _ in range(1_000):  # an event each millisecond, taken one by one
        rest_s = rested_s(interval, clock, 0.0001, 1)
        clock.now = max(clock.now, 0.0)
        if rest_s > 0.04:
            return
    pytest.fail("the load was never noticed")
