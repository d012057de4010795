"""What time it is: passed in, so that tests may stop it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time in UTC."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class FrozenClock:
    """Stands still until moved."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or datetime(2022, 1, 7, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        """Go `seconds` forward."""
        self.at += timedelta(seconds=seconds)


def rfc3339(moment: datetime) -> str:
    """`2022-01-07T12:00:00.000Z`: RFC 3339 in UTC with `Z` and milliseconds."""
    # Not strftime: its %Y writes years before 1000 with fewer than four digits.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
