"""Payments' part of the story of a gift: ticket, checkout, webhooks, facts, postings, refunds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy import bindparam, select

from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from backbone.http.caller import InternalDep
from backbone.http.trace_steps import GiftRef, Step, Story, money, step
from services.payments.approvals.states import Action
from services.payments.approvals.tables import APPROVALS
from services.payments.domain import DisputeRank, FactKind, RefundRank
from services.payments.large_refunds.tables import LARGE_REFUNDS
from services.payments.tables import ATTEMPTS, FACTS, PAYMENTS, POSTINGS, REFUNDS, WEBHOOKS

BEFORE: Final = timedelta(minutes=10)
"""A webhook that reported a fact is looked for among those stored so long before the fact was recorded."""
AFTER: Final = timedelta(minutes=1)
MAX_WEBHOOKS: Final = 5_000
"""Webhooks that are searched for each fact."""
PAGE: Final = 500
MAX_ATTEMPTS: Final = 50
_STATES: Final = ("waiting", "applied", "quarantined", "ignored")


def tell(transaction: SyncTransaction, pledge_id: str) -> Story:
    """Everything that payments stores about a pledge's payments; bounded searches only."""
    payments = transaction.execute(_PAYMENTS, {"of_pledge": pledge_id}).all()
    if not payments:
        return Story(known=False)
    ids, intents = [row.id for row in payments], [row.intent for row in payments if row.intent]
    facts = transaction.execute(_FACTS, {"intents": intents}).all()
    sessions = [row.session_id for row in payments if row.session_id]
    steps = [
        *_of_payments(payments),
        *_of_attempts(transaction.execute(_ATTEMPTS, {"keys": _attempt_keys(payments)}).all()),
        *_of_webhooks(transaction, facts, [*intents, *sessions, *(fact.id for fact in facts)]),
        *_of_facts(facts),
        *_of_refunds(transaction.execute(_REFUNDS, {"ids": ids}).all()),
        *_of_approvals(transaction.execute(_APPROVALS, {"ids": ids}).all()),
        *_of_postings(transaction.execute(_POSTINGS, {"ids": ids}).all()),
        *_announced(payments),
    ]
    return Story(known=True, drive=payments[0].drive_id, payments=ids, steps=steps)


_PAYMENTS: Final = (
    # Labelled: rows of PostgreSQL's driver have the names of columns, and this one's is another (`nth`).
    select(PAYMENTS, PAYMENTS.c.capture_index.label("capture"))
    .where(PAYMENTS.c.pledge_id == bindparam("of_pledge"))
    .order_by(PAYMENTS.c.capture_index)
)
_ATTEMPTS: Final = select(ATTEMPTS).where(one_of(ATTEMPTS.c.key, "keys")).order_by(ATTEMPTS.c.made_at)
_FACTS: Final = select(FACTS).where(one_of(FACTS.c.intent, "intents")).order_by(FACTS.c.heard_at, FACTS.c.id)
_REFUNDS: Final = (
    select(REFUNDS, LARGE_REFUNDS.c.made_at.label("asked_at"))
    .join_from(REFUNDS, LARGE_REFUNDS, LARGE_REFUNDS.c.id == REFUNDS.c.id, isouter=True)
    .where(one_of(REFUNDS.c.payment_id, "ids"))
    .order_by(REFUNDS.c.made_at)
)
_APPROVALS: Final = (
    select(APPROVALS)
    .join_from(APPROVALS, LARGE_REFUNDS, APPROVALS.c.subject == LARGE_REFUNDS.c.id)
    .where(one_of(LARGE_REFUNDS.c.payment_id, "ids"))
    .order_by(APPROVALS.c.number)
)
_POSTINGS: Final = select(POSTINGS).where(one_of(POSTINGS.c.payment_id, "ids")).order_by(POSTINGS.c.number)


def _attempt_keys(payments: Sequence[Any]) -> list[str]:
    return [f"{row.id}.{n}" for row in payments for n in range(1, min(row.attempts, MAX_ATTEMPTS) + 1)]


def _of_payments(payments: Sequence[Any]) -> Iterator[Step]:
    for row in payments:
        what = "the pledge's payment" if row.capture == 0 else "a further capture on the pledge, a payment"
        zakat = "; it is zakat, posted to accounts of its own" if row.zakat else ""
        yield step(
            row.made_at, f"{what} of its own: {row.id}, ticket {row.number} of the checkout queue{zakat}"
        )


