"""Asking Stripe about checkouts whose end nobody reported.

A checkout is paid, or it expires; a webhook reports which, and the backfill and the sweep find most webhooks
that were lost. No list shows that a checkout expired or that a bank debit failed: where those events do not
arrive (the endpoint is not subscribed to them), the pledge would stay open for ever. So Stripe is asked for
each checkout that is past its end and whose payment is still awaited.

A bank debit may take days after its checkout is complete. It is asked about again, at most once an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Row, bindparam, select, text

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from services.payments.domain import FactKind, Observation
from services.payments.processor import Processor, ProcessorError, TooFast
from services.payments.recording.record import record
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import HANGING, PAYMENTS

BATCH: Final = 20
LONGEST_PAUSE_S: Final = 3_600.0
POLL_S: Final = 5.0
MAX_POSTPONED: Final = 500
"""Checkouts that are asked about later, in memory; past this, all of them are due again."""

log = structlog.get_logger()

_ASKED: Final = Counter(
    "ataa_checkouts_asked_about_total", "Checkouts past their end by what Stripe answered.", ["outcome"]
)
for _outcome in ("paid", "ended", "undecided", "failed"):
    _ASKED.labels(_outcome)

PAST_THEIR_END: Final = (
    select(PAYMENTS.c.id, PAYMENTS.c.session_id)
    .where(text(HANGING), PAYMENTS.c.expires_at < bindparam("before", type_=PAYMENTS.c.expires_at.type))
    .order_by(PAYMENTS.c.expires_at)
    .limit(BATCH)
)


class HangingCheckouts:
    """Asks about checkouts that ended more than `grace_s` ago, and records Stripe's answers as facts."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        rate_limiter: RateLimiter,
        clock: Clock,
        grace_s: float,
    ) -> None:
        self._database = database
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._grace = timedelta(seconds=grace_s)
        self._failures: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self.work = DurableWork(
            "payments.hanging",
            self,
            retry_after=exponential(POLL_S, LONGEST_PAUSE_S),
            one_by_one=True,
            poll_s=POLL_S,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        await self.work.run(stop)

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`. The next try's time is no column: what is undecided is postponed in memory."""
        now = asyncio.get_running_loop().time()
        if len(self._due_at) > MAX_POSTPONED:
            self._due_at.clear()
            self._failures.clear()
        postponed = [payment for payment, due_at in self._due_at.items() if due_at > now]
        due = PAST_THEIR_END.where(PAYMENTS.c.id.not_in(postponed)) if postponed else PAST_THEIR_END
        async with self._database.reading() as session:
            return (await session.execute(due, {"before": self._clock.now() - self._grace})).all()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`: an answer that decides nothing is a failure, so it is asked for again."""
        failed = []
        for row in batch:
            await self._rate_limiter.acquire()
            try:
                found = await self._processor.read_checkout(row.session_id)
            except ProcessorError as error:
                if isinstance(error, TooFast):
                    self._rate_limiter.slow_down()
                _ASKED.labels("failed").inc()
                failed.append(Failed(row, str(error)))
                continue
            self._rate_limiter.succeeded()
            if found is None:
                _ASKED.labels("undecided").inc()
                failed.append(Failed(row, "the checkout is neither paid nor ended"))
                continue
            await self._record(row, found)
        return failed

    async def _record(self, row: Row[Any], found: Observation) -> None:
        async with self._database.transaction() as session:
            await record(session, [found], self._clock.now())
            crash_point("payments.hanging.before_commit")
        outcome = "paid" if found.kind is FactKind.CAPTURE else "ended"
        _ASKED.labels(outcome).inc()
        log.warning("checkouts.not_reported", payment=row.id, outcome=outcome)
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
        delay_s = failure.delay.total_seconds() if failure.delay else LONGEST_PAUSE_S
        self._failures[item.id] = failure.attempts
        self._due_at[item.id] = asyncio.get_running_loop().time() + delay_s

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`. It is not given up: money may still arrive."""
        await self.retry(item, failure)
