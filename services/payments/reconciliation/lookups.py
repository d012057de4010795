"""What Stripe must be asked, because a webhook only hinted at it or cannot be placed.

`charge.refunded` only prompts a read of the refunds; a refund or dispute of a payment intent
nobody knows is kept, and after ten minutes Stripe is asked for the intent. While what counts of a
refund or dispute is an estimate, Stripe is asked for both.

A question about an intent is answered once every fact of it has its payment. Besides, facts without
a payment whose intent has one are placed each minute, whatever left them behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transient import is_transient
from services.payments.bisection import bisect
from services.payments.domain import FactKind, Observation, counts
from services.payments.processor import Foreign, Processor, ProcessorError, Refused
from services.payments.recording import estimates
from services.payments.recording.record import record
from services.payments.recording.rows import StoredFact, read_facts
from services.payments.statements import insert_new, upsert
from services.payments.stripe.objects import NOT_TOLD
from services.payments.tables import FACTS, LOOKUPS, PAYMENTS
from services.payments.wakeups import wait_for
from services.payments.webhooks.foreign import drop_foreign_facts

BATCH: Final = 20
POLL_S: Final = 0.5
MAX_TRIES: Final = 30
MAX_RETRY_DELAY: Final = timedelta(hours=1)
PLACE_S: Final = 60.0
PLACE_BATCH: Final = 200
UNPLACED_AFTER: Final = timedelta(minutes=10)
"""How long a refund or dispute waits for the capture's own webhook before Stripe is asked for its intent."""

log = structlog.get_logger()


async def request_refunds_lookup(session: AsyncSession, hints: Mapping[str, int], ask_at: datetime) -> None:
    """Have the refunds of these intents read; `hints` is what Stripe says is refunded, an intent.

    Hints come in any order, and the sum falls when a refund fails: where one contradicts another that is not
    settled yet, neither is believed, and the refunds are read whatever they add up to.
    """
    if not hints:
        return
    facts = await read_facts(session, FACTS.c.intent.in_(hints))
    asked = select(LOOKUPS.c.intent, LOOKUPS.c.expected).where(
        LOOKUPS.c.intent.in_(hints), LOOKUPS.c.kind == "refunds"
    )
    before = {row.intent: row.expected for row in await session.execute(asked)}
    rows = [
        {
            "intent": intent,
            "kind": "refunds",
            "expected": refunded if before.get(intent, refunded) == refunded else NOT_TOLD,
            "tries": 0,
            "ask_at": ask_at,
        }
        for intent, refunded in hints.items()
        if _refunded(intent, facts.values()) != refunded or before.get(intent, refunded) != refunded
    ]
    if not rows:
        return
    told = ("expected", "tries", "ask_at")
    await session.execute(upsert(session, LOOKUPS, ("intent", "kind"), told), rows)


async def request_capture_lookups(session: AsyncSession, intents: Collection[str], ask_at: datetime) -> None:
    """Have those of `intents` asked for whose facts belong to no payment we know."""
    if not intents:
        return
    unplaced = select(FACTS.c.intent).where(FACTS.c.payment_id.is_(None), FACTS.c.intent.in_(intents))
    found = {row.intent for row in await session.execute(unplaced)}
    if not found:
        return
    rows = [{"intent": each, "kind": "intent", "tries": 0, "ask_at": ask_at} for each in found]
    await session.execute(insert_new(session, LOOKUPS), rows)


