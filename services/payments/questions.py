"""What Stripe must be asked, because a webhook only hinted at it or cannot be placed.

`charge.refunded` only prompts a read of the refunds; a refund or dispute of a payment intent
nobody knows is kept, and after ten minutes Stripe is asked for the intent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.clock import Clock
from backbone.database import Database
from services.payments.commands import BookedFact, read_facts, record
from services.payments.domain import FactKind, Finding, counts
from services.payments.foreign import disown
from services.payments.processor import Foreign, Processor, ProcessorError, Refused
from services.payments.statements import inserting_new, upserting
from services.payments.tables import FACTS, QUESTIONS
from services.payments.waking import wait_for

BATCH: Final = 20
POLL_S: Final = 0.5
MAX_TRIES: Final = 30
SLOWEST: Final = timedelta(hours=1)
UNPLACED_AFTER: Final = timedelta(minutes=10)
"""How long a refund or dispute waits for the capture's own webhook before Stripe is asked for its intent."""

log = structlog.get_logger()


async def ask_refunds(session: AsyncSession, hints: Mapping[str, int], ask_at: datetime) -> None:
    """Have the refunds of these intents read; `hints` is what Stripe says is refunded, an intent."""
    if not hints:
        return
    facts = await read_facts(session, FACTS.c.intent.in_(hints))
    rows = [
        {"intent": intent, "kind": "refunds", "expected": refunded, "tries": 0, "ask_at": ask_at}
        for intent, refunded in hints.items()
        if _refunded(intent, facts.values()) != refunded
    ]
    if not rows:
        return
    told = ("expected", "tries", "ask_at")
    await session.execute(upserting(session, QUESTIONS, ("intent", "kind"), told), rows)


async def ask_unplaced(session: AsyncSession, intents: Collection[str], ask_at: datetime) -> None:
    """Have those of `intents` asked for whose facts belong to no payment we know."""
    if not intents:
        return
    unplaced = select(FACTS.c.intent).where(FACTS.c.payment_id.is_(None), FACTS.c.intent.in_(intents))
    found = {row.intent for row in await session.execute(unplaced)}
    if not found:
        return
    rows = [{"intent": each, "kind": "intent", "tries": 0, "ask_at": ask_at} for each in found]
    await session.execute(inserting_new(session, QUESTIONS), rows)


class Asker:
    """Asks Stripe what is due, and records the answers as facts."""

    def __init__(
        self, database: Database, processor: Processor, clock: Clock, *, hold_foreign: bool = False
    ) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock
        self._hold_foreign = hold_foreign

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        while not stop.is_set():
            if not await self.ask_due():
                await wait_for(stop, POLL_S)

    async def ask_due(self) -> int:
        """Ask what is due now; how much there was."""
        due = select(QUESTIONS).where(QUESTIONS.c.ask_at <= self._clock.now()).limit(BATCH)
        async with self._database.reading() as session:
            rows = (await session.execute(due.order_by(QUESTIONS.c.ask_at))).all()
        for row in rows:
            await self._ask(row)
        return len(rows)

    async def _ask(self, row: Row[Any]) -> None:
        async with self._database.reading() as session:
            answered = await _is_answered(session, row)
        try:
            findings = [] if answered else await self._answer(row)
        except ProcessorError as error:
            await self._later(row, str(error))
            return
        now = self._clock.now()
        async with self._database.transaction() as session:
            await record(session, findings, now)
            await session.execute(_this(delete(QUESTIONS), row))
            if row.kind == "refunds" and findings:
                await ask_unplaced(session, [row.intent], now + UNPLACED_AFTER)

    async def _answer(self, row: Row[Any]) -> list[Finding]:
        if row.kind == "refunds":
            return await self._processor.list_refunds(row.intent)
        capture = await self._processor.find_capture(row.intent)
        if isinstance(capture, Foreign):
            if not self._hold_foreign and await self._disown(row.intent):
                return []
            capture = capture.capture
        if capture is None:
            raise Refused("Stripe knows of no capture")
        return [capture]

    async def _disown(self, intent: str) -> bool:
        async with self._database.transaction() as session:
            return await disown(session, intent)

    async def _later(self, row: Row[Any], reason: str) -> None:
        """Ask again, ever more patiently; past the bound give up and say so (the facts stay)."""
        tries = row.tries + 1
        log.warning("question.unanswered", intent=row.intent, kind=row.kind, tries=tries, reason=reason)
        pause = min(timedelta(seconds=2.0**tries), SLOWEST)
        async with self._database.transaction() as session:
            if tries >= MAX_TRIES:
                await session.execute(_this(delete(QUESTIONS), row))
                log.error("question.given_up", intent=row.intent, kind=row.kind)
            else:
                later = _this(update(QUESTIONS), row)
                await session.execute(later.values(tries=tries, ask_at=self._clock.now() + pause))


def _this(statement: Any, row: Row[Any]) -> Any:
    """`statement` on the question as it was read: one asked anew meanwhile is not answered yet."""
    return statement.where(
        QUESTIONS.c.intent == row.intent,
        QUESTIONS.c.kind == row.kind,
        QUESTIONS.c.ask_at == row.ask_at,
        QUESTIONS.c.expected.is_not_distinct_from(row.expected),
    )


async def _is_answered(session: AsyncSession, row: Row[Any]) -> bool:
    """Whether our facts already say what was to be asked."""
    facts = await read_facts(session, FACTS.c.intent == row.intent)
    if row.kind == "intent":
        return row.intent in facts
    return bool(_refunded(row.intent, facts.values()) == row.expected)


def _refunded(intent: str, facts: Iterable[BookedFact]) -> int:
    findings = (fact.finding for fact in facts if fact.finding.intent == intent)
    return sum(counts(finding) for finding in findings if finding.kind is FactKind.REFUND)


async def open_questions(session: AsyncSession) -> int:
    """How many readings of refunds are still to be done."""
    counted = select(func.count()).select_from(QUESTIONS).where(QUESTIONS.c.kind == "refunds")
    return (await session.execute(counted)).scalar_one()
