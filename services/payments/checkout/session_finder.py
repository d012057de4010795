"""Finding the sessions of attempts with an unknown outcome: one listing at Stripe serves all of them.

A listing reads Stripe's sessions from the newest to the oldest one wanted, through the rate limiter, some
pages at a time, so that new tickets are taken in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from backbone.clock import Clock
from services.payments.processor import ListedCheckout, OpenedCheckout, Processor, ProcessorError, TooFast
from services.payments.stripe.rate_limiter import RateLimiter

LISTING_S: Final = 2.0
PAGES: Final = 10
"""Pages read by one call of `settle`."""

CLOCK_SKEW: Final = timedelta(minutes=5)
SETTLED_AFTER: Final = timedelta(seconds=10)
"""A session is listed this long after its creation; one that is not was never created."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A payment whose session, if it exists, was created after `made_at`."""

    payment_id: str
    made_at: datetime
    found: asyncio.Future[OpenedCheckout | None]


@dataclass(slots=True)
class _Listing:
    """A listing of sessions, for those `wanted` at its beginning."""

    since: datetime
    begun_at: datetime
    wanted: Sequence[_Wanted]
    after: str | None = None

    @property
    def idle(self) -> bool:
        """Whether no caller waits for it any more."""
        return all(each.found.done() for each in self.wanted)


class SessionFinder:
    """Finds sessions by their payment; `settle` continues the listing, at most every `LISTING_S`."""

    def __init__(self, processor: Processor, rate_limiter: RateLimiter, clock: Clock) -> None:
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._wanted: dict[str, _Wanted] = {}
        self._listing: _Listing | None = None
        self._due = float("-inf")

    async def find(self, payment_id: str, made_at: datetime) -> OpenedCheckout | None:
        """Wait for a listing to show the session of a payment attempted at `made_at`; None: it has none."""
        wanted = _Wanted(payment_id, made_at, asyncio.get_running_loop().create_future())
        self._wanted[payment_id] = wanted
        try:
            return await wanted.found
        finally:
            if self._wanted.get(payment_id) is wanted:
                del self._wanted[payment_id]

    async def settle(self) -> None:
        """Read some pages, where callers wait and a listing is due."""
        loop = asyncio.get_running_loop()
        if not self._wanted or loop.time() < self._due:
            return
        listing = self._listing = self._listing or self._begin()
        for _ in range(PAGES):
            try:
                await self._rate_limiter.acquire()
                page, listing.after = await self._processor.list_checkouts(listing.since, listing.after)
                self._rate_limiter.succeeded()
            except ProcessorError as error:
                log.warning("checkouts.listing_failed", reason=str(error))
                if isinstance(error, TooFast):
                    self._rate_limiter.slow_down()
                self._due = loop.time() + LISTING_S
                return
            self._take(page)
            if listing.after is None:
                _settle_absent(listing)
            if listing.after is None or listing.idle:
                self._listing, self._due = None, loop.time() + LISTING_S
                return

    def _begin(self) -> _Listing:
        wanted = list(self._wanted.values())
        return _Listing(min(each.made_at for each in wanted) - CLOCK_SKEW, self._clock.now(), wanted)

    def _take(self, page: Sequence[ListedCheckout]) -> None:
        for each in page:
            if each.payment_id in self._wanted:
                _resolve(self._wanted[each.payment_id], each.checkout)


def _settle_absent(listing: _Listing) -> None:
    """A session attempted `SETTLED_AFTER` before a listing began and not in it was never created."""
    for each in listing.wanted:
        if listing.begun_at - each.made_at >= SETTLED_AFTER:
            _resolve(each, None)


def _resolve(wanted: _Wanted, opened: OpenedCheckout | None) -> None:
    if not wanted.found.done():
        wanted.found.set_result(opened)
