"""Recordings are read as published; bad ones are refused with line and column."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.recording import BadRecording, Minute, read, replay

HEADER = "minute_utc,viewers,donations_total,raised_usd_total\n"


def recording(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "marathon.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_minutes_are_the_differences_of_the_totals(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        HEADER
        + "2019-01-06T15:00Z,17654,10,299.37\n"
        + "2019-01-06T15:01Z,17718,10,299.37\n"
        + "2019-01-06T15:05Z,17871,14,399.37\n",
    )

    assert read(path) == [Minute(0, 10, 29_937), Minute(5, 4, 10_000)]


def test_smaller_or_missing_total_adds_nothing(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        HEADER
        + "2018-06-24T13:00Z,,10,100.00\n"
        + "2018-06-24T13:01Z,12000,8,90.00\n"
        + "2018-06-24T13:02Z,12000,,\n"
        + "2018-06-24T13:03Z,12000,12,160.5\n",
    )

    assert read(path) == [Minute(0, 10, 10_000), Minute(3, 2, 6_050)]


def test_dollars_without_a_donation_belong_to_the_next_one(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        HEADER
        + "2018-06-24T13:00Z,1,1,10.00\n"
        + "2018-06-24T13:01Z,1,1,60.00\n"
        + "2018-06-24T13:02Z,1,2,70.00\n",
    )

    assert read(path) == [Minute(0, 1, 1_000), Minute(2, 1, 6_000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minute_utc,viewers,donations_total\n", "line 1: column raised_usd_total is missing"),
        ("", "line 1: column minute_utc is missing"),
        (HEADER + "yesterday,1,2,3.00\n", "line 2, column minute_utc: 'yesterday' is not a UTC minute"),
        (HEADER + "2018-06-24T13:00,1,2,3.00\n", "line 2, column minute_utc"),
        (HEADER + "2018-06-24T13:00Z,many,2,3.00\n", "line 2, column viewers: 'many' is not an integer"),
        (
            HEADER + "2018-06-24T13:00Z,1,-2,3.00\n",
            "line 2, column donations_total: '-2' is not an integer",
        ),
        (HEADER + "2018-06-24T13:00Z,1,٣,3.00\n", "line 2, column donations_total"),
        (
            HEADER + "2018-06-24T13:00Z,1,2,NaN\n",
            "line 2, column raised_usd_total: 'NaN' is not an amount in dollars",
        ),
        (
            HEADER + "2018-06-24T13:00Z,1,2,3.001\n",
            "line 2, column raised_usd_total: '3.001' is not an amount in dollars",
        ),
        (HEADER + "2018-06-24T13:00Z,1,2,3.00\n2018-06-24T13:01Z,1,2\n", "line 3: 3 columns instead of 4"),
        (HEADER, "no donations: column donations_total never increases"),
        (HEADER + "2018-06-24T13:00Z,1,0,0.00\n", "no donations: column"),
    ],
)
def test_bad_file_is_refused_with_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadRecording) as refused:
        read(recording(tmp_path, text))

    assert message in str(refused.value)
    assert "marathon.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match=r"nothing\.csv: cannot be read"):
        read(tmp_path / "nothing.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(BadRecording, match=r"picture\.csv: is not a CSV file"):
        read(tmp_path / "picture.csv")


minutes_of_a_marathon = st.lists(
    st.tuples(st.integers(1, 600), st.integers(100, 5_000)), min_size=1, max_size=40
).map(lambda rows: [Minute(at, count, count * mean) for at, (count, mean) in enumerate(rows)])


@given(minutes=minutes_of_a_marathon, gifts=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_replay_keeps_count_order_and_each_minutes_share(
    minutes: list[Minute], gifts: int, seed: int
) -> None:
    arrivals = replay("a marathon", minutes, gifts, 10.0, seed).arrivals

    assert len(arrivals) == gifts
    times = [arrival.at_s for arrival in arrivals]
    assert times == sorted(times)
    total = sum(minute.gifts for minute in minutes)
    slot_s = 10.0 / len(minutes)
    for minute in minutes:
        got = sum(minute.at_min * slot_s <= at < (minute.at_min + 1) * slot_s for at in times)
        assert abs(got - gifts * minute.gifts / total) <= 2
    assert all(arrival.amount_cents >= 100 for arrival in arrivals)


@given(minutes=minutes_of_a_marathon, seed=st.integers(0, 2**32))
def test_replay_at_full_size_raises_the_same_total(minutes: list[Minute], seed: int) -> None:
    gifts = sum(minute.gifts for minute in minutes)

    arrivals = replay("a marathon", minutes, gifts, 10.0, seed).arrivals

    assert sum(arrival.amount_cents for arrival in arrivals) == sum(minute.raised_cents for minute in minutes)