def _of_attempts(attempts: Sequence[Any]) -> Iterator[Step]:
    for row in attempts:
        yield step(row.made_at, f"checkout attempt {row.n} of {row.payment_id} was sent to Stripe")
        if row.done_at is not None:
            opened = f" as {row.session_id}" if row.session_id else ""
            yield step(row.done_at, f"checkout attempt {row.n} ended: {row.state}{opened}")


def _of_facts(facts: Sequence[Any]) -> Iterator[Step]:
    for fact in facts:
        status = ""
        if fact.kind == FactKind.REFUND:
            status = f", {RefundRank(fact.rank).name.lower()} now"
        elif fact.kind == FactKind.DISPUTE:
            status = f", {DisputeRank(fact.rank).name.lower()} now"
        yield step(
            fact.heard_at,
            f"fact recorded: {fact.kind} {fact.id} of {money(fact.units, fact.currency)}{status},"
            f" at Stripe on {fact.at:%Y-%m-%d %H:%M:%S} UTC",
        )


def _of_refunds(refunds: Sequence[Any]) -> Iterator[Step]:
    for row in refunds:
        stripe_id = f" as {row.stripe_id}" if row.stripe_id else ""
        amount = money(row.units, row.currency)
        asked = row.asked_at or row.made_at  # one that a second key approved is made when it is
        yield step(asked, f"refund {row.id} of {amount} was asked for here: {row.state} now{stripe_id}")


_DONE: Final = {
    Action.RECORD: "asked for it; it needs a second key",
    Action.APPROVE: "approved it",
    Action.REJECT: "rejected it",
}


def _of_approvals(rows: Sequence[Any]) -> Iterator[Step]:
    for row in rows:
        yield step(row.at, f"refund {row.subject}: key {row.key_id} {_DONE[Action(row.action)]}")


def _of_postings(postings: Sequence[Any]) -> Iterator[Step]:
    for row in postings:
        amount = money(row.units, row.currency)
        yield step(
            row.posted_at, f"posting {row.number}: {amount} from {row.credit} to {row.debit}, for {row.cause}"
        )


def _announced(payments: Sequence[Any]) -> Iterator[Step]:
    for row in payments:
        if row.version:
            held = ", held" if row.held else ""
            yield step(
                row.changed_at, f"payment_changed version {row.version} of {row.id}: {row.status}{held}"
            )


def _of_webhooks(transaction: SyncTransaction, facts: Sequence[Any], names: Sequence[str]) -> Iterator[Step]:
    """The webhooks that name one of Stripe's ids, stored around the time when the facts were recorded."""
    sought = [name.encode() for name in names]
    seen: set[int] = set()
    for fact in facts:
        for row in _stored_around(transaction, fact.heard_at):
            if row.number not in seen and any(name in row.body for name in sought):
                seen.add(row.number)
                state = _STATES[row.state] if row.state < len(_STATES) else str(row.state)
                yield step(row.received_at, f"webhook {row.event_id} ({row.type}) was received: {state} now")


def _stored_around(transaction: SyncTransaction, at: datetime) -> Iterator[Any]:
    number = _first_number(transaction, at - BEFORE)
    for _ in range(MAX_WEBHOOKS // PAGE):
        page = transaction.execute(_WEBHOOKS, {"first": number, "most": PAGE}).all()
        for row in page:
            if row.received_at > at + AFTER:
                return
            yield row
        if len(page) < PAGE:
            return
        number = page[-1].number + 1


def _first_number(transaction: SyncTransaction, at: datetime) -> int:
    """The number of about the first webhook received at `at` or later: they are numbered as they arrive."""
    low, high = 1, int(transaction.execute(_LAST).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        row = transaction.execute(_WEBHOOKS, {"first": middle, "most": 1}).first()
        if row is None or row.received_at >= at:
            high = middle
        else:
            low = row.number + 1
    return low


_LAST: Final = select(WEBHOOKS.c.number).order_by(WEBHOOKS.c.number.desc()).limit(1)
_WEBHOOKS: Final = (
    select(
        WEBHOOKS.c.number, WEBHOOKS.c.event_id, WEBHOOKS.c.type, WEBHOOKS.c.state, WEBHOOKS.c.received_at,
        WEBHOOKS.c.body,
    )
    .where(WEBHOOKS.c.number >= bindparam("first"))
    .order_by(WEBHOOKS.c.number)
    .limit(bindparam("most"))
)  # fmt: skip


def trace_routes(database: Database) -> APIRouter:
    """`/internal/trace`."""
    router = APIRouter(include_in_schema=False)

    @router.post("/internal/trace")
    async def trace(_caller: InternalDep, gift: GiftRef) -> Story:
        return await database.read_whole(lambda one: tell(one, gift.pledge))

    return router
