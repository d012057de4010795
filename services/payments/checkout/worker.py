"""Opening checkouts: a durable queue of tickets drained by one worker an account at Stripe's pace.

Each try is stored with its exact parameters before the call and resent verbatim under the same key
until its outcome is known. Only an attempt known to have failed is followed by a new one, so a
pledge never has two open sessions (docs/architecture.md, "Stripe").
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import ColumnElement, Row, and_, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.adaptive_interval import ROUND_INTERVAL_S
from backbone.bisection import bisect
from backbone.clock import Clock
from backbone.contracts.payments import PaymentStatus
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transient import is_transient
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import Money
from backbone.wakeups import wait_for, wake_on_stop
from services.payments.checkout.session_finder import CLOCK_SKEW, SessionFinder
from services.payments.processor import (
    CheckoutRequest,
    OpenedCheckout,
    Processor,
    Refused,
    TooFast,
    Unavailable,
    Unknown,
)
from services.payments.recording.restate import restate
from services.payments.recording.rows import read_facts, read_payments
from services.payments.statements import lock_payments
from services.payments.stripe.objects import clean
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import ATTEMPTS, DRIVES, FACTS, PAYMENTS

MAX_ATTEMPTS: Final = 4
"""One with every parameter, and one after each parameter that a checkout may be refused for."""

EXPIRY: Final = "expires_at"
WITHOUT_EXPIRY_S: Final = 600.0
"""How long no expiry is asked for once Stripe refused one: our clock is wrong for the next tickets too."""

MAX_BATCH: Final = 64
POLL_S: Final = 0.5
RETRY_S: Final = 1.0
RECORD_TRIES: Final = 3
"""How often an outcome that cannot be recorded is tried before it is quarantined."""

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

_OPENED: Final = Counter("ataa_checkouts_total", "What became of tickets.", ["outcome"])
_QUARANTINED: Final = _OPENED.labels("quarantined")
_UNKNOWN: Final = Gauge("ataa_checkouts_unknown", "Attempts whose outcome is not known after a first answer.")


@dataclass(frozen=True, slots=True)
class SentAttempt:
    """An attempt that was stored and is to be carried out."""

    key: str
    payment_id: str
    n: int
    parameters: Mapping[str, Any]
    made_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What became of an attempt: a checkout, or the reason why there certainly is none."""

    sent: SentAttempt
    opened: OpenedCheckout | None
    reason: str | None = None
    refused: str | None = None


