"""Lookups at Stripe of what a webhook only hinted at, or what cannot be assigned to a payment.

A `charge.refunded` event requests a lookup of the refunds (`recording/lookup_requests.py`). A refund or
dispute whose payment intent is unknown is stored, and after ten minutes the intent is looked up. While the
counted amount of a refund or dispute is an estimate, both are looked up. The intent of an early fraud warning
without a payment is looked up too, and so is the session of a capture through a Payment Link that its intent
reported first (`recording/link_captures.py`).

A lookup of an intent is settled once every fact of it has its payment. Besides, facts without a payment
whose intent has one are assigned to it each minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Row, bindparam, delete, func, select, update

from backbone.bisection import bisect
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from services.payments.domain import FactKind, Observation
from services.payments.processor import Foreign, Processor, ProcessorError, Refused
from services.payments.recording import estimates
from services.payments.recording.link_captures import SESSION
from services.payments.recording.lookup_requests import (
    UNPLACED_AFTER,
    refunded_units,
    request_capture_lookups,
)
from services.payments.recording.record import record
from services.payments.recording.rows import StoredFact, read_facts
from services.payments.recording.warnings import WARNED
from services.payments.tables import FACTS, LOOKUPS, PAYMENTS
from services.payments.webhooks.foreign import drop_foreign_facts

BATCH: Final = 20
MAX_TRIES: Final = 30
"""After so many failures a lookup is given up: it is deleted, and the facts stay as they are."""

SESSION_RETRY: Final = timedelta(hours=1)
RETRY_AFTER: Final = exponential(2.0, 3_600.0, MAX_TRIES)
PLACE_S: Final = 60.0
PLACE_BATCH: Final = 200

_DUE: Final = (
    select(LOOKUPS).where(LOOKUPS.c.ask_at <= bindparam("now")).order_by(LOOKUPS.c.ask_at).limit(BATCH)
)

log = structlog.get_logger()


class Reconciler:
    """Runs the lookups that are due, and records the answers as facts."""

    def __init__(
        self, database: Database, processor: Processor, clock: Clock, *, hold_foreign: bool = False
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._place_at = float("-inf")
        self._hold_foreign = hold_foreign
        self.work = DurableWork("payments.asker", self, retry_after=RETRY_AFTER, one_by_one=True)

    async def run(self, stop: asyncio.Event) -> None:
        """Look up what is due, and place facts each minute, until `stop`."""
        await self.work.run(stop)

    async def place_left_facts(self) -> int:
        """Assign facts without a payment to the payment of their intent, if it has one; how many.

        A fact that cannot be recorded is reported, and stays as it is.
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

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`. From time to time facts are placed first: that may answer a lookup."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._place_at:
            placed = await self.place_left_facts()
            self._place_at = loop.time() + (PLACE_S if placed < PLACE_BATCH else 0.0)
        return await self.due()

    async def due(self) -> Sequence[Row[Any]]:
        """Read the lookups that are due, a batch at most."""
        async with self._database.reading() as session:
            return (await session.execute(_DUE, {"now": self._clock.now()})).all()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`: ask Stripe, and record the answers as facts."""
        failed = []
        for row in batch:
            try:
                if not await self._look_up(row):
                    failed.append(Failed(row, "Stripe's answer settles nothing"))
            except ProcessorError as error:
                failed.append(Failed(row, str(error)))
        return failed

    async def _look_up(self, row: Row[Any]) -> bool:
        """Do one lookup, unless our facts answer it by now; return whether it was answered."""
        async with self._database.reading() as session:
            answered = await _is_answered(session, row)
        observations = [] if answered else await self._answer(row)
        return observations is None or await self._record(row, observations)

    def label(self, item: Row[Any]) -> str:
        """See `WorkQueue`."""
        return f"{item.kind} {item.intent}"

    def failures(self, item: Row[Any]) -> int:
        """See `WorkQueue`."""
        return int(item.tries)

    async def retry(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`."""
        ask_at = self._clock.now() + (failure.delay or timedelta())
        async with self._database.transaction() as session:
            await session.execute(_this(update(LOOKUPS), item).values(tries=failure.attempts, ask_at=ask_at))

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`. The lookup is given up; the facts it was about stay.

        A capture through a Payment Link is recorded nowhere else: its session is looked up for ever.
        """
        if item.kind == SESSION:
            await self.retry(item, replace(failure, delay=SESSION_RETRY))
            return
        async with self._database.transaction() as session:
            await session.execute(_this(delete(LOOKUPS), item))

    async def _record(self, row: Row[Any], observations: Sequence[Observation]) -> bool:
        """Record Stripe's answer; whether it settles the lookup, which is then deleted."""
        now = self._clock.now()
        async with self._database.transaction() as session:
            await record(session, observations, now)
            # A list of refunds may differ from the hint by now; every other kind has to settle the lookup.
            answered = row.kind == "refunds" or await _is_answered(session, row)
            if answered:
                await session.execute(_this(delete(LOOKUPS), row))
            if row.kind == "refunds" and observations:
                await request_capture_lookups(session, [row.intent], now + UNPLACED_AFTER)
            crash_point("payments.asker.before_commit")
        return answered

    async def _answer(self, row: Row[Any]) -> list[Observation] | None:
        """Stripe's answer; None where the intent is foreign, and its facts were deleted."""
        if row.kind == "refunds":
            return await self._processor.list_refunds(row.intent)
        if row.kind == "doubts":
            refunds = await self._processor.list_refunds(row.intent)
            return refunds + await self._processor.list_disputes(row.intent)
        async with self._database.reading() as session:
            facts = (await read_facts(session, intents=[row.intent])).values()
        unplaced = [fact.observation for fact in facts if fact.payment_id is None]
        if len(unplaced) < len(facts):
            return unplaced  # the capture is known by now: recording them again assigns them to its payment
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


def _this(statement: Any, row: Row[Any]) -> Any:
    """`statement` on the lookup as it was read: one requested again meanwhile is not settled yet."""
    return statement.where(
        LOOKUPS.c.intent == row.intent,
        LOOKUPS.c.kind == row.kind,
        LOOKUPS.c.ask_at == row.ask_at,
        LOOKUPS.c.expected.is_not_distinct_from(row.expected),
    )


async def _is_answered(session: Transaction, row: Row[Any]) -> bool:
    """Whether our facts already answer the lookup."""
    if row.kind == "doubts":
        return not await estimates.are_open(session, row.intent)
    facts = await read_facts(session, intents=[row.intent])
    if row.kind in (WARNED, SESSION):  # the record of the capture marked the payment, or found its pledge
        return any(fact.observation.kind is FactKind.CAPTURE for fact in facts.values())
    if row.kind == "intent":
        return bool(facts) and all(fact.payment_id is not None for fact in facts.values())
    return bool(refunded_units(row.intent, facts.values()) == row.expected)


async def _not_placed(observation: Observation, error: Exception) -> None:
    log.error("facts.not_placed", fact=observation.id, error=type(error).__name__, reason=str(error)[:300])


async def _placeable(session: Transaction) -> dict[str, StoredFact]:
    """Facts without a payment whose intent has one."""
    return await read_facts(session, ids=[row.id for row in await session.execute(PLACEABLE)])


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


async def pending_lookups(session: Transaction) -> int:
    """How many lookups of refunds, and of sessions of captures, are pending."""
    counted = select(func.count()).select_from(LOOKUPS).where(LOOKUPS.c.kind.in_(("refunds", SESSION)))
    return int((await session.execute(counted)).scalar_one())
