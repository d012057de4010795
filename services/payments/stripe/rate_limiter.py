"""The rate limiter of calls to Stripe: a token bucket; a 429 halves its rate, success restores it."""

from __future__ import annotations

import asyncio
from typing import Final

RECOVERY_PER_S: Final = 0.05
"""Share of the rate before the 429 that is regained each second: the full rate after ten seconds."""

SLOWEST_PER_S: Final = 1.0
FREE_PER_S: Final = 2_000.0
"""Above this, a limiter without a configured rate is unlimited again."""

RESTORED_AFTER_S: Final = 1 / RECOVERY_PER_S
"""A success restores what at most so many seconds before it would have."""

UNLIMITED_RATE: Final = 20.0
"""The least calls per second that are expected without a limit."""

INFINITE: Final = float("inf")


class RateLimiter:
    """Admits `rate_per_s` calls per second (0: unlimited), with bursts of half a second's calls.

    `slow_down` halves the rate, at most once a second however many calls were refused together. `succeeded`
    restores it: linearly, to the configured one within ten seconds. Calls that fail restore nothing.
    """

    def __init__(self, rate_per_s: float) -> None:
        self._ceiling = rate_per_s or INFINITE
        self._rate = self._ceiling
        self._gain = 0.0
        self._tokens = 0.0
        self._filled_at = 0.0
        self._slowed_at = -INFINITE
        self._restored_at = -INFINITE
        self._queue_lock = asyncio.Lock()
        self._counted = 0
        self._counted_since = 0.0
        self._recent = 0.0

    @property
    def rate_per_s(self) -> float:
        """The current rate; without a limit, the rate of recent calls (0 before the first)."""
        return self._recent if self._rate == INFINITE else self._rate

    @property
    def expected_per_s(self) -> float:
        """The calls to be expected per second: the current rate, or without a limit, as many as recently."""
        return self._rate if self.limited else max(self._recent, UNLIMITED_RATE)

    @property
    def limited(self) -> bool:
        """Whether calls are limited now."""
        return self._rate != INFINITE

    async def acquire(self) -> None:
        """Wait until one more call is admitted; callers are admitted in order."""
        loop = asyncio.get_running_loop()
        if self.limited or self._queue_lock.locked():
            async with self._queue_lock:
                self._refill(loop.time())
                while self._tokens < 1 and self.limited:
                    await asyncio.sleep((1 - self._tokens) / self._rate)
                    self._refill(loop.time())
                self._tokens -= 1
        self._count(loop.time())

    def slow_down(self) -> None:
        """Halve the rate after a 429."""
        now = asyncio.get_running_loop().time()
        if now - self._slowed_at < 1.0:
            return
        self._slowed_at = self._filled_at = self._restored_at = now
        before = min(self._rate, max(self._recent, SLOWEST_PER_S), FREE_PER_S)
        self._rate, self._gain = max(SLOWEST_PER_S, before / 2), max(SLOWEST_PER_S, before * RECOVERY_PER_S)
        self._tokens = 0.0

    def succeeded(self) -> None:
        """Restore a part of the rate after a call that succeeded: as much as the time since the last one."""
        if not self.limited or self._rate >= self._ceiling:
            return
        now = asyncio.get_running_loop().time()
        passed = min(now - self._restored_at, RESTORED_AFTER_S)
        self._restored_at = now
        self._rate = min(self._rate + self._gain * passed, self._ceiling)
        if self._rate > FREE_PER_S:
            self._rate = self._ceiling

    def _refill(self, now: float) -> None:
        passed = min(now - self._filled_at, 1.0)
        self._filled_at = now
        if self.limited:
            self._tokens = min(max(1.0, self._rate / 2), self._tokens + self._rate * passed)

    def _count(self, now: float) -> None:
        self._counted += 1
        if now - self._counted_since >= 1.0:
            self._recent = self._counted / min(max(1.0, now - self._counted_since), 5.0)
            self._counted, self._counted_since = 0, now
