"""Attempts to open a checkout, as stored: taking tickets, storing attempts, recording outcomes.

Functions that take a session do their work in its transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, insert, update

from backbone.contracts.payments import PaymentStatus
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.checkout.session_finder import CLOCK_SKEW
from services.payments.processor import OpenedCheckout
from services.payments.recording.restate import restate
from services.payments.recording.rows import PaymentRow, read_facts, read_payments
from services.payments.statements import lock_payments
from services.payments.tables import ATTEMPTS, PAYMENTS

MAX_ATTEMPTS: Final = 4
"""One with every parameter, and one after each parameter that a checkout may be refused for."""


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


async def store_attempts(
    session: Transaction, attempts: Sequence[AttemptOutcome], now: datetime
) -> list[AttemptOutcome]:
    """Store the attempts whose tickets still wait; those that have a reason have failed already."""
    waiting = await _take_tickets(session, [each.sent.payment_id for each in attempts])
    stored = [each for each in attempts if each.sent.payment_id in waiting]
    await _insert_attempts(session, stored)
    if failed := [each.sent.payment_id for each in stored if each.reason is not None]:
        await session.execute(_SET_CHECKOUT, {"ids": failed, "to_checkout": "failed"})
        await _lapse(session, failed, now)
    return stored


async def record_outcomes(session: Transaction, outcomes: Sequence[AttemptOutcome], now: datetime) -> None:
    """Record outcomes: an open checkout, a ticket to be tried anew, or a failed one, whose pledge lapses."""
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
            await _lapse_failed(session, [payment_id for payment_id, _ in failed], now)


async def mark_quarantined(
    session: Transaction, attempt: SentAttempt, reason: str, now: datetime, *, lapse: bool
) -> None:
    """Mark an attempt as quarantined and its checkout as failed; `lapse`: its pledge lapses."""
    payment = attempt.payment_id
    await lock_payments(session, [payment])
    await session.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.key == attempt.key)
        .values(state="quarantined", reason=reason, done_at=now)
    )
    await session.execute(
        update(PAYMENTS)
        .where(PAYMENTS.c.id == payment, PAYMENTS.c.checkout.in_(("waiting", "opening")))
        .values(checkout="failed")
    )
    if lapse:
        await _lapse_failed(session, [payment], now)


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
    # Recorded twice (the worker was restarted), an outcome must not lead to a second new attempt.
    .where(PAYMENTS.c.id == bindparam("at_id"), PAYMENTS.c.attempts == bindparam("at_attempt"))
    .where(PAYMENTS.c.checkout == "opening")
    .values(checkout=bindparam("to_checkout"))
)


_TAKE_TICKETS: Final = (
    update(PAYMENTS)
    .where(one_of(PAYMENTS.c.id, "ids"), PAYMENTS.c.checkout == "waiting")
    .where(PAYMENTS.c.status == PaymentStatus.AWAITED.value, ~PAYMENTS.c.cancelled)
    .values(checkout="opening", attempts=PAYMENTS.c.attempts + 1)
    .returning(PAYMENTS.c.id)
)
_DROP_TICKETS: Final = (
    update(PAYMENTS)
    .where(one_of(PAYMENTS.c.id, "ids"), PAYMENTS.c.checkout == "waiting")
    .values(checkout="none")
)
_SET_CHECKOUT: Final = (
    update(PAYMENTS).where(one_of(PAYMENTS.c.id, "ids")).values(checkout=bindparam("to_checkout"))
)


async def _take_tickets(session: Transaction, payments: Sequence[str]) -> set[str]:
    """Those of `payments` whose tickets still wait, now being opened; the others need no checkout."""
    await lock_payments(session, payments)
    still = {each for (each,) in await session.execute(_TAKE_TICKETS, {"ids": payments})}
    if overtaken := [each for each in payments if each not in still]:
        await session.execute(_DROP_TICKETS, {"ids": overtaken})
    return still


async def _insert_attempts(session: Transaction, attempts: Sequence[AttemptOutcome]) -> None:
    if not attempts:
        return
    rows = [
        {"key": each.sent.key, "payment_id": each.sent.payment_id, "n": each.sent.n,
         "state": "sent" if each.reason is None else "failed",
         "parameters": json.dumps(each.sent.parameters), "refused": each.refused, "reason": each.reason,
         "made_at": each.sent.made_at, "done_at": None if each.reason is None else each.sent.made_at}
        for each in attempts
    ]  # fmt: skip
    await session.execute(_INSERT_ATTEMPTS, rows)


_INSERT_ATTEMPTS: Final = insert(ATTEMPTS)


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


def announces(outcome: AttemptOutcome, now: datetime) -> bool:
    """Whether recording an outcome may announce its payment: there is no checkout, or it may have ended."""
    return outcome.opened is None or outcome.opened.expires_at <= now + CLOCK_SKEW


async def _lapse_ended(session: Transaction, outcomes: Sequence[AttemptOutcome], now: datetime) -> None:
    """State payments whose session ended before we knew that it was theirs: one that has expired."""
    sessions = {
        each.opened.session_id: each.sent.payment_id
        for each in outcomes
        if each.opened and announces(each, now)
    }
    if not sessions:
        return
    if ended := await read_facts(session, ids=sessions):
        await _lapse(session, [sessions[each] for each in ended], now)


async def _lapse(session: Transaction, payments: Collection[str], now: datetime) -> None:
    """State payments that nobody can pay any more; money that came all the same counts."""
    await _end(session, list((await read_payments(session, ids=payments)).values()), now)


async def _lapse_failed(session: Transaction, payments: Collection[str], now: datetime) -> None:
    """`_lapse` those of `payments` whose checkout failed."""
    rows = await read_payments(session, ids=payments)
    await _end(session, [row for row in rows.values() if row.checkout == "failed"], now)


async def _end(session: Transaction, rows: Sequence[PaymentRow], now: datetime) -> None:
    for row in rows:
        row.ended = True
    facts = await read_facts(session, intents=[row.intent for row in rows if row.intent])
    await restate(session, rows, facts, now)
