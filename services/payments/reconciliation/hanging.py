"""Asking Stripe about checkouts whose end nobody reported.

A checkout is paid, or it expires; a webhook reports which, and the backfill and the sweep find most webhooks
that were lost. No list shows that a checkout expired or that a bank debit failed: where those events do not
arrive (the endpoint is not subscribed to them), the pledge would stay open for ever. So Stripe is asked for
each checkout that is past its end and whose payment is still awaited.

A checkout through a Payment Link (overflow/) has no session of its own that could be read. Its pledge lapses
by our clock; a payment that is reported later counts.

A bank debit may take days after its checkout is complete. It is asked about again, at most once an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Row, bindparam, or_, select, text

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from services.payments.domain import FactKind, Observation
from services.payments.overflow.lapse import lapse_unpaid
from services.payments.processor import Processor, ProcessorError, TooFast
from services.payments.recording.record import record
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import HANGING, PAYMENTS

BATCH: Final = 20
LONGEST_PAUSE_S: Final = 3_600.0
POLL_S: Final = 5.0
PAGES: Final = 25
"""Pages of checkouts that are looked at in one round for those that are due."""
_FIRST: Final = (datetime(1970, 1, 1, tzinfo=UTC), "")

log = structlog.get_logger()

_ASKED: Final = Counter(
    "ataa_checkouts_asked_about_total", "Checkouts past their end by what Stripe answered.", ["outcome"]
)
for _outcome in ("paid", "ended", "undecided", "failed"):
    _ASKED.labels(_outcome)

_E: Final = PAYMENTS.c.expires_at
_AT: Final = bindparam("at", type_=_E.type)
PAST_THEIR_END: Final = (
    select(PAYMENTS.c.id, PAYMENTS.c.session_id, _E)
    .where(
        text(HANGING),
        bindparam("before", type_=_E.type) > _E,
        _E >= _AT,
        or_(_E > _AT, PAYMENTS.c.id > bindparam("id")),
    )
    .order_by(_E, PAYMENTS.c.id)
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
        self._position = _FIRST
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
        """See `WorkQueue`. The checkouts are looked at in turn, so that each of them is reached.

        The next try's time is no column: what is undecided is postponed in memory.
        """
        now = asyncio.get_running_loop().time()
        for _ in range(PAGES):
            at, last = self._position
            values = {"before": self._clock.now() - self._grace, "at": at, "id": last}
            async with self._database.reading() as session:
                page = (await session.execute(PAST_THEIR_END, values)).all()
            if not page:
                self._position = _FIRST
                return ()
            self._position = (page[-1].expires_at, page[-1].id)
            due = [row for row in page if self._due_at.get(row.id, 0.0) <= now]
            if due:
                return due
        return ()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`: an answer that decides nothing is a failure, so it is asked for again."""
        failed = []
        for row in batch:
            if row.session_id is None:
                await self._lapse(row)
                continue
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

    async def _lapse(self, row: Row[Any]) -> None:
        """Let a pledge lapse whose checkout was a Payment Link: our clock alone ends that."""
        async with self._database.transaction() as session:
            await lapse_unpaid(session, row.id, self._clock.now())

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
