"""Facts whose counted amount is an estimate: logged once, asked about, and shown as a metric.

A refund or dispute that may be real leaves the total before Stripe has said how much it took
(domain.Doubt). The next event or Stripe's answer (questions.py) corrects it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import EstimateReason
from services.payments.statements import upsert
from services.payments.tables import FACTS, LOOKUPS

ASK_AFTER: Final = timedelta(seconds=2)
"""Gives the event that settles a doubt a moment to come first."""

log = structlog.get_logger()

_DOUBTS: Final = Gauge(
    "ataa_facts_in_doubt", "Refunds and disputes whose counted amount is an estimate.", ["why"]
)
for _doubt in EstimateReason:
    _DOUBTS.labels(_doubt).set(0)


@dataclass(frozen=True, slots=True)
class NewEstimate:
    """A fact that has just come into doubt, and the units counted for it meanwhile."""

    fact_id: str
    intent: str
    payment_id: str
    reason: EstimateReason
    units: int
    currency: str


async def note(session: AsyncSession, new_estimates: Iterable[NewEstimate], at: datetime) -> None:
    """Log facts that came into doubt, and have Stripe asked about their intents soon."""
    intents: set[str] = set()
    for each in new_estimates:
        log.warning(
            "payment.fact_in_doubt", fact=each.fact_id, payment=each.payment_id, reason=each.reason,
            counted=each.units, currency=each.currency,
        )  # fmt: skip
        intents.add(each.intent)
    if intents:
        rows = [
            {"intent": intent, "kind": "doubts", "tries": 0, "ask_at": at + ASK_AFTER}
            for intent in sorted(intents)
        ]
        told = ("tries", "ask_at")
        await session.execute(upsert(session, LOOKUPS, ("intent", "kind"), told), rows)


async def are_open(session: AsyncSession, intent: str) -> bool:
    """Whether any fact of an intent is in doubt, or a dispute of it was stored without its time.

    Versions before kept no time; such a dispute is read once, so that older events cannot undo it.
    """
    untimed = (FACTS.c.kind == "dispute") & FACTS.c.told_at.is_(None)
    found = await session.execute(
        select(FACTS.c.id).where(FACTS.c.intent == intent, FACTS.c.doubt.is_not(None) | untimed).limit(1)
    )
    return found.first() is not None


async def count(session: AsyncSession) -> dict[str, int]:
    """How many facts are in doubt, by reason; sets the metric."""
    found = {str(reason): int(number) for reason, number in await session.execute(ESTIMATES_BY_REASON)}
    for reason in EstimateReason:
        _DOUBTS.labels(reason).set(found.get(reason, 0))
    return found


ESTIMATES_BY_REASON: Final = (
    select(FACTS.c.doubt, func.count()).where(FACTS.c.doubt.is_not(None)).group_by(FACTS.c.doubt)
)
"""Read each minute: by the index of the facts in doubt, which are few."""
