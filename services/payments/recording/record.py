"""Recording observations of Stripe's objects as facts, and giving each fact its payment.

Everything here runs inside its caller's transaction, in multi-row statements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import bindparam, select, update

from backbone import ids
from backbone.contracts.payments import PaymentStatus
from backbone.database.transaction import Transaction
from services.payments.domain import NO_DRIVE, FactKind, LinkCapture, Observation, merge, merged
from services.payments.recording.link_captures import resolve_references, uncredited_payment
from services.payments.recording.restate import restate
from services.payments.recording.rows import PaymentRow, StoredFact, read_facts, read_payments, write_facts
from services.payments.recording.warnings import mark_captured
from services.payments.screening.record import find_suspected
from services.payments.statements import lock_intents
from services.payments.tables import PAYMENTS, REFUNDS

log = structlog.get_logger()

_FURTHER: Final = Counter("ataa_payments_again_total", "Further captures on a pledge that was paid before.")

ByIntent = dict[str | None, PaymentRow]


async def record(session: Transaction, observations: Iterable[Observation], at: datetime) -> set[str]:
    """Record observations as facts, and restate the payments they concern.

    Order and repetition do not matter. A capture without a payment creates one. A refund or dispute whose
    capture is unknown is stored, and placed once the capture is recorded. A capture through a Payment Link
    waits for its session's report (`link_captures.py`). Transactions that record facts of
    the same payment intent wait for each other, so neither overlooks what the other is about to commit.

    New captures that look like tested cards (screening/) are held, whoever reports them; what was captured
    before stays as it is.

    Returns those of the observations' intents that have facts without a payment.
    """
    reported = list(observations)
    await lock_intents(session, {each.intent for each in reported if each.intent})
    observed = merged(await resolve_references(session, reported, at))
    intents = {each.intent for each in observed.values() if each.intent}
    facts = await read_facts(session, ids=observed, intents=intents)
    if found := _unrecorded(observed, facts):
        await _record(session, found, facts, at)
    return intents & {fact.observation.intent for fact in facts.values() if fact.payment_id is None}


async def _record(
    session: Transaction,
    found: Mapping[str, Observation],
    facts: dict[str, StoredFact],
    at: datetime,
) -> None:
    """Record what adds to `facts`, the stored facts of its intents; they are brought up to date."""
    rows = await _payments_of(session, found.values())
    others = {row.intent for row in rows.values() if row.intent} - {each.intent for each in found.values()}
    facts |= await read_facts(session, intents=others)
    before = {each: replace(fact) for each, fact in facts.items()}
    for seen in found.values():
        known = facts.get(seen.id)
        facts[seen.id] = (
            StoredFact(seen) if known is None else replace(known, observation=merge(known.observation, seen))
        )
    by_intent: ByIntent = {row.intent: row for row in rows.values() if row.intent is not None}
    recorded = [facts[each] for each in found]
    new = await _assign_captures(session, recorded, rows, by_intent)
    captured = _newly_captured(recorded, by_intent)
    await _suspect(session, captured, at)
    concerned = {row.id: row for row in new} | _assign_others(recorded, rows, by_intent)
    await _confirm_refunds(session, found.values())
    await restate(session, list(concerned.values()), facts, at, new=frozenset(row.id for row in new))
    await mark_captured(session, [row for _, row in captured], at)
    await write_facts(session, [fact for each, fact in facts.items() if fact != before.get(each)], at)


def _unrecorded(found: Mapping[str, Observation], known: Mapping[str, StoredFact]) -> dict[str, Observation]:
    """Those of `found` that add to what is stored. Most webhooks repeat what an earlier one reported."""
    return {
        each: seen
        for each, seen in found.items()
        if each not in known
        or known[each].payment_id is None
        or merge(known[each].observation, seen) != known[each].observation
    }


async def _payments_of(session: Transaction, found: Collection[Observation]) -> dict[str, PaymentRow]:
    """The payments that observations name or whose intents they concern, locked in ticket order."""
    named = {each.payment_id for each in found if each.payment_id}
    intents = {each.intent for each in found if each.intent}
    pledges = {each.pledge_id for each in found if each.kind is FactKind.CAPTURE and each.pledge_id}
    return await read_payments(session, ids=named, intents=intents, pledges=pledges)


async def _assign_captures(
    session: Transaction,
    facts: Sequence[StoredFact],
    rows: dict[str, PaymentRow],
    by_intent: ByIntent,
) -> list[PaymentRow]:
    """Give every capture its payment; returns the payments created for it."""
    new: list[PaymentRow] = []
    for fact in facts:
        capture = fact.observation
        if capture.kind is not FactKind.CAPTURE:
            continue
        row = by_intent.get(capture.intent) or _unpaid_payment(capture, rows)
        if row is None:
            row = await _new_payment(session, capture, rows)
            new.append(row)
        row.intent = capture.intent
        rows[row.id] = by_intent[row.intent] = row
        fact.payment_id = row.id
    return new


def _newly_captured(facts: Sequence[StoredFact], by_intent: ByIntent) -> list[tuple[Observation, PaymentRow]]:
    """The captures whose payments had none so far."""
    seen = (fact.observation for fact in facts if fact.observation.kind is FactKind.CAPTURE)
    return [(each, row) for each in seen if (row := by_intent[each.intent]).paid_currency is None]


async def _suspect(
    session: Transaction, captured: Sequence[tuple[Observation, PaymentRow]], at: datetime
) -> None:
    """Mark the payments of new captures that look like tested cards, by the payments that they name."""
    named = [(seen.payment_id or row.id, row) for seen, row in captured]
    suspected = await find_suspected(session, {payment for payment, _ in named}, at)
    for payment, row in named:
        row.suspected = row.suspected or payment in suspected


def _unpaid_payment(capture: Observation, rows: Mapping[str, PaymentRow]) -> PaymentRow | None:
    """The payment that a capture names, or its pledge's; None where that one has a capture already."""
    row = _intended_payment(capture, rows)
    return row if row is not None and row.intent is None and not row.offline else None


