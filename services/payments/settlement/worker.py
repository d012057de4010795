"""The worker that reads balance transactions and payouts, in one process at a time.

A listing begins `OVERLAP` before the newest transaction that the last complete one saw, by Stripe's clock;
the store recognises repeats by id. A round that reaches its bound, or fails, resumes there. A transaction
that a listing missed is stored as a line of its payout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import func, select, text

from backbone.bisection import bisect
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.columns import from_microseconds, microseconds
from backbone.database.database import Database
from backbone.wakeups import wait_for
from services.payments.cursors import Position, read_position, save_positions
from services.payments.processor import Movement, Processor, ProcessorError, Refused
from services.payments.settlement.payouts import PayoutReader
from services.payments.settlement.record import place_waiting, record_movements
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, HELD_MOVEMENTS, PAYOUTS, UNRECONCILED
from services.payments.stripe.objects import clean
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import PAYMENTS

PAGES: Final = 50
"""Pages of 100 transactions that one round reads."""

OVERLAP: Final = timedelta(seconds=30)
FIRST_SPAN: Final = timedelta(days=1)
"""The first listing begins this long before our oldest payment."""

LISTED: Final = "settlement"
"""Position: the newest transaction of the last complete listing."""

LISTING: Final = "settlement.listing"
"""Position: the newest transaction of an incomplete listing, and the one after which it resumes."""

log = structlog.get_logger()

_READ: Final = Counter("ataa_settlement_transactions_total", "Balance transactions stored.")
_UNREADABLE: Final = Counter(
    "ataa_settlement_unreadable_total", "Balance transactions that could not be read or stored."
)
_HELD: Final = Gauge(
    "ataa_settlement_held",
    "Balance transactions that are not posted: another settlement currency, or an unexplained type.",
)
_DIFFERENT: Final = Gauge(
    "ataa_payouts_different", "Payouts whose balance transactions do not add up to their amount."
)
_READ_AT: Final = Gauge(
    "ataa_settlement_timestamp_seconds", "When balance transactions and payouts were last read."
)
_COUNT_HELD: Final = select(func.count()).select_from(BALANCE_TRANSACTIONS).where(text(HELD_MOVEMENTS))
_COUNT_DIFFERENT: Final = select(func.count()).select_from(PAYOUTS).where(text(UNRECONCILED))
_OLDEST: Final = select(PAYMENTS.c.made_at).order_by(PAYMENTS.c.number).limit(1)


class Settlement:
    """Reads balance transactions and payouts every `every_s`."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        rate_limiter: RateLimiter,
        clock: Clock,
        *,
        every_s: float,
    ) -> None:
        self._database = database
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._every_s = every_s
        self._payouts = PayoutReader(database, processor, rate_limiter, clock, every_s)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`."""
        _READ_AT.set_to_current_time()  # what is late is late since the start
        try:
            while not stop.is_set():
                await self.run_once()
                await wait_for(stop, self._every_s)
        finally:
            _HELD.set(0)  # the next leader sets them
            _DIFFERENT.set(0)

    async def run_once(self) -> None:
        """One round; a call that fails is repeated in the next one."""
        try:
            await self._list()
            await self._payouts.read_due()
            _READ_AT.set_to_current_time()
        except ProcessorError as error:
            log.warning("settlement.failed", reason=str(error))
        async with self._database.transaction() as session:
            await place_waiting(session, self._clock.now())
            crash_point("payments.settlement.before_place")
        async with self._database.reading() as session:
            _HELD.set((await session.execute(_COUNT_HELD)).scalar_one())
            _DIFFERENT.set((await session.execute(_COUNT_DIFFERENT)).scalar_one())

    async def _list(self) -> None:
        """Continue the listing, or begin a new one."""
        listing = await read_position(self._database, LISTING)
        after = listing.resume_after if listing else None
        newest = listing.cursor if listing and after else 0
        since = await self._since()
        for _ in range(PAGES):
            await self._rate_limiter.acquire()
            try:
                page = await self._processor.list_movements(after, since=since)
            except Refused:
                # The transaction that the page begins after is gone: the listing restarts.
                await save_positions(self._database, {LISTING: Position(0)})
                raise
            self._rate_limiter.succeeded()
            for reason in page.unreadable:
                self._give_up(reason)
            await self._record(page.movements)
            crash_point("payments.settlement.after_record")
            newest = max([newest, *(microseconds(each.created_at) for each in page.movements)])
            after = page.after
            kept = {LISTING: Position(newest, after)}
            if after is None and newest:
                kept[LISTED] = Position(newest)
            await save_positions(self._database, kept)
            if after is None:
                return

    async def _since(self) -> datetime:
        last = await read_position(self._database, LISTED)
        if last is not None:
            return from_microseconds(last.cursor) - OVERLAP
        async with self._database.reading() as session:
            oldest: datetime | None = (await session.execute(_OLDEST)).scalar()
        now = self._clock.now()
        return min(oldest or now, now) - FIRST_SPAN

    async def _record(self, movements: Sequence[Movement]) -> None:
        async def commit(batch: Sequence[Movement]) -> None:
            async with self._database.transaction() as session:
                new = await record_movements(session, batch, self._clock.now())
                crash_point("payments.settlement.before_commit")
            _READ.inc(new)

        async def isolate(movement: Movement, error: Exception) -> None:
            self._give_up(f"{movement.id}: {type(error).__name__}: {error}"[:500])

        await bisect(movements, commit, isolate)

    def _give_up(self, reason: str) -> None:
        """Report a transaction that cannot be read or stored; the listing continues without it."""
        _UNREADABLE.inc()
        log.error("settlement.unreadable", reason=clean(reason))
