"""The tickets that wait for a checkout, in their order, and the front of the queue, which only advances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import Gauge
from sqlalchemy import Row, bindparam, select, text

from backbone.database.database import Database
from backbone.database.transaction import Transaction
from services.payments.admission.estimates import Estimates, per_1000_s
from services.payments.admission.store import QueueState, advance, count_waiting, read_queue_and_newest
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import DRIVES, PAYMENTS, TICKETS

COUNTED_S: Final = 5.0
"""The queue is counted for its metrics this often."""

RATE_CHANGED: Final = 0.1
"""The share by which the rate has to change before an empty queue notes it."""

_PAUSED: Final = Gauge("ataa_checkouts_paused", "1 while an admin has paused checkouts, else 0.")
_WAITING: Final = Gauge("ataa_checkouts_waiting", "Pledges in the checkout queue, counted every 5 seconds.")
_ETA: Final = Gauge("ataa_checkouts_eta_seconds", "Estimated wait of a pledge that joins the checkout queue.")

_NEXT: Final = (
    select(
        PAYMENTS.c.id, PAYMENTS.c.number, PAYMENTS.c.pledge_id, PAYMENTS.c.drive_id, PAYMENTS.c.amount,
        PAYMENTS.c.currency, PAYMENTS.c.mode, PAYMENTS.c.locale, PAYMENTS.c.attempts, DRIVES.c.slug,
        DRIVES.c.test,
    )
    .join_from(PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True)
    .where(text(TICKETS))
    .order_by(PAYMENTS.c.number)
    .limit(bindparam("at_most"))
)  # fmt: skip


def clear_queue_metrics() -> None:
    """Reset the metrics: another process opens checkouts from now on, or none."""
    for gauge in (_PAUSED, _WAITING, _ETA):
        gauge.set(0)


class TicketQueue:
    """The queue as the checkout worker sees it; `rate_limiter` knows its rate."""

    def __init__(self, database: Database, rate_limiter: RateLimiter) -> None:
        self._database = database
        self._rate_limiter = rate_limiter
        self._counted_at = float("-inf")

    async def next_tickets(self, at_most: int) -> Sequence[Row[Any]]:
        """The next tickets in their order; none while checkouts are paused."""
        async with self._database.reading() as session:
            state, newest = await read_queue_and_newest(session)
            await self._measure(session, state)
            if state.pause is not None:
                return ()
            tickets = (await session.execute(_NEXT, {"at_most": at_most})).all()
        if not tickets and self._is_outdated(state.estimates, newest):
            # Every number so far is admitted or no ticket. If a power failure undoes this, it is repeated.
            async with self._database.lossy_transaction() as session:
                await advance(session, newest, self._rate)
        return tickets

    async def admitted(self, session: Transaction, numbers: Sequence[int]) -> None:
        """Move the front up to these tickets, in the transaction that stores their attempts."""
        await advance(session, max(numbers, default=0), self._rate)

    @property
    def _rate(self) -> int:
        return per_1000_s(self._rate_limiter.expected_per_s)

    def _is_outdated(self, estimates: Estimates, newest: int) -> bool:
        return newest > estimates.front or abs(self._rate - estimates.rate) > RATE_CHANGED * estimates.rate

    async def _measure(self, session: Transaction, state: QueueState) -> None:
        _PAUSED.set(0 if state.pause is None else 1)
        now = asyncio.get_running_loop().time()
        if now - self._counted_at >= COUNTED_S:
            self._counted_at = now
            waiting = await count_waiting(session)
            _WAITING.set(waiting)
            _ETA.set(waiting * 1_000 / self._rate)
