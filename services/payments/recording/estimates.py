"""Facts whose counted amount is an estimate: logged once, looked up at Stripe, exported as a metric.

A refund or dispute that may be real is subtracted before Stripe has reported its amount
(domain.EstimateReason). The next event or Stripe's response (reconciliation/lookups.py) corrects it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select

from backbone.database.transaction import Transaction
from services.payments.domain import EstimateReason
from services.payments.statements import upsert
from services.payments.tables import FACTS, LOOKUPS

LOOK_UP_AFTER: Final = timedelta(seconds=2)
"""The event that replaces the estimate usually arrives within this time."""

log = structlog.get_logger()

_ESTIMATES: Final = Gauge(
    "ataa_facts_in_doubt", "Refunds and disputes whose counted amount is an estimate.", ["why"]
)
for _reason in EstimateReason:
    _ESTIMATES.labels(_reason).set(0)


@dataclass(frozen=True, slots=True)
class NewEstimate:
    """A fact whose counted amount has just become an estimate of `units`."""

    fact_id: str
    intent: str
    payment_id: str
    reason: EstimateReason
    units: int
    currency: str


async def note(session: Transaction, new_estimates: Iterable[NewEstimate], at: datetime) -> None:
    """Log new estimates, and schedule a lookup of their payment intents."""
    intents: set[str] = set()
    for each in new_estimates:
        log.warning(
            "payment.fact_in_doubt", fact=each.fact_id, payment=each.payment_id, reason=each.reason,
            counted=each.units, currency=each.currency,
        )  # fmt: skip
        intents.add(each.intent)
    if intents:
        rows = [
            {"intent": intent, "kind": "doubts", "tries": 0, "ask_at": at + LOOK_UP_AFTER}
            for intent in sorted(intents)
        ]
        updated = ("tries", "ask_at")
        await session.execute(upsert(session, LOOKUPS, ("intent", "kind"), updated), rows)


async def are_open(session: Transaction, intent: str) -> bool:
    """Whether any fact of an intent is an estimate, or a dispute of it was stored without `told_at`.

    Earlier versions did not store it. Such a dispute is read once, so that older events cannot undo it.
    """
    untimed = (FACTS.c.kind == "dispute") & FACTS.c.told_at.is_(None)
    found = await session.execute(
        select(FACTS.c.id).where(FACTS.c.intent == intent, FACTS.c.doubt.is_not(None) | untimed).limit(1)
    )
    return found.first() is not None


async def count(session: Transaction) -> dict[str, int]:
    """The number of estimates by reason; sets the metric."""
    found = {str(reason): int(number) for reason, number in await session.execute(ESTIMATES_BY_REASON)}
    for reason in EstimateReason:
        _ESTIMATES.labels(reason).set(found.get(reason, 0))
    return found


ESTIMATES_BY_REASON: Final = (
    select(FACTS.c.doubt, func.count()).where(FACTS.c.doubt.is_not(None)).group_by(FACTS.c.doubt)
)
"""Read each minute, through the partial index `facts_in_doubt`."""