class CheckoutWorker:
    """Takes tickets in their order and opens their checkouts; `news` wakes it when there are new ones."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        pledges: ServiceClient,
        secret: str,
        *,
        pace: RateLimiter,
        in_flight: int,
        news: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._database = database
        self._processor = processor
        self._pledges = pledges
        self._secret = secret
        self._pace = pace
        self._unrecorded = news
        self._clock = clock
        self._in_flight = in_flight
        self._calls = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._more = False
        self._unknown: set[str] = set()
        self._sessions = SessionFinder(processor, pace, clock)
        self._admitted_at = float("-inf")
        self._outcomes: list[AttemptOutcome] = []
        self._failed_records: dict[str, int] = {}
        self._without_expiry_until = float("-inf")
        self._recording: asyncio.Task[None] | None = None

    @property
    def unknown(self) -> int:
        """Attempts whose outcome is not known after at least one answer or timeout."""
        return len(self._unknown)

    async def run(self, stop: asyncio.Event) -> None:
        """Open checkouts until `stop`, in one process at a time."""
        try:
            await self._recover()
            async with wake_on_stop(stop, self._unrecorded):
                while not stop.is_set():
                    self._unrecorded.clear()
                    busy = await self._admit()
                    await self._sessions.settle()
                    if not busy:
                        await wait_for(self._unrecorded, POLL_S)
        finally:
            await self._finish()

    async def _finish(self) -> None:
        """Let calls on their way end; what is left is taken up by whoever opens checkouts next."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        if self._recording:
            await asyncio.wait([self._recording], timeout=2.0)
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

    def _room(self) -> int:
        """How many tickets may be taken now: not many more than are called within a second."""
        if len(self._unknown) >= MAX_UNKNOWN:
            return 0
        ahead = 2 * self._in_flight
        if self._pace.limited:
            ahead = max(2, min(ahead, int(self._pace.rate_per_s)))
        return min(MAX_BATCH, ahead - (len(self._tasks) - len(self._unknown)))

    async def _admit(self) -> bool:
        """Take the next tickets and start their attempts; whether there may be more at once."""
        room = self._room()
        self._more = room <= 0
        if self._more:
            return False
        await self._gather_tickets()
        tickets = await self._waiting(room)
        self._more = len(tickets) == room
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

    async def _waiting(self, at_most: int) -> Sequence[Row[Any]]:
        columns: tuple[ColumnElement[Any], ...] = (
            PAYMENTS.c.id, PAYMENTS.c.pledge_id, PAYMENTS.c.drive_id, PAYMENTS.c.amount, PAYMENTS.c.currency,
            PAYMENTS.c.mode, PAYMENTS.c.locale, PAYMENTS.c.attempts, DRIVES.c.slug,
            DRIVES.c.test,
        )  # fmt: skip
        statement = (
            select(*columns)
            .join_from(PAYMENTS, DRIVES, PAYMENTS.c.drive_id == DRIVES.c.id, isouter=True)
            .where(PAYMENTS.c.checkout == "waiting")
            .order_by(PAYMENTS.c.number)
            .limit(at_most)
        )
        async with self._database.reading() as session:
            return (await session.execute(statement)).all()

    async def _details(self, pledges: Sequence[str]) -> Mapping[str, Any]:
        answer = await post_internal(
            self._pledges, self._secret, "/internal/checkout-details", {"ids": list(pledges)}
        )
        found: Mapping[str, Any] = answer["data"]
        return found

    async def _store_attempts(
        self, tickets: Sequence[Row[Any]], details: Mapping[str, Any]
    ) -> list[SentAttempt]:
        """Store an attempt a ticket, with its exact parameters; those to be carried out."""
        refused = await self._refused_before([row for row in tickets if row.attempts])
        now = self._clock.now()
        attempts = [
            self._attempt(row, details.get(row.pledge_id) or {}, refused.get(row.id, ()), now)
            for row in tickets
        ]
        sent: list[SentAttempt] = []

        async def store(some: Sequence[AttemptOutcome]) -> None:
            sent.extend(await self._store(some))

        await bisect(attempts, store, self._quarantine)
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

    async def _store(self, attempts: Sequence[AttemptOutcome]) -> list[SentAttempt]:
        """Store attempts whose tickets still wait, in one transaction; those to be carried out."""
        async with self._database.transaction() as session:
            still = await _take_tickets(session, [each.sent.payment_id for each in attempts])
            stored = [each for each in attempts if each.sent.payment_id in still]
            await _insert_attempts(session, stored)
            if failed := [each.sent.payment_id for each in stored if each.reason is not None]:
                await session.execute(
                    update(PAYMENTS).where(PAYMENTS.c.id.in_(failed)).values(checkout="failed")
                )
                await _lapse(session, PAYMENTS.c.id.in_(failed), self._clock.now())
        for each in stored:
            if each.reason is not None:
                _give_up(each)
        return [each.sent for each in stored if each.reason is None]

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
            self._unrecorded.set()

    async def _carry_out(self, sent: SentAttempt) -> None:
        """Call until the outcome of this attempt is known, then record it."""
        try:
            outcome = await self._until_known(sent)
        finally:
            self._unknown.discard(sent.key)
            _UNKNOWN.set(len(self._unknown))
        crash_point("payments.checkout.after_call")
        self._outcomes.append(outcome)
        if self._recording is None:
            self._recording = asyncio.create_task(self._record_outcomes())

    async def _record_outcomes(self) -> None:
        """Record outcomes together; an unavailable database is waited for, as nobody else knows them."""
        try:
            while self._outcomes:
                await asyncio.sleep(GATHER_S if len(self._tasks) > FEW else 0)
                batch, self._outcomes = self._outcomes, []
                left = await self._record(batch)
                if left:
                    self._outcomes = left + self._outcomes
                    await asyncio.sleep(RETRY_S)
        finally:
            self._recording = None

    async def _record(self, batch: Sequence[AttemptOutcome]) -> list[AttemptOutcome]:
        """Record a batch; those to be tried again. One that fails by itself does not hold up the others."""
        left = {each.sent.key: each for each in batch}

        async def commit(some: Sequence[AttemptOutcome]) -> None:
            await self._commit(some)
            for each in some:
                del left[each.sent.key]
                self._failed_records.pop(each.sent.key, None)

        async def note(outcome: AttemptOutcome, error: Exception) -> None:
            key = outcome.sent.key
            tries = self._failed_records[key] = self._failed_records.get(key, 0) + 1
            if tries >= RECORD_TRIES:
                await self._quarantine(outcome, error)
                del left[key], self._failed_records[key]

        try:
            await bisect(batch, commit, note)
        except Exception as error:
            log.exception("checkouts.outcomes_not_recorded", error=type(error).__name__)
        return list(left.values())

    async def _quarantine(self, outcome: AttemptOutcome, error: Exception) -> None:
        """Put aside an attempt that no transaction takes, and let its pledge lapse; reported, never silent.

        Where the payment cannot be restated either, the attempt alone is marked, and the payment stays
        as it is for a person. Money that arrives all the same counts. Raises what may pass.
        """
        cause = getattr(error, "orig", None) or error  # without the statement, which holds the checkout
        reason = clean(f"{type(error).__name__}: {cause}"[:500]) or ""
        _QUARANTINED.inc()
        log.error(
            "checkouts.quarantined",
            payment=outcome.sent.payment_id,
            attempt=outcome.sent.key,
            session=outcome.opened and outcome.opened.session_id,
            reason=reason,
        )
        for lapse in (True, False):
            try:
                await self._mark_quarantined(outcome, reason, lapse=lapse)
            except Exception as again:
                if is_transient(again):
                    raise
                log.exception("checkouts.quarantine_failed", payment=outcome.sent.payment_id, lapse=lapse)
            else:
                return

    async def _mark_quarantined(self, outcome: AttemptOutcome, reason: str, *, lapse: bool) -> None:
        now, payment = self._clock.now(), outcome.sent.payment_id
        async with self._database.transaction() as session:
            await lock_payments(session, [payment])
            await session.execute(
                update(ATTEMPTS)
                .where(ATTEMPTS.c.key == outcome.sent.key)
                .values(state="quarantined", reason=reason, done_at=now)
            )
            await session.execute(
                update(PAYMENTS)
                .where(PAYMENTS.c.id == payment, PAYMENTS.c.checkout.in_(("waiting", "opening")))
                .values(checkout="failed")
            )
            if lapse:
                await _lapse(session, and_(PAYMENTS.c.id == payment, PAYMENTS.c.checkout == "failed"), now)

    async def _until_known(self, sent: SentAttempt) -> AttemptOutcome:
        tries = 0
        while self._clock.now() - sent.made_at < KEY_LIVES:
            await self._pace.acquire()
            try:
                async with self._calls:
                    crash_point("payments.checkout.before_call")
                    return AttemptOutcome(
                        sent, await self._processor.open_checkout(sent.key, sent.parameters)
                    )
            except Refused as error:
                if error.parameter == EXPIRY:
                    self._leave_out_expiry(str(error))
                return AttemptOutcome(sent, None, str(error), error.parameter)
            except TooFast:
                self._pace.slow_down()
            except Unavailable as error:
                log.error("checkouts.unavailable", reason=str(error))
                await asyncio.sleep(UNAVAILABLE_S)
            except Exception as error:
                # Unknown, or what nobody thought of: either way the call may have been made.
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
        """Wait for a listing to say what became of an attempt."""
        self._unknown.add(sent.key)
        opened = await self._sessions.find(sent.payment_id, sent.made_at)
        return AttemptOutcome(sent, opened, None if opened else "no session was made")

    async def _commit(self, outcomes: Sequence[AttemptOutcome]) -> None:
        now = self._clock.now()
        async with self._database.transaction() as session:
            await lock_payments(session, [outcome.sent.payment_id for outcome in outcomes])
            await session.execute(_DONE, [_attempt_update(outcome, now) for outcome in outcomes])
            opened = [outcome for outcome in outcomes if outcome.opened is not None]
            if opened:
                await session.execute(_OPEN, [_payment_update(outcome) for outcome in opened])
                await _lapse_ended(session, opened, now)
            for checkout, failed in _failures(outcomes).items():
                # A row each: SQLite reads the whole table for a list of pairs.
                await session.execute(
                    _FAIL, [{"at_id": each, "at_attempt": n, "to_checkout": checkout} for each, n in failed]
                )
                if checkout == "failed":
                    ids = [payment_id for payment_id, _ in failed]
                    await _lapse(session, and_(PAYMENTS.c.id.in_(ids), PAYMENTS.c.checkout == "failed"), now)
        for outcome in outcomes:
            if outcome.opened is not None:
                _OPENED.labels("opened").inc()
            elif outcome.sent.n >= MAX_ATTEMPTS:
                _give_up(outcome)
            else:
                log.warning("checkouts.refused", payment=outcome.sent.payment_id, reason=outcome.reason)
                self._unrecorded.set()


