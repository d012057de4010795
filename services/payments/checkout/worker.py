"""Opening checkouts: a durable queue of tickets drained by one worker per account at Stripe's rate limit.

Each try is stored with its exact parameters before the call and resent verbatim under the same key
until its outcome is known. Only an attempt known to have failed is followed by a new one, so a
pledge never has two open sessions (docs/architecture.md, "Stripe").
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast

import structlog
from prometheus_client import Gauge
from sqlalchemy import Row, select

from backbone.adaptive_interval import ROUND_INTERVAL_S
from backbone.bisection import bisect
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.durable_work import error_reason
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import Money
from backbone.wakeups import wait_for, wake_on_stop
from services.payments.admission.queue import TicketQueue, clear_queue_metrics
from services.payments.checkout.attempts import AttemptOutcome, SentAttempt, store_attempts
from services.payments.checkout.outcomes import OutcomeRecorder, count_failed, quarantine
from services.payments.checkout.session_finder import SessionFinder
from services.payments.processor import (
    CheckoutRequest,
    Processor,
    Refused,
    TooFast,
    Unavailable,
    Unknown,
)
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import ATTEMPTS

EXPIRY: Final = "expires_at"
WITHOUT_EXPIRY_S: Final = 600.0
"""How long no expiry is asked for once Stripe refused one: our clock is wrong for the next tickets too."""

MAX_BATCH: Final = 64
POLL_S: Final = 0.5
GATHER_S: Final = ROUND_INTERVAL_S
FEW: Final = 4
"""With more than a few on their way, tickets and outcomes are gathered: a batch costs hardly more."""

MAX_UNKNOWN: Final = 256
"""With so many outcomes unknown Stripe is down: no further tickets are taken until some are known."""

KEY_LIVES: Final = timedelta(hours=23)
"""Stripe forgets a key after 24 h and would then act a second time."""

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
UNAVAILABLE_S: Final = 5.0
MANY_TRIES: Final = 8
"""After so many unknown outcomes of one attempt a listing is asked what became of it."""

log = structlog.get_logger()

_UNKNOWN: Final = Gauge("ataa_checkouts_unknown", "Attempts whose outcome is not known after a first answer.")


class CheckoutWorker:
    """Takes tickets in their order and opens their checkouts; `news` wakes it when there are new ones."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        pledges: ServiceClient,
        secret: str,
        *,
        rate_limiter: RateLimiter,
        in_flight: int,
        news: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._database = database
        self._processor = processor
        self._pledges = pledges
        self._secret = secret
        self._rate_limiter = rate_limiter
        self._news = news
        self._clock = clock
        self._in_flight = in_flight
        self._calls = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._more = False
        self._unknown: set[str] = set()
        self._sessions = SessionFinder(processor, rate_limiter, clock)
        self._queue = TicketQueue(database, rate_limiter)
        self._admitted_at = float("-inf")
        self._without_expiry_until = float("-inf")
        self._outcomes = OutcomeRecorder(
            database, clock, lambda: GATHER_S if len(self._tasks) > FEW else 0.0, news.set
        )

    @property
    def unknown(self) -> int:
        """Attempts whose outcome is not known after at least one answer or timeout."""
        return len(self._unknown)

    async def run(self, stop: asyncio.Event) -> None:
        """Open checkouts until `stop`, in one process at a time."""
        recording_stop = asyncio.Event()
        recording = asyncio.create_task(self._outcomes.run(recording_stop))
        try:
            await self._recover()
            async with wake_on_stop(stop, self._news):
                while not stop.is_set():
                    if recording.done():
                        recording.result()  # raises: nothing would record outcomes any more
                    self._news.clear()
                    busy = await self._admit()
                    await self._sessions.settle()
                    if not busy:
                        await wait_for(self._news, POLL_S)
        finally:
            try:
                await self._finish()
            finally:
                recording_stop.set()
                await asyncio.wait([recording], timeout=2.0)
                recording.cancel()
                clear_queue_metrics()

    async def _finish(self) -> None:
        """Let calls on their way end; what is left is taken up by whoever opens checkouts next."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        await self._outcomes.drain(2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unknown.clear()

    async def _recover(self) -> None:
        """Take up attempts that were stored and whose outcome nobody recorded."""
        async with self._database.reading() as session:
            rows = (await session.execute(select(ATTEMPTS).where(ATTEMPTS.c.state == "sent"))).all()
        for row in rows:
            self._start(SentAttempt(row.key, row.payment_id, row.n, json.loads(row.parameters), row.made_at))

    def _capacity(self) -> int:
        """How many tickets may be taken now: not many more than are called within a second."""
        if len(self._unknown) >= MAX_UNKNOWN:
            return 0
        ahead = 2 * self._in_flight
        if self._rate_limiter.limited:
            ahead = max(2, min(ahead, int(self._rate_limiter.rate_per_s)))
        return min(MAX_BATCH, ahead - (len(self._tasks) - len(self._unknown)))

    async def _admit(self) -> bool:
        """Take the next tickets and start their attempts; whether there may be more at once."""
        capacity = self._capacity()
        self._more = capacity <= 0
        if self._more:
            return False
        await self._gather_tickets()
        tickets = await self._queue.next_tickets(capacity)
        self._more = len(tickets) == capacity
        if not tickets:
            return False
        try:
            details = await self._details([row.pledge_id for row in tickets])
        except ServiceUnavailable as error:
            log.warning("checkouts.pledges_unavailable", error=str(error))
            return False
        for sent in await self._store_attempts(tickets, details):
            self._start(sent)
        return self._more

    async def _gather_tickets(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - self._admitted_at
        if len(self._tasks) > FEW and since < GATHER_S:
            await asyncio.sleep(GATHER_S - since)
        self._admitted_at = loop.time()

    async def _details(self, pledges: Sequence[str]) -> Mapping[str, Any]:
        answer = await post_internal(
            self._pledges, self._secret, "/internal/checkout-details", {"ids": list(pledges)}
        )
        found: Mapping[str, Any] = answer["data"]
        return found

    async def _store_attempts(
        self, tickets: Sequence[Row[Any]], details: Mapping[str, Any]
    ) -> list[SentAttempt]:
        """Store one attempt per ticket, with its exact parameters; return those to be carried out."""
        refused = await self._refused_before([row for row in tickets if row.attempts])
        now = self._clock.now()
        attempts = [
            self._attempt(row, details.get(row.pledge_id) or {}, refused.get(row.id, ()), now)
            for row in tickets
        ]
        numbers = {row.id: row.number for row in tickets}
        sent: list[SentAttempt] = []

        async def store(some: Sequence[AttemptOutcome]) -> None:
            async with self._database.transaction() as session:
                stored = await store_attempts(session, some, self._clock.now())
                await self._queue.admitted(session, [numbers[each.sent.payment_id] for each in some])
            for each in stored:
                if each.reason is None:
                    sent.append(each.sent)
                else:
                    count_failed(each)

        async def isolate(attempt: AttemptOutcome, error: Exception) -> None:
            await quarantine(self._database, attempt, error_reason(error), self._clock)

        await bisect(attempts, store, isolate)
        return sent

    def _attempt(
        self, row: Row[Any], details: Mapping[str, Any], without: Sequence[str], now: datetime
    ) -> AttemptOutcome:
        """A ticket's next attempt; with a reason where it cannot be carried out at all."""
        sent = SentAttempt(f"{row.id}.{row.attempts + 1}", row.id, row.attempts + 1, {}, now)
        if asyncio.get_running_loop().time() < self._without_expiry_until:
            without = (*without, EXPIRY)
        try:
            parameters = self._processor.checkout_parameters(_checkout_request(row, details, now), without)
        except Refused as error:
            return AttemptOutcome(sent, None, str(error), error.parameter)
        except Exception as error:
            # It would end the worker, again at each start, and no ticket behind it would have its turn.
            log.exception("checkouts.no_parameters", payment=row.id, error=type(error).__name__)
            return AttemptOutcome(sent, None, f"{type(error).__name__}: {error}"[:500])
        return AttemptOutcome(replace(sent, parameters=parameters), None)

    async def _refused_before(self, rows: Sequence[Row[Any]]) -> dict[str, list[str]]:
        """The parameters that Stripe refused in earlier attempts, a payment."""
        refused: dict[str, list[str]] = {}
        keys = [f"{row.id}.{n}" for row in rows for n in range(1, row.attempts + 1)]
        if keys:
            statement = select(ATTEMPTS.c.payment_id, ATTEMPTS.c.refused).where(ATTEMPTS.c.key.in_(keys))
            async with self._database.reading() as session:
                for row in await session.execute(statement.where(ATTEMPTS.c.refused.is_not(None))):
                    refused.setdefault(row.payment_id, []).append(row.refused)
        return refused

    def _start(self, sent: SentAttempt) -> None:
        task = asyncio.create_task(self._carry_out(sent))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The attempt is stored as sent: it is taken up again at the next start.
            log.error("checkouts.attempt_failed", error=f"{type(error).__name__}: {error}")
        if self._more and len(self._tasks) - len(self._unknown) <= self._in_flight:
            self._news.set()

    async def _carry_out(self, sent: SentAttempt) -> None:
        """Call until the outcome of this attempt is known, then record it."""
        try:
            outcome = await self._until_known(sent)
        finally:
            self._unknown.discard(sent.key)
            _UNKNOWN.set(len(self._unknown))
        crash_point("payments.checkout.after_call")
        self._outcomes.add(outcome)

    async def _until_known(self, sent: SentAttempt) -> AttemptOutcome:
        tries = 0
        while self._clock.now() - sent.made_at < KEY_LIVES:
            await self._rate_limiter.acquire()
            try:
                async with self._calls:
                    crash_point("payments.checkout.before_call")
                    opened = await self._processor.open_checkout(sent.key, sent.parameters)
                self._rate_limiter.succeeded()
                return AttemptOutcome(sent, opened)
            except Refused as error:
                if error.parameter == EXPIRY:
                    self._leave_out_expiry(str(error))
                return AttemptOutcome(sent, None, str(error), error.parameter)
            except TooFast:
                self._rate_limiter.slow_down()
            except Unavailable as error:
                log.error("checkouts.unavailable", reason=str(error))
                await asyncio.sleep(UNAVAILABLE_S)
            except Exception as error:
                # `Unknown`, or an unexpected error: either way the call may have been made.
                if not isinstance(error, Unknown):
                    log.exception("checkouts.attempt_failed", error=type(error).__name__)
                tries += 1
                self._unknown.add(sent.key)
                _UNKNOWN.set(len(self._unknown))
                if getattr(error, "replayed", False) or tries >= MANY_TRIES:
                    return await self._listed_outcome(sent)
                await asyncio.sleep(min(FIRST_PAUSE_S * 2**tries, LONGEST_PAUSE_S))
        return await self._listed_outcome(sent)

    def _leave_out_expiry(self, reason: str) -> None:
        """Ask for no expiry for a while: Stripe's clock and ours differ, and each ticket would be refused."""
        now = asyncio.get_running_loop().time()
        if now >= self._without_expiry_until:
            log.warning("checkouts.expiry_refused", reason=reason, advice="compare this machine's clock")
        self._without_expiry_until = now + WITHOUT_EXPIRY_S

    async def _listed_outcome(self, sent: SentAttempt) -> AttemptOutcome:
        """Wait for a listing that shows what became of an attempt."""
        self._unknown.add(sent.key)
        opened = await self._sessions.find(sent.payment_id, sent.made_at)
        return AttemptOutcome(sent, opened, None if opened else "no session was made")


def _checkout_request(row: Row[Any], details: Mapping[str, Any], now: datetime) -> CheckoutRequest:
    return CheckoutRequest(
        payment_id=row.id,
        pledge_id=row.pledge_id,
        drive_id=row.drive_id,
        amount=Money(row.amount, row.currency),
        mode=cast(Literal["hosted", "embedded"], row.mode),
        title=details.get("title") or "Donation",
        slug=details.get("slug") or row.slug or row.drive_id,
        return_url=details.get("return_url"),
        email=details.get("email"),
        locale=details.get("locale") or row.locale,
        made_at=now,
        test=bool(details.get("test") or row.test),
    )
