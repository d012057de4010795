"""The decline-ratio breaker of a drive, or of all drives together, as a pure state machine.

It counts tries with small amounts only: whoever tests stolen cards pays little. It opens where both the
number of declined tries and their ratio are far above the past of the drive, and closes by itself once the
tries have been calm for a while. A try counts in the second of its own time, so the order of arrival does not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FAST_S: Final = 10
"""The window that finds an attack on a busy drive within seconds."""
SLOW_S: Final = 300
"""The window that finds a slow attack on a quiet drive."""
CALM_WINDOW_S: Final = 60
PAST_S: Final = 3_600

LEAST_DECLINES: Final = 30
"""Fewer declined tries in a window never open a breaker."""
LEAST_RATIO: Final = 0.3
"""A smaller part of declined tries never opens a breaker. Real donors have 2 to 15 % of declines."""
MOST_RATIO: Final = 0.6
"""A larger part of declined tries is an attack, whatever the past of the drive was."""
TIMES_THE_PAST: Final = 3.0
CALM_S: Final = 300
"""How long the tries must be calm before a breaker closes."""

_PRIOR_DECLINED: Final = 5
_PRIOR_TRIED: Final = 50
"""A drive without a past is taken to have had five declines in fifty tries."""


@dataclass(slots=True)
class Counts:
    """Declined tries, and all tries."""

    declined: int = 0
    tried: int = 0

    @property
    def ratio(self) -> float:
        """The part that was declined; 0 where nothing was tried."""
        return self.declined / self.tried if self.tried else 0.0


@dataclass(slots=True)
class Breaker:
    """Whether tries of small amounts look like an attack; `opened_at` is None while it is closed.

    Times are Unix seconds. `check` is to be called about once a second.
    """

    opened_at: float | None = None
    calm_since: float | None = None
    _seconds: dict[int, Counts] = field(default_factory=dict)
    _past: dict[int, Counts] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it is open: an attack is assumed."""
        return self.opened_at is not None

    @property
    def is_idle(self) -> bool:
        """Whether it is closed and has nothing counted, so that it can be forgotten."""
        return not (self.is_open or self._seconds or self._past)

    def note(self, at: float, *, declined: bool) -> None:
        """Count a try of a small amount at this time."""
        counts = self._seconds.setdefault(int(at), Counts())
        counts.tried += 1
        counts.declined += declined

    def check(self, now: float) -> bool:
        """Open or close; whether it did."""
        self._move_to_past(int(now))
        limit = self._limit()
        if self.opened_at is None:
            if any(_is_attack(self._within(now, window), limit) for window in (FAST_S, SLOW_S)):
                self.opened_at, self.calm_since = now, None
                return True
            return False
        if not _is_calm(self._within(now, CALM_WINDOW_S), limit):
            self.calm_since = None
        elif self.calm_since is None:
            self.calm_since = now
        elif now - self.calm_since >= CALM_S:
            self.opened_at = self.calm_since = None
            self._seconds = {at: each for at, each in self._seconds.items() if at > now - CALM_WINDOW_S}
            return True
        return False

    def past_ratio(self) -> float:
        """The part of declined tries in the past hour, without the times of an attack."""
        declined = sum(each.declined for each in self._past.values())
        tried = sum(each.tried for each in self._past.values())
        return (declined + _PRIOR_DECLINED) / (tried + _PRIOR_TRIED)

    def _limit(self) -> float:
        """The ratio from which tries look like an attack."""
        return min(max(LEAST_RATIO, TIMES_THE_PAST * self.past_ratio()), MOST_RATIO)

    def _within(self, now: float, window_s: int) -> Counts:
        found, last = Counts(), int(now)
        for second in range(last - window_s + 1, last + 1):
            if (counts := self._seconds.get(second)) is not None:
                found.declined += counts.declined
                found.tried += counts.tried
        return found

    def _move_to_past(self, now: int) -> None:
        """Move what left the slow window to the past; what came during an attack is no part of it."""
        for second in [each for each in self._seconds if each <= now - SLOW_S]:
            counts = self._seconds.pop(second)
            if self.opened_at is None and second > now - PAST_S:
                minute = self._past.setdefault(second // 60, Counts())
                minute.declined += counts.declined
                minute.tried += counts.tried
        for minute_number in [each for each in self._past if each * 60 <= now - PAST_S]:
            del self._past[minute_number]


def _is_attack(counts: Counts, limit: float) -> bool:
    return counts.declined >= LEAST_DECLINES and counts.ratio >= limit


def _is_calm(counts: Counts, limit: float) -> bool:
    """The hysteresis: half of what opens it, in the number or in the ratio."""
    return counts.declined < LEAST_DECLINES / 2 or counts.ratio < limit / 2