_DONE: Final = (
    update(ATTEMPTS)
    .where(ATTEMPTS.c.key == bindparam("at_key"))
    .values(
        {name: bindparam(f"to_{name}") for name in ("state", "session_id", "refused", "reason", "done_at")}
    )
)
_OPEN: Final = (
    update(PAYMENTS)
    .where(PAYMENTS.c.id == bindparam("at_id"))
    .values(
        {
            name: bindparam(f"to_{name}")
            for name in ("session_id", "checkout_url", "client_secret", "expires_at")
        }
        | {"checkout": "open"}
    )
)

_FAIL: Final = (
    update(PAYMENTS)
    # Told twice (the worker began anew meanwhile), it must not make a second new attempt.
    .where(PAYMENTS.c.id == bindparam("at_id"), PAYMENTS.c.attempts == bindparam("at_attempt"))
    .where(PAYMENTS.c.checkout == "opening")
    .values(checkout=bindparam("to_checkout"))
)


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


async def _take_tickets(session: AsyncSession, payments: Sequence[str]) -> set[str]:
    """Those of `payments` whose tickets still wait, now being opened; the others need no checkout."""
    await lock_payments(session, payments)
    taken = await session.execute(
        update(PAYMENTS)
        .where(PAYMENTS.c.id.in_(payments), PAYMENTS.c.checkout == "waiting")
        .where(PAYMENTS.c.status == PaymentStatus.AWAITED, ~PAYMENTS.c.cancelled)
        .values(checkout="opening", attempts=PAYMENTS.c.attempts + 1)
        .returning(PAYMENTS.c.id)
    )
    still = {row.id for row in taken}
    if overtaken := [each for each in payments if each not in still]:
        await session.execute(
            update(PAYMENTS)
            .where(PAYMENTS.c.id.in_(overtaken), PAYMENTS.c.checkout == "waiting")
            .values(checkout="none")
        )
    return still


