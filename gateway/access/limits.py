"""Limits of what is accepted: requests per second for a key and an address, and requests at the same time."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Final

from prometheus_client import Counter, Gauge

from backbone.http.problems import Overloaded, TooManyRequests
from gateway.access.keys import Bearer

MAX_BUCKETS: Final = 100_000
"""Token buckets kept for each rate limit; beyond it the least recently used restarts full."""

_REFUSED = Counter("ataa_gateway_limited_total", "Requests refused by a limit.", ["limit"])
_IN_FLIGHT = Gauge("ataa_gateway_in_flight", "Requests being processed.", ["lane"])


def count_refused(limit: str) -> None:
    """Count a request that a limit refused."""
    _REFUSED.labels(limit).inc()


class RateLimit:
    """A token bucket for each name: `per_s` requests a second on average, `burst_s` seconds' worth at once.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, name: str, per_s: float, burst_s: float, now: Callable[[], float]) -> None:
        self._name = name
        self._per_s = per_s
        self._size = max(1.0, per_s * burst_s)
        self._now = now
        self._policy = f'"{name}";q={math.floor(self._size)};w={math.ceil(self._size / per_s)}'
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Spend a token of `name`.

        Raises `TooManyRequests` with `Retry-After`, `RateLimit` and `RateLimit-Policy`
        (draft-ietf-httpapi-ratelimit-headers-10) where there is none.
        """
        now = self._now()
        tokens, at = self._buckets.get(name, (self._size, now))
        tokens = min(self._size, tokens + (now - at) * self._per_s)
        allowed = tokens >= 1
        self._buckets[name] = (tokens - 1 if allowed else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
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


class RateLimits:
    """The rate limits of a request: that of its API key and that of its client's address.

    An address in IPv6 counts as its /64 network, which one client has for itself.
    """

    def __init__(
        self, key: RateLimit, address: RateLimit, pledges: RateLimit, pledges_of_key: RateLimit
    ) -> None:
        self._key = key
        self._address = address
        self._pledges = pledges
        self._pledges_of_key = pledges_of_key

    def spend(self, bearer: Bearer, address: str) -> None:
        """Count a request; raises `TooManyRequests`.

        Secret and admin keys have no limit, and a loopback address has no address limit.
        """
        if bearer.kind in ("secret", "admin"):
            return
        if not is_loopback(address):
            self._address.take(network_of(address))
        if bearer.key_id:
            self._key.take(bearer.key_id)

    def spend_pledge(self, bearer: Bearer, address: str) -> None:
        """Count a request to make a pledge, besides `spend`; raises `TooManyRequests`.

        An address that is not public has no limit: it is a proxy's, with all donors behind it. A publishable
        key has one of its own, whatever the addresses.
        """
        if bearer.kind in ("secret", "admin"):
            return
        if is_public(address):
            self._pledges.take(network_of(address))
        if bearer.key_id:
            self._pledges_of_key.take(bearer.key_id)


class ConcurrencyLimit:
    """A context manager that admits at most `limit` requests of one class at the same time.

    Entering raises `Overloaded` beyond that. `finished` counts those that have left.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.finished = 0
        self._refused = _REFUSED.labels(name)
        _IN_FLIGHT.labels(name).set_function(lambda: self.in_flight)

    def check(self) -> None:
        """Raises `Overloaded` if entering would."""
        if self.is_full():
            self.count_refused()
            raise Overloaded("Too many requests of this kind are under way; try again in a second.")

    def is_full(self) -> bool:
        """Whether nothing more is admitted."""
        return self.in_flight >= self.limit

    def count_refused(self) -> None:
        """Count a request that is refused because nothing more is admitted."""
        self._refused.inc()

    def __enter__(self) -> None:
        self.check()
        self.in_flight += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.in_flight -= 1
        self.finished += 1


def network_of(address: str) -> str:
    """The network of a client's address: an IPv6 address by its /64, an IPv4 address as it is."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)
    if found.version == 4 or mapped is not None:
        return str(mapped or found)
    return str(ip_network((int(found) >> 64 << 64, 64)))


def is_public(address: str) -> bool:
    """Whether a client's address is one of the public Internet."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_global


def is_loopback(address: str) -> bool:
    """Whether a client's address is a loopback address, or empty (a Unix socket)."""
    try:
        found = ip_address(address)
    except ValueError:
        return not address
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
