"""Requests for lookups at Stripe: what a webhook only hinted at, and facts without a payment.

`reconciliation/lookups.py` runs them. They are stored in the transaction that records the facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.domain import FactKind, counts
from services.payments.recording.rows import StoredFact, read_facts
from services.payments.statements import insert_new, upsert
from services.payments.stripe.objects import NOT_REPORTED
from services.payments.tables import FACTS, LOOKUPS

UNPLACED_AFTER: Final = timedelta(minutes=10)
"""How long a refund or dispute waits for the capture's own webhook before its intent is looked up."""


_ASKED: Final = select(LOOKUPS.c.intent, LOOKUPS.c.expected).where(
    one_of(LOOKUPS.c.intent, "intents"), LOOKUPS.c.kind == "refunds"
)
_UNPLACED: Final = select(FACTS.c.intent).where(
    FACTS.c.payment_id.is_(None), one_of(FACTS.c.intent, "intents")
)


async def request_refunds_lookup(session: Transaction, hints: Mapping[str, int], ask_at: datetime) -> None:
    """Request lookups of the refunds of intents; `hints` has the refunded sum that Stripe reports of each.

    Hints arrive in any order, and the sum falls when a refund fails. Where a hint contradicts another that is
    not settled yet, neither is used, and the refunds are looked up whatever they add up to.
    """
    if not hints:
        return
    facts = await read_facts(session, intents=hints)
    before = {row.intent: row.expected for row in await session.execute(_ASKED, {"intents": hints})}
    rows = [
        {
            "intent": intent,
            "kind": "refunds",
            "expected": refunded if before.get(intent, refunded) == refunded else NOT_REPORTED,
            "tries": 0,
            "ask_at": ask_at,
        }
        for intent, refunded in hints.items()
        if refunded_units(intent, facts.values()) != refunded or before.get(intent, refunded) != refunded
    ]
    if not rows:
        return
    updated = ("expected", "tries", "ask_at")
    await session.execute(upsert(session, LOOKUPS, ("intent", "kind"), updated), rows)


async def request_capture_lookups(session: Transaction, intents: Collection[str], ask_at: datetime) -> None:
    """Request a lookup of those `intents` that have facts without a payment."""
    if not intents:
        return
    found = {row.intent for row in await session.execute(_UNPLACED, {"intents": intents})}
    if not found:
        return
    rows = [{"intent": each, "kind": "intent", "tries": 0, "ask_at": ask_at} for each in found]
    await session.execute(insert_new(session, LOOKUPS), rows)


def refunded_units(intent: str, facts: Iterable[StoredFact]) -> int:
    """The sum of an intent's refunds that count, among `facts`."""
    observations = (fact.observation for fact in facts if fact.observation.intent == intent)
    return sum(counts(observation) for observation in observations if observation.kind is FactKind.REFUND)
