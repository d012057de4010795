"""A rate limiter that counts what it is told."""

from __future__ import annotations

from services.payments.stripe.rate_limiter import RateLimiter


class CountingLimiter(RateLimiter):
    """Unlimited; counts the calls that it admitted, and those that were reported as successful."""

    def __init__(self) -> None:
        super().__init__(0)
        self.admitted = self.successes = 0

    async def acquire(self) -> None:
        self.admitted += 1
        await super().acquire()

    def succeeded(self) -> None:
        self.successes += 1
        super().succeeded()
