"""Reads the recording of a marathon: CSV with `minute_utc,viewers,donations_total,raised_usd_total`.

Totals are cumulative, as they were published: a missing or smaller value means that nothing was added. A
value that is not a number is an error that names line and column.
"""

import bisect
import csv
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rehearsal.amounts import LARGEST_GIFT_CENTS
from rehearsal.curve import Arrival, Plan, Size

COLUMNS: Final = ("minute_utc", "viewers", "donations_total", "raised_usd_total")
MAX_LINES: Final = 200_000
_COUNT: Final = re.compile(r"[0-9]{1,12}")
_DOLLARS: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")
_SMALLEST_CENTS: Final = 100


class BadRecording(Exception):
    """The file cannot be replayed; the message names file, line and column."""


@dataclass(frozen=True, slots=True)
class Minute:
    """Donations and cents added in the minute `at_min` minutes after the first."""

    at_min: int
    gifts: int
    raised_cents: int


def read(path: Path) -> list[Minute]:
    """The minutes with donations, in order; at least one. Raises BadRecording."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            minutes = list(_minutes(path.name, csv.reader(file)))
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRecording(f"{path.name}: is not a CSV file in UTF-8 ({error})") from error
    if not minutes:
        raise BadRecording(f"{path.name}: no donations: column donations_total never increases")
    return minutes


def _minutes(name: str, lines: Iterator[list[str]]) -> Iterator[Minute]:
    columns = _header(name, next(lines, []))
    start: datetime | None = None
    at_min = gifts_seen = cents_seen = gifts_reported = cents_reported = 0
    for number, line in enumerate(lines, start=2):
        if number > MAX_LINES:
            raise BadRecording(f"{name} line {number}: more than {MAX_LINES} lines")
        if not line:
            continue
        if len(line) != len(columns):
            raise BadRecording(f"{name} line {number}: {len(line)} columns instead of {len(columns)}")
        row = dict(zip(columns, map(str.strip, line), strict=True))
        minute = _minute(name, number, row["minute_utc"])
        start = start or minute
        at_min = max(at_min, int((minute - start).total_seconds()) // 60)
        _count(name, number, "viewers", row["viewers"])
        gifts_seen = max(gifts_seen, _count(name, number, "donations_total", row["donations_total"]))
        cents_seen = max(cents_seen, _cents(name, number, row["raised_usd_total"]))
        if gifts_seen > gifts_reported:
            yield Minute(at_min, gifts_seen - gifts_reported, cents_seen - cents_reported)
            gifts_reported, cents_reported = gifts_seen, cents_seen


def _header(name: str, line: list[str]) -> list[str]:
    columns = [column.strip() for column in line]
    for column in COLUMNS:
        if column not in columns:
            raise BadRecording(f"{name} line 1: column {column} is missing (needed: {','.join(COLUMNS)})")
    return columns


def _minute(name: str, number: int, text: str) -> datetime:
    try:
        minute = datetime.fromisoformat(text)
    except ValueError:
        minute = None
    if minute is None or minute.tzinfo is None:
        raise BadRecording(f"{name} line {number}, column minute_utc: {text!r} is not a UTC minute")
    return minute


def _count(name: str, number: int, column: str, text: str) -> int:
    """An integer; 0 when missing, which the running maximum ignores."""
    if text and not _COUNT.fullmatch(text):
        raise BadRecording(f"{name} line {number}, column {column}: {text!r} is not an integer")
    return int(text or 0)


def _cents(name: str, number: int, text: str) -> int:
    match = _DOLLARS.fullmatch(text or "0")
    if match is None:
        raise BadRecording(
            f"{name} line {number}, column raised_usd_total: {text!r} is not an amount in dollars"
        )
    return int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))


def replay(title: str, minutes: Sequence[Minute], gifts: int, seconds: float, seed: int) -> Plan:
    """The recording compressed to `seconds` and scaled to `gifts`; each minute keeps its mean amount.

    Donation k represents the recording's donation at the same quantile, which preserves the shape of the
    counts and the mean of every interval.
    """
    rng = random.Random(seed)  # noqa: S311 - a script, not a secret
    reached = list(itertools.accumulate(minute.gifts for minute in minutes))
    chosen = [bisect.bisect_right(reached, (k + 0.5) / gifts * reached[-1]) for k in range(gifts)]
    span_min = minutes[-1].at_min + 1
    arrivals: list[Arrival] = []
    for index, group in itertools.groupby(chosen):
        minute, count = minutes[index], len(list(group))
        times = sorted((minute.at_min + rng.random()) / span_min * seconds for _ in range(count))
        arrivals.extend(map(Arrival, times, _split(minute, count, rng)))
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return Plan(title, tuple(arrivals), _size_from(minutes, reached), frozenset())


def _split(minute: Minute, count: int, rng: random.Random) -> list[int]:
    """`count` amounts with the minute's mean, unequal, from one dollar to Stripe's maximum."""
    mean = minute.raised_cents / minute.gifts
    spare = max(0, round(mean * count) - _SMALLEST_CENTS * count)
    cuts = sorted(rng.randint(0, spare) for _ in range(count - 1))
    shares = [after - before for before, after in zip([0, *cuts], [*cuts, spare], strict=True)]
    return [min(_SMALLEST_CENTS + share, LARGEST_GIFT_CENTS) for share in shares]


def _size_from(minutes: Sequence[Minute], reached: Sequence[int]) -> Size:
    """Amounts for the rush: the mean of a minute chosen with its number of donations as weight."""

    def size(rng: random.Random) -> int:
        minute = minutes[bisect.bisect_right(reached, rng.randrange(reached[-1]))]
        return _split(minute, 1, rng)[0]

    return size
