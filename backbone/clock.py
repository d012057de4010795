"""The current time, passed in so that tests can control it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class SystemClock:
    """The system clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class FrozenClock:
    """A clock for tests; it advances only when moved."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or datetime(2022, 1, 7, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        """Advance the clock by `seconds`."""
        self.at += timedelta(seconds=seconds)


def rfc3339(moment: datetime) -> str:
    """`2022-01-07T12:00:00.000Z`: RFC 3339 in UTC with `Z` and milliseconds."""
    # Not strftime: its %Y writes years before 1000 with fewer than four digits.
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"  # without "+00:00"
