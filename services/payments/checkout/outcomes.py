"""Recording the outcomes of attempts, which only this process knows until they are recorded.

Outcomes are recorded together. One that cannot be recorded is isolated, retried, and quarantined; after a
crash its attempt, stored as sent, is sent again under the same idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.durable_work import DurableWork, Failed, Failure
from backbone.wakeups import wait_for
from services.payments.checkout.attempts import (
    MAX_ATTEMPTS,
    AttemptOutcome,
    announces,
    mark_quarantined,
    record_outcomes,
)

RETRY_S: Final = 1.0
RECORD_TRIES: Final = 3
"""How often an outcome that cannot be recorded is tried before it is quarantined."""

MAX_REASON: Final = 500

log = structlog.get_logger()

_TICKETS: Final = Counter("ataa_checkouts_total", "Tickets by outcome.", ["outcome"])


def count_failed(outcome: AttemptOutcome) -> None:
    """Count and log a ticket whose last attempt failed."""
    _TICKETS.labels("failed").inc()
    log.error("checkouts.given_up", payment=outcome.sent.payment_id, reason=outcome.reason)


async def quarantine(database: Database, outcome: AttemptOutcome, reason: str, clock: Clock) -> None:
    """Quarantine an attempt that no transaction stores, and let its pledge lapse; report it.

    Where the payment cannot be restated either, only the attempt is marked, and the payment is left to an
    operator. Money that arrives nevertheless counts. Raises transient errors.
    """
    reason = reason[:MAX_REASON]
    _TICKETS.labels("quarantined").inc()
    log.error(
        "checkouts.quarantined",
        payment=outcome.sent.payment_id,
        attempt=outcome.sent.key,
        session=outcome.opened and outcome.opened.session_id,
        reason=reason,
    )
    for lapse in (True, False):
        try:
            async with database.transaction() as session:
                await mark_quarantined(session, outcome.sent, reason, clock.now(), lapse=lapse)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("checkouts.quarantine_failed", payment=outcome.sent.payment_id, lapse=lapse)
        else:
            return


class OutcomeRecorder:
    """Records outcomes in batches.

    `gather_s` is how long to wait for more of them; `on_new_attempt` is called when a ticket waits again.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        gather_s: Callable[[], float],
        on_new_attempt: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._gather_s = gather_s
        self._on_new_attempt = on_new_attempt
        self._pending: dict[str, AttemptOutcome] = {}
        self._failures: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._work = DurableWork(
            "payments.checkouts",
            self,
            retry_after=lambda failures: timedelta(seconds=RETRY_S) if failures < RECORD_TRIES else None,
            poll_s=RETRY_S,
        )

    def add(self, outcome: AttemptOutcome) -> None:
        """Have an outcome recorded soon."""
        self._pending[outcome.sent.key] = outcome
        self._empty.clear()
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Record outcomes until `stop`."""
        await self._work.run(stop, self._arrived)

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything added is recorded, at most `timeout_s`."""
        if self._pending:
            await wait_for(self._empty, timeout_s)

    async def fetch_due(self) -> Sequence[AttemptOutcome]:
        """See `WorkQueue`."""
        await asyncio.sleep(self._gather_s())
        now = asyncio.get_running_loop().time()
        return [each for key, each in self._pending.items() if self._due_at.get(key, now) <= now]

    async def run_batch(self, batch: Sequence[AttemptOutcome]) -> Sequence[Failed[AttemptOutcome]]:
        """See `WorkQueue`."""
        now = self._clock.now()
        # An outcome that a power failure undoes is asked for again, under its key. It must not be undone once
        # others may have seen it in an event.
        is_final = any(announces(outcome, now) for outcome in batch)
        begin = self._database.transaction if is_final else self._database.lossy_transaction
        async with begin() as session:
            await record_outcomes(session, batch, now)
        for outcome in batch:
            self._forget(outcome)
            if outcome.opened is not None:
                _TICKETS.labels("opened").inc()
            elif outcome.sent.n >= MAX_ATTEMPTS:
                count_failed(outcome)
            else:
                log.warning("checkouts.refused", payment=outcome.sent.payment_id, reason=outcome.reason)
                self._on_new_attempt()
        return ()

    def label(self, item: AttemptOutcome) -> str:
        """See `WorkQueue`."""
        return item.sent.key

    def failures(self, item: AttemptOutcome) -> int:
        """See `WorkQueue`."""
        return self._failures.get(item.sent.key, 0)

    async def retry(self, item: AttemptOutcome, failure: Failure) -> None:
        """See `WorkQueue`."""
        delay_s = failure.delay.total_seconds() if failure.delay else 0.0
        self._failures[item.sent.key] = failure.attempts
        self._due_at[item.sent.key] = asyncio.get_running_loop().time() + delay_s

    async def quarantine(self, item: AttemptOutcome, failure: Failure) -> None:
        """See `WorkQueue`."""
        await quarantine(self._database, item, failure.reason, self._clock)
        self._forget(item)

    def _forget(self, outcome: AttemptOutcome) -> None:
        for known in (self._pending, self._failures, self._due_at):
            known.pop(outcome.sent.key, None)
        if not self._pending:
            self._empty.set()
