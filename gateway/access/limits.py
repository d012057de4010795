"""How much is let in: token buckets a key and an address, and a bound on what is under way at once."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from types import TracebackType
from typing import Final

from prometheus_client import Counter, Gauge

from backbone.http.problems import Overloaded, TooManyRequests

MOST_BUCKETS: Final = 100_000
"""Remembered at once, a limit; past it the one least lately used starts afresh."""

_REFUSED = Counter("ataa_gateway_limited_total", "Requests refused by a limit.", ["limit"])
_IN_FLIGHT = Gauge("ataa_gateway_in_flight", "Requests under way.", ["lane"])


class RateLimit:
    """A token bucket for each of many names: `per_s` on average, `burst_s` seconds' worth at once."""

    def __init__(self, name: str, per_s: float, burst_s: float, now: Callable[[], float]) -> None:
        self._name = name
        self._per_s = per_s
        self._size = max(1.0, per_s * burst_s)
        self._now = now
        self._policy = f'"{name}";q={math.floor(self._size)};w={math.ceil(self._size / per_s)}'
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Spend a token of `name`; raises `TooManyRequests` saying when the next one comes.

        `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10.
        """
        now = self._now()
        tokens, at = self._buckets.get(name, (self._size, now))
        tokens = min(self._size, tokens + (now - at) * self._per_s)
        allowed = tokens >= 1
        self._buckets[name] = (tokens - 1 if allowed else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if not allowed:
            _REFUSED.labels(self._name).inc()
            wait_s = max(1, math.ceil((1 - tokens) / self._per_s))
            raise TooManyRequests(
                f"Come back in {wait_s} s.",
                headers={
                    "Retry-After": str(wait_s),
                    "RateLimit": f'"{self._name}";r=0;t={wait_s}',
                    "RateLimit-Policy": self._policy,
                },
            )


class ConcurrencyLimit:
    """At most `limit` of one class of requests under way; the next is told to come back."""

    def __init__(self, name: str, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._name = name
        _IN_FLIGHT.labels(name).set_function(lambda: self.in_flight)

    def __enter__(self) -> None:
        if self.in_flight >= self.limit:
            _REFUSED.labels(self._name).inc()
            raise Overloaded("Too many requests of this kind are under way; try again in a second.")
        self.in_flight += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.in_flight -= 1

    @property
    def full(self) -> bool:
        """Whether the next would be refused."""
        return self.in_flight >= self.limit


def is_loopback(address: str) -> bool:
    """Whether a client's address is this machine's own (or no address at all: a Unix socket)."""
    try:
        found = ip_address(address)
    except ValueError:
        return not address
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
