"""Which minutes a rehearsal replays, how many donations of them, and how fast."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from rehearsal.minutes import Replay, burst, busiest, plan_of
from rehearsal.recording import BadRecording, Minute

HEADER = "minute_utc,viewers,donations_total,raised_usd_total\n"


def minutes(*gifts: tuple[int, int]) -> list[Minute]:
    return [Minute(at, count, count * 1_000) for at, count in gifts]


def test_busiest_minutes_in_a_row_are_chosen() -> None:
    recorded = minutes((0, 9), (1, 9), (4, 10), (5, 2), (6, 7), (9, 12))
    assert busiest(recorded, 1) == minutes((0, 12))
    assert busiest(recorded, 3) == minutes(
        (0, 10), (1, 2), (2, 7)
    )  # minutes 4 to 6, not 9 and what is near it
    assert busiest(recorded, 100) == recorded


def test_burst_rises_within_a_minute_and_decays_over_twenty() -> None:
    gifts = [minute.gifts for minute in burst()]
    assert gifts[0] == 56 and min(gifts[1:12]) >= 400 and max(gifts) == 570
    assert all(before >= after for before, after in pairwise(gifts[11:]))
    assert gifts[-1] == 56
    means = [minute.raised_cents / minute.gifts for minute in burst()]
    assert means[0] == 5_000 and 1_100 <= min(means[1:]) <= max(means[1:]) <= 3_100


def test_times_multiplies_the_donations_and_faster_shortens_the_time(tmp_path: Path) -> None:
    file = tmp_path / "marathon.csv"
    rows = (
        f"2019-01-06T16:{minute:02}:00Z,,{10 * (minute + 1)},{100 * (minute + 1)}\n" for minute in range(30)
    )
    file.write_text(HEADER + "".join(rows))
    once, seconds = plan_of(file, Replay(minutes=10, times=1, faster=1), seed=1)
    assert (len(once.arrivals), seconds) == (100, 600)
    larger, seconds = plan_of(file, Replay(minutes=10, times=7.5, faster=20), seed=1)
    assert (len(larger.arrivals), seconds) == (750, 30)
    assert max(arrival.at_s for arrival in larger.arrivals) < 30
    mean = sum(arrival.amount_cents for arrival in larger.arrivals) / 750
    assert mean == pytest.approx(1_000, rel=0.01)  # the recording's mean
    assert larger.title == "the busiest 10 minutes of marathon.csv, 7.5 times"


def test_without_a_recording_the_published_burst_is_replayed() -> None:
    plan, seconds = plan_of(None, Replay(minutes=10, times=0.1, faster=1), seed=1)
    assert seconds == 600
    assert len(plan.arrivals) == pytest.approx(500, abs=30)


def test_unreadable_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be read"):
        plan_of(tmp_path / "missing.csv", Replay(1, 1, 1), seed=1)