def _intended_payment(capture: Observation, rows: Mapping[str, PaymentRow]) -> PaymentRow | None:
    if (named := rows.get(capture.payment_id or "")) is not None:
        return named
    same = (row for row in rows.values() if capture.pledge_id and row.pledge_id == capture.pledge_id)
    return min(same, key=lambda row: row.capture_index, default=None)


async def _new_payment(
    session: Transaction, capture: Observation, rows: Mapping[str, PaymentRow]
) -> PaymentRow:
    """A payment for a capture that has none: a further capture of a pledge, or one of an unknown pledge."""
    first = _intended_payment(capture, rows)
    if isinstance(capture, LinkCapture) and (row := uncredited_payment(capture, first)) is not None:
        return row
    if first is not None:
        _FURTHER.inc()
        log.warning(
            "payment.further_capture", pledge=first.pledge_id, payment=first.id, intent=capture.intent
        )
        # It copies the pledge's attribution. Its money, status and announcements are its own.
        return replace(
            first, id=ids.new("pay"), capture_index=await _next_index(session, first, rows), version=0,
            intent=None, status=PaymentStatus.AWAITED, held=False, captured=0, refunded=0, disputed=0,
            paid_currency=None, captured_at=None, checkout="none", session_id=None, attempts=0, ended=False,
            held_reason=None, held_since=None, released_at=None, pledged_drive=None, pledged_creator=None,
            drive_id=first.drive_id if first.released_at is None else first.pledged_drive or NO_DRIVE,
            creator_id=first.creator_id if first.released_at is None else first.pledged_creator,
            offline=False, suspected=False, rate=None, reporting_currency=None,
        )  # fmt: skip
    log.warning(
        "payment.unknown_pledge", pledge=capture.pledge_id, drive=capture.drive_id, intent=capture.intent
    )
    named = capture.payment_id
    return PaymentRow(
        id=named if named and ids.is_id(named, "pay") else ids.new("pay"),
        pledge_id=_valid_id(capture.pledge_id, "plg"),
        drive_id=_valid_id(capture.drive_id, "drv") or NO_DRIVE,
    )


def _valid_id(text: str | None, kind: ids.Kind) -> str | None:
    """An id from metadata; None where it has not the form of one."""
    return text if text is not None and ids.is_id(text, kind) else None


async def _next_index(session: Transaction, first: PaymentRow, rows: Mapping[str, PaymentRow]) -> int:
    same_pledge = PAYMENTS.c.pledge_id == first.pledge_id
    stored = await session.execute(select(PAYMENTS.c.capture_index).where(same_pledge))
    taken: set[int] = {index for (index,) in stored}
    taken |= {row.capture_index for row in rows.values() if row.pledge_id == first.pledge_id}
    return max(taken) + 1


def _assign_others(
    facts: Sequence[StoredFact],
    rows: Mapping[str, PaymentRow],
    by_intent: ByIntent,
) -> dict[str, PaymentRow]:
    """Give refunds, disputes and ended sessions their payments; returns the payments concerned."""
    concerned: dict[str, PaymentRow] = {}
    for fact in facts:
        seen = fact.observation
        if seen.kind is FactKind.ENDED:
            row = rows.get(seen.payment_id or "")
            if row is not None and row.session_id == seen.id:
                row.ended = True
        else:
            row = by_intent.get(seen.intent)
        if row is not None:
            fact.payment_id = row.id
            concerned[row.id] = row
    return concerned


async def _confirm_refunds(session: Transaction, found: Iterable[Observation]) -> None:
    """Mark our API's refunds that Stripe has, whether its response or a webhook reports them."""
    confirmed = [
        {"of": each.refund_id, "as": each.id}
        for each in found
        if each.kind is FactKind.REFUND and each.refund_id
    ]
    if confirmed:
        await session.execute(_CONFIRM_REFUND, confirmed)


_CONFIRM_REFUND: Final = (
    update(REFUNDS).where(REFUNDS.c.id == bindparam("of")).values(stripe_id=bindparam("as"), state="sent")
)
