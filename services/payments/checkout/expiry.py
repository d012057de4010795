"""Checkouts of cancelled pledges: closed at Stripe, so that nobody pays one by mistake.

Closing is no promise: a donor may have paid a moment before, and then the money counts. A call
whose outcome is not known is made again, for closing twice does no harm; what Stripe will not
close is over already, one way or the other, and a webhook tells which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import ColumnElement, Row, Select, and_, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.wakeups import wait_for
from services.payments.processor import Processor, ProcessorError, Refused, TooFast
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import PAYMENTS, TO_CLOSE

BATCH: Final = 20
POLL_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0

log = structlog.get_logger()

_CLOSED: Final = Counter(
    "ataa_checkouts_closed_total", "Checkouts of cancelled pledges, by what Stripe said.", ["outcome"]
)
_DONE, _OVER, _LATER = (_CLOSED.labels(outcome) for outcome in ("closed", "over", "failed"))


class CheckoutExpirer:
    """Closes the open checkouts of cancelled pledges; what failed is tried again, ever more patiently."""

    def __init__(self, database: Database, processor: Processor, pace: RateLimiter, clock: Clock) -> None:
        self._database = database
        self._processor = processor
        self._pace = pace
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Close until `stop`."""
        pause_s = POLL_S
        while not stop.is_set():
            due = await self._due()
            failed = sum([not await self._close(row) for row in due])
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if failed else POLL_S
            if failed or not due:
                await wait_for(stop, pause_s)

    async def _due(self) -> Sequence[Row[Any]]:
        found: Select[Any] = select(PAYMENTS.c.id, PAYMENTS.c.session_id).where(_due(self._clock))
        async with self._database.reading() as session:
            rows: Sequence[Row[Any]] = (await session.execute(found.limit(BATCH))).all()
            return rows

    async def _close(self, row: Row[Any]) -> bool:
        """Close one checkout; whether nothing is left to do about it."""
        await self._pace.acquire()
        try:
            await self._processor.expire_checkout(row.session_id)
        except Refused as error:
            log.info("cancelling.over", payment=row.id, reason=str(error))
            _OVER.inc()
        except ProcessorError as error:
            if isinstance(error, TooFast):
                self._pace.slow_down()
            log.warning("cancelling.failed", payment=row.id, reason=str(error))
            _LATER.inc()
            return False
        else:
            _DONE.inc()
        crash_point("payments.cancelling.after_call")
        async with self._database.transaction() as session:
            await session.execute(update(PAYMENTS).where(PAYMENTS.c.id == row.id).values(checkout="none"))
        return True


def _due(clock: Clock) -> ColumnElement[bool]:
    """A checkout past its end needs no closing: that bounds how often one is tried."""
    return and_(text(TO_CLOSE), PAYMENTS.c.expires_at > clock.now())


async def pending_expiries(session: AsyncSession, clock: Clock) -> int:
    """How many checkouts are still to be closed."""
    counted = select(func.count()).select_from(PAYMENTS).where(_due(clock))
    return (await session.execute(counted)).scalar_one()
