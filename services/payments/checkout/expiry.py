"""Expiring checkouts at Stripe: those of cancelled pledges, so that nobody pays one by mistake, and those in
which too many cards were declined.

Expiry does not prevent a payment made a moment before, and that money counts. A call with an unknown outcome
is repeated: expiring twice has no further effect. A checkout that Stripe refuses to expire is paid or expired
already, and a webhook reports which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Row, and_, bindparam, func, select, text, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from services.payments.processor import Processor, ProcessorError, Refused, TooFast
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import PAYMENTS, TO_CLOSE

BATCH: Final = 20
MAX_PAUSE_S: Final = 30.0
MAX_POSTPONED: Final = 500
"""Failed expiries that are postponed in memory; past this, all of them are due again."""

log = structlog.get_logger()

_CLOSED: Final = Counter(
    "ataa_checkouts_closed_total", "Checkouts expired before their end, by Stripe's answer.", ["outcome"]
)
_EXPIRED, _OVER, _FAILED = (_CLOSED.labels(outcome) for outcome in ("closed", "over", "failed"))


class CheckoutExpirer:
    """Expires open checkouts before their end; failed expiries are retried with growing delays."""

    def __init__(
        self, database: Database, processor: Processor, rate_limiter: RateLimiter, clock: Clock
    ) -> None:
        self._database = database
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self._work = DurableWork(
            "payments.cancelling",
            self,
            retry_after=exponential(1.0, MAX_PAUSE_S),
            one_by_one=True,
            max_pause_s=MAX_PAUSE_S,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Expire until `stop`."""
        await self._work.run(stop)

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`. The next try's time is no column: failed expiries are postponed in memory."""
        now = asyncio.get_running_loop().time()
        if len(self._due_at) > MAX_POSTPONED:
            self._due_at.clear()
            self._failures.clear()
        postponed = [payment for payment, due_at in self._due_at.items() if due_at > now]
        found = _FOUND.where(PAYMENTS.c.id.not_in(postponed)) if postponed else _FOUND
        async with self._database.reading() as session:
            return (await session.execute(found, {"now": self._clock.now()})).all()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`."""
        failed = []
        for row in batch:
            if row.session_id is None:  # a Payment Link (overflow/), which other donors have too
                await self._record(row)
                continue
            await self._rate_limiter.acquire()
            try:
                await self._processor.expire_checkout(row.session_id)
            except Refused as error:
                log.info("cancelling.over", payment=row.id, reason=str(error))
                _OVER.inc()
            except ProcessorError as error:
                if isinstance(error, TooFast):
                    self._rate_limiter.slow_down()
                _FAILED.inc()
                failed.append(Failed(row, str(error)))
                continue
            else:
                self._rate_limiter.succeeded()
                _EXPIRED.inc()
            crash_point("payments.cancelling.after_call")
            await self._record(row)
        return failed

    async def _record(self, row: Row[Any]) -> None:
        async with self._database.transaction() as session:
            await session.execute(update(PAYMENTS).where(PAYMENTS.c.id == row.id).values(checkout="none"))
        self._failures.pop(row.id, None)
        self._due_at.pop(row.id, None)

    def label(self, item: Row[Any]) -> str:
        """See `WorkQueue`."""
        return str(item.id)

    def failures(self, item: Row[Any]) -> int:
        """See `WorkQueue`."""
        return self._failures.get(item.id, 0)

    async def retry(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`."""
        delay_s = failure.delay.total_seconds() if failure.delay else 0.0
        self._failures[item.id] = failure.attempts
        self._due_at[item.id] = asyncio.get_running_loop().time() + delay_s

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`. The expiry is not given up: a checkout past its end is not due any more."""
        await self.retry(item, failure)


_IS_DUE: Final = and_(text(TO_CLOSE), PAYMENTS.c.expires_at > bindparam("now"))
"""A checkout past its end needs no expiry: that bounds the retries."""
_FOUND: Final = select(PAYMENTS.c.id, PAYMENTS.c.session_id).where(_IS_DUE).limit(BATCH)
_COUNTED: Final = select(func.count()).select_from(PAYMENTS).where(_IS_DUE)


async def pending_expiries(session: Transaction, clock: Clock) -> int:
    """How many checkouts are still to be expired."""
    return int((await session.execute(_COUNTED, {"now": clock.now()})).scalar_one())