class Reconciler:
    """Asks Stripe what is due, and records the answers as facts."""

    def __init__(
        self, database: Database, processor: Processor, clock: Clock, *, hold_foreign: bool = False
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._place_at = float("-inf")
        self._hold_foreign = hold_foreign

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            if loop.time() >= self._place_at:
                placed = await self.place_left_facts()
                self._place_at = loop.time() + (PLACE_S if placed < PLACE_BATCH else 0.0)
            if not await self.run_due():
                await wait_for(stop, POLL_S)

    async def place_left_facts(self) -> int:
        """Give facts without a payment the one of their intent, if it has one; how many were given one.

        A fact that no transaction takes is reported, and stays as it is.
        """
        async with self._database.reading() as session:
            found = await _placeable(session)
        placed = 0

        async def place(observations: Sequence[Observation]) -> None:
            nonlocal placed
            async with self._database.transaction() as session:
                await record(session, observations, self._clock.now())
            placed += len(observations)

        await bisect([fact.observation for fact in found.values()], place, _not_placed)
        if placed:
            log.warning("facts.left_behind", number=placed)
        return placed

    async def run_due(self) -> int:
        """Ask what is due now; how much there was."""
        due = select(LOOKUPS).where(LOOKUPS.c.ask_at <= self._clock.now()).limit(BATCH)
        async with self._database.reading() as session:
            rows = (await session.execute(due.order_by(LOOKUPS.c.ask_at))).all()
        for row in rows:
            await self._ask(row)
        return len(rows)

    async def _ask(self, row: Row[Any]) -> None:
        async with self._database.reading() as session:
            answered = await _is_answered(session, row)
        try:
            observations = [] if answered else await self._answer(row)
        except ProcessorError as error:
            await self._later(row, str(error))
            return
        if observations is None:
            return
        try:
            answered = await self._record(row, observations)
        except Exception as error:
            if is_transient(error):
                raise
            # An answer that no transaction takes is asked for again later; the other questions go on.
            log.exception("question.not_recorded", intent=row.intent, kind=row.kind)
            await self._later(row, f"{type(error).__name__}: {error}")
            return
        if not answered:
            await self._later(row, "Stripe's answer settles nothing")

    async def _record(self, row: Row[Any], observations: Sequence[Observation]) -> bool:
        """Record what Stripe said; whether the question is answered, and then it is gone."""
        now = self._clock.now()
        async with self._database.transaction() as session:
            await record(session, observations, now)
            # A list of refunds may rightly differ from the hint by now; every other kind has to be settled.
            answered = row.kind == "refunds" or await _is_answered(session, row)
            if answered:
                await session.execute(_this(delete(LOOKUPS), row))
            if row.kind == "refunds" and observations:
                await request_capture_lookups(session, [row.intent], now + UNPLACED_AFTER)
            crash_point("payments.asker.before_commit")
        return answered

    async def _answer(self, row: Row[Any]) -> list[Observation] | None:
        """What Stripe says; None where the intent is foreign, and all that was kept of it is dropped."""
        if row.kind == "refunds":
            return await self._processor.list_refunds(row.intent)
        if row.kind == "doubts":
            refunds = await self._processor.list_refunds(row.intent)
            return refunds + await self._processor.list_disputes(row.intent)
        async with self._database.reading() as session:
            facts = (await read_facts(session, FACTS.c.intent == row.intent)).values()
        unplaced = [fact.observation for fact in facts if fact.payment_id is None]
        if len(unplaced) < len(facts):
            return unplaced  # the capture is known by now: recording them again gives them its payment
        capture = await self._processor.find_capture(row.intent)
        if isinstance(capture, Foreign):
            if not self._hold_foreign and await self._disown(row.intent):
                return None
            capture = capture.capture
        if capture is None:
            raise Refused("Stripe knows of no capture")
        return [capture]

    async def _disown(self, intent: str) -> bool:
        async with self._database.transaction() as session:
            return await drop_foreign_facts(session, intent)

    async def _later(self, row: Row[Any], reason: str) -> None:
        """Ask again, ever more patiently; past the bound give up and say so (the facts stay)."""
        tries = row.tries + 1
        log.warning("question.unanswered", intent=row.intent, kind=row.kind, tries=tries, reason=reason)
        pause = min(timedelta(seconds=2.0**tries), MAX_RETRY_DELAY)
        async with self._database.transaction() as session:
            if tries >= MAX_TRIES:
                await session.execute(_this(delete(LOOKUPS), row))
                log.error("question.given_up", intent=row.intent, kind=row.kind)
            else:
                later = _this(update(LOOKUPS), row)
                await session.execute(later.values(tries=tries, ask_at=self._clock.now() + pause))


def _this(statement: Any, row: Row[Any]) -> Any:
    """`statement` on the question as it was read: one asked anew meanwhile is not answered yet."""
    return statement.where(
        LOOKUPS.c.intent == row.intent,
        LOOKUPS.c.kind == row.kind,
        LOOKUPS.c.ask_at == row.ask_at,
        LOOKUPS.c.expected.is_not_distinct_from(row.expected),
    )


async def _is_answered(session: AsyncSession, row: Row[Any]) -> bool:
    """Whether our facts already say what was to be asked."""
    if row.kind == "doubts":
        return not await estimates.are_open(session, row.intent)
    facts = await read_facts(session, FACTS.c.intent == row.intent)
    if row.kind == "intent":
        return bool(facts) and all(fact.payment_id is not None for fact in facts.values())
    return bool(_refunded(row.intent, facts.values()) == row.expected)


async def _not_placed(observation: Observation, error: Exception) -> None:
    log.error("facts.not_placed", fact=observation.id, error=type(error).__name__, reason=str(error)[:300])


async def _placeable(session: AsyncSession) -> dict[str, StoredFact]:
    """Facts without a payment whose intent has one."""
    return await read_facts(session, FACTS.c.id.in_([row.id for row in await session.execute(PLACEABLE)]))


PLACEABLE: Final = (
    select(FACTS.c.id)
    .where(
        FACTS.c.payment_id.is_(None),
        FACTS.c.intent.is_not(None),
        select(PAYMENTS.c.id).where(PAYMENTS.c.intent == FACTS.c.intent).exists(),
    )
    .limit(PLACE_BATCH)
)
"""Read each minute: by the index of the facts without a payment, which are few."""


def _refunded(intent: str, facts: Iterable[StoredFact]) -> int:
    observations = (fact.observation for fact in facts if fact.observation.intent == intent)
    return sum(counts(observation) for observation in observations if observation.kind is FactKind.REFUND)


async def pending_refund_lookups(session: AsyncSession) -> int:
    """How many readings of refunds are still to be done."""
    counted = select(func.count()).select_from(LOOKUPS).where(LOOKUPS.c.kind == "refunds")
    return (await session.execute(counted)).scalar_one()
