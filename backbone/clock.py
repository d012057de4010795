"""The current time, passed in so that tests can control it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol


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


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def rfc3339(moment: datetime) -> str:
    """`2022-01-07T12:00:00.000Z`: RFC 3339 in UTC with `Z` and milliseconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return rfc3339_of_microseconds((moment - _EPOCH) // _MICROSECOND)


def rfc3339_of_microseconds(value: int) -> str:
    """The same for the moment `value` microseconds after 1970."""
    second, rest = divmod(value, 1_000_000)
    return f"{_text_of_second(second)}.{rest // 1000:03d}Z"


@lru_cache(maxsize=256)
def _text_of_second(second: int) -> str:
    """Cached: most moments are those of the last seconds, and `isoformat` takes as long as all the rest."""
    # Not strftime: its %Y writes years before 1000 with fewer than four digits.
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:-6]  # without "+00:00"