async def _insert_attempts(session: AsyncSession, attempts: Sequence[AttemptOutcome]) -> None:
    if not attempts:
        return
    rows = [
        {"key": each.sent.key, "payment_id": each.sent.payment_id, "n": each.sent.n,
         "state": "sent" if each.reason is None else "failed",
         "parameters": json.dumps(each.sent.parameters), "refused": each.refused, "reason": each.reason,
         "made_at": each.sent.made_at, "done_at": None if each.reason is None else each.sent.made_at}
        for each in attempts
    ]  # fmt: skip
    await session.execute(insert(ATTEMPTS), rows)


def _attempt_update(outcome: AttemptOutcome, now: datetime) -> dict[str, Any]:
    opened = outcome.opened
    return {
        "at_key": outcome.sent.key,
        "to_state": "opened" if opened else "failed",
        "to_session_id": opened.session_id if opened else None,
        "to_refused": outcome.refused,
        "to_reason": outcome.reason,
        "to_done_at": now,
    }


def _payment_update(outcome: AttemptOutcome) -> dict[str, Any]:
    opened = outcome.opened
    assert opened is not None
    return {
        "at_id": outcome.sent.payment_id,
        "to_session_id": opened.session_id,
        "to_checkout_url": opened.url,
        "to_client_secret": opened.client_secret,
        "to_expires_at": opened.expires_at,
    }


def _failures(outcomes: Sequence[AttemptOutcome]) -> dict[str, list[tuple[str, int]]]:
    """Payments to try anew and payments given up on, by what their `checkout` then is, with the attempt."""
    found: dict[str, list[tuple[str, int]]] = {}
    for outcome in outcomes:
        if outcome.opened is None:
            checkout = "failed" if outcome.sent.n >= MAX_ATTEMPTS else "waiting"
            found.setdefault(checkout, []).append((outcome.sent.payment_id, outcome.sent.n))
    return found


async def _lapse_ended(session: AsyncSession, outcomes: Sequence[AttemptOutcome], now: datetime) -> None:
    """State payments whose session ended before we knew that it was theirs: one that has expired."""
    soon = now + CLOCK_SKEW
    sessions = {
        each.opened.session_id: each.sent.payment_id
        for each in outcomes
        if each.opened and each.opened.expires_at <= soon
    }
    if not sessions:
        return
    if ended := await read_facts(session, FACTS.c.id.in_(sessions)):
        await _lapse(session, PAYMENTS.c.id.in_([sessions[each] for each in ended]), now)


async def _lapse(session: AsyncSession, condition: ColumnElement[bool], now: datetime) -> None:
    """State payments that nobody can pay any more; money that came all the same counts."""
    rows = await read_payments(session, condition)
    for row in rows.values():
        row.ended = True
    intents = [row.intent for row in rows.values() if row.intent]
    facts = await read_facts(session, FACTS.c.intent.in_(intents)) if intents else {}
    await restate(session, list(rows.values()), facts, now)


def _give_up(outcome: AttemptOutcome) -> None:
    _OPENED.labels("failed").inc()
    log.error("checkouts.given_up", payment=outcome.sent.payment_id, reason=outcome.reason)
