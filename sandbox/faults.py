"""The faults a rehearsal may ask for; all stay until the next request for faults."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from sandbox.event_types import SELECTABLE

MOST_TYPES: Final = 100
LARGEST: Final = {"duplicate": 20, "delay_ms": 600_000, "rate_limit_per_s": 1_000_000}
SHUFFLE_MS: Final = 250  # how far reordering spreads events when no delay is asked for


class BadFault(Exception):
    """The request names a fault that does not exist or gives it a value it cannot have."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Rates are shares between 0 and 1 of requests (or of events, for `drop_rate`)."""

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
        """Seconds to hold one delivery back: all alike, or at random when they are to be reordered."""
        if not self.reorder:
            return self.delay_ms / 1000
        return random.uniform(0, self.delay_ms or SHUFFLE_MS) / 1000  # noqa: S311

    def shown(self) -> dict[str, Any]:
        return asdict(self)


def faults_from(wish: object) -> Faults:
    """Faults as asked for in JSON; what is left out or null is off. Raises BadFault."""
    if not isinstance(wish, dict):
        raise BadFault("expected a JSON object")
    known = {field.name for field in fields(Faults)}
    for name in wish:
        if name not in known:
            raise BadFault(f"unknown fault {str(name)[:40]!r}; known are {', '.join(sorted(known))}")
    return Faults(**{name: _checked(name, value) for name, value in wish.items() if value is not None})


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
        raise BadFault("duplicate must be a whole number")
    if name == "rate_limit_per_s" and value <= 0:
        raise BadFault("rate_limit_per_s must be above 0")
    lowest, largest = (1 if name == "duplicate" else 0), LARGEST.get(name, 1)
    if not lowest <= value <= largest:
        raise BadFault(f"{name} must be between {lowest} and {largest}")
    return value


def _event_types(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MOST_TYPES:
        raise BadFault(f"unsubscribed must be a list of at most {MOST_TYPES} event types")
    if wrong := [each for each in value if not isinstance(each, str) or each not in SELECTABLE]:
        known = ", ".join(SELECTABLE)
        raise BadFault(f"unknown event type {str(wrong[0])[:40]!r} in unsubscribed; known are {known}")
    return tuple(value)


class RateLimit:
    """A token bucket that holds one second's worth of requests."""

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


class FaultDesk:
    """The faults in force, and the dice."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._limit: RateLimit | None = None

    def replace(self, faults: Faults) -> None:
        self.faults = faults
        limit = faults.rate_limit_per_s
        self._limit = RateLimit(limit) if limit is not None else None

    def admits(self) -> bool:
        """Whether the rate limit lets one more request through."""
        return self._limit is None or self._limit.admit()

    def drops(self) -> bool:
        return hits(self.faults.drop_rate)

    def unsubscribed(self) -> tuple[str, ...]:
        return self.faults.unsubscribed


def hits(rate: float) -> bool:
    """True in that share of the calls."""
    return rate > 0 and random.random() < rate  # noqa: S311
