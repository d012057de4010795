"""The faults that a client may set; they stay in force until they are replaced."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from sandbox.event_types import SELECTABLE

MAX_TYPES: Final = 100
LARGEST: Final = {"duplicate": 20, "delay_ms": 600_000, "rate_limit_per_s": 1_000_000}
REORDER_SPREAD_MS: Final = 250  # how far reordering spreads events when no delay is set


class BadFault(Exception):
    """The request names an unknown fault, or gives a fault an invalid value."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults in force. Rates are fractions, 0 to 1, of requests (of events for `drop_rate`)."""

    duplicate: int = 1
    reorder: bool = False
    delay_ms: float = 0
    drop_rate: float = 0
    rate_limit_per_s: float | None = None
    error_rate: float = 0
    error_after_rate: float = 0
    timeout_after_success_rate: float = 0
    unsubscribed: tuple[str, ...] = ()
    """Event types the endpoint is not subscribed to: neither sent nor listed as undelivered."""

    def delivery_delay_s(self) -> float:
        """Seconds to delay one delivery: constant, or random when events are to be reordered."""
        if not self.reorder:
            return self.delay_ms / 1000
        return random.uniform(0, self.delay_ms or REORDER_SPREAD_MS) / 1000  # noqa: S311

    def shown(self) -> dict[str, Any]:
        return asdict(self)


def faults_from(requested: object) -> Faults:
    """Read faults from JSON; a missing or null fault is off. Raises BadFault."""
    if not isinstance(requested, dict):
        raise BadFault("expected a JSON object")
    known = {field.name for field in fields(Faults)}
    for name in requested:
        if name not in known:
            raise BadFault(f"unknown fault {str(name)[:40]!r}; known are {', '.join(sorted(known))}")
    return Faults(**{name: _checked(name, value) for name, value in requested.items() if value is not None})


def _checked(name: str, value: Any) -> Any:
    if name == "unsubscribed":
        return _event_types(value)
    if name == "reorder":
        if not isinstance(value, bool):
            raise BadFault("reorder must be true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise BadFault(f"{name} must be a number")
    if name == "duplicate" and not isinstance(value, int):
        raise BadFault("duplicate must be an integer")
    if name == "rate_limit_per_s" and value <= 0:
        raise BadFault("rate_limit_per_s must be above 0")
    lowest, largest = (1 if name == "duplicate" else 0), LARGEST.get(name, 1)
    if not lowest <= value <= largest:
        raise BadFault(f"{name} must be between {lowest} and {largest}")
    return value


def _event_types(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_TYPES:
        raise BadFault(f"unsubscribed must be a list of at most {MAX_TYPES} event types")
    if wrong := [each for each in value if not isinstance(each, str) or each not in SELECTABLE]:
        known = ", ".join(SELECTABLE)
        raise BadFault(f"unknown event type {str(wrong[0])[:40]!r} in unsubscribed; known are {known}")
    return tuple(value)


class RateLimit:
    """A token bucket that holds the requests of one second."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s)
        self._tokens = self._most
        self._clock = clock
        self._filled_at = clock()

    def admit(self) -> bool:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class FaultControl:
    """The faults in force, applied at random at their rates."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._limit: RateLimit | None = None

    def replace(self, faults: Faults) -> None:
        self.faults = faults
        limit = faults.rate_limit_per_s
        self._limit = RateLimit(limit) if limit is not None else None

    def within_rate_limit(self) -> bool:
        """Whether the rate limit admits one more request."""
        return self._limit is None or self._limit.admit()

    def should_drop(self) -> bool:
        return happens(self.faults.drop_rate)

    def unsubscribed(self) -> tuple[str, ...]:
        return self.faults.unsubscribed


def happens(rate: float) -> bool:
    """True in that fraction of the calls."""
    return rate > 0 and random.random() < rate  # noqa: S311
