"""Payments derived from their facts again; the difference is posted to the ledger and announced.

Everything here runs inside its caller's transaction, in multi-row statements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Final, cast

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import select

from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import Source
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.ids import CreatorId, DonorId, DriveId, PaymentId, PledgeId
from backbone.messaging.outbox import announce
from backbone.money import Money, digits
from services.payments.domain import FactKind, estimate_reason, is_held, status, sum_up, tally
from services.payments.matching.allocation import counted_net, gift_of, match_gifts
from services.payments.matching.domain import Gift
from services.payments.recording import estimates, ledger
from services.payments.recording.estimates import NewEstimate
from services.payments.recording.ledger import NewPosting
from services.payments.recording.rows import PaymentRow, StoredFact, write_payments
from services.payments.tables import DRIVES

log = structlog.get_logger()

_STATES: Final = Counter("ataa_payments_total", "Payments that entered a status.", ["status"])
_CAPTURED: Final = Counter("ataa_captured_minor_units_total", "Money captured.", ["currency"])
_HELD: Final = Counter(
    "ataa_payments_held_total", "Payments posted to the suspense account: no drive or pledge matches them."
)
_MINOR_UNITS: Final = Gauge(
    "ataa_currency_minor_units", "Minor units in one unit of a currency that was captured.", ["currency"]
)

# `labels` is slower than the increment itself, so each series is looked up once.


@cache
def _states(status: str) -> Counter:
    return _STATES.labels(status)


for _status in PaymentStatus:
    _states(_status)  # created at import: a series that begins with its first event shows no increase


@cache
def _captured(currency: str) -> Counter:
    _MINOR_UNITS.labels(currency).set(10 ** digits(currency))
    return _CAPTURED.labels(currency)


@dataclass(slots=True)
class _Changes:
    """What a restatement has to write besides the payments themselves."""

    postings: list[tuple[NewPosting, str, str]] = field(default_factory=list)
    estimates: list[NewEstimate] = field(default_factory=list)
    announced: list[PaymentRow] = field(default_factory=list)
    gifts: list[Gift] = field(default_factory=list)


async def restate(
    session: Transaction,
    rows: Sequence[PaymentRow],
    facts: Mapping[str, StoredFact],
    at: datetime,
    *,
    new: frozenset[str] = frozenset(),
    changed: frozenset[str] = frozenset(),
) -> None:
    """Derive payments from their facts, post the difference to the ledger, and announce what changed.

    `facts` must hold every fact of the intents of `rows`; what is posted for each is updated in place, and
    the caller writes them (`write_facts`). Payments in `new` are inserted. Payments in `changed` had their
    attribution changed: they are written in any case, and announced if they were announced before.
    """
    drives = await _drive_currencies(session, {row.drive_id for row in rows if row.intent})
    by_intent: dict[str | None, list[StoredFact]] = defaultdict(list)
    for fact in facts.values():
        by_intent[fact.observation.intent].append(fact)
    changes = _Changes()
    for row in rows:
        before = row.announced_state
        net_before = counted_net(row)
        own = by_intent[row.intent] if row.intent else []
        changes.estimates += _derive(row, own, drives.get(row.drive_id))
        changes.postings += _postings(row, own)
        if row.announced_state != before or (row.id in changed and row.version):
            row.version += 1
            changes.announced.append(row)
            changes.gifts += gift_of(row, net_before)
            _count(row, before)
    written = {row.id for row in changes.announced} | changed | new
    await write_payments(session, [row for row in rows if row.id in written], new, at)
    matched = await match_gifts(session, changes.gifts, at)
    await ledger.post(session, [*changes.postings, *matched.postings], at)
    await estimates.note(session, changes.estimates, at)
    await announce(session, [*(_announcement(row, at) for row in changes.announced), *matched.events])


def _derive(row: PaymentRow, facts: Sequence[StoredFact], drive_currency: str | None) -> list[NewEstimate]:
    """Set a payment's status and amounts from its facts; returns the facts that became estimates."""
    observations = [fact.observation for fact in facts]
    sums = sum_up(observations, ended=row.ended)
    row.status = status(sums)
    capture = next((each for each in observations if each.kind is FactKind.CAPTURE), None)
    if capture is None:
        return []
    row.captured, row.refunded, row.disputed = sums.captured, sums.refunded, sums.disputed
    row.paid_currency, row.captured_at = capture.currency, capture.at
    row.held = is_held(capture.currency, row.currency, drive_currency)
    net = sums.captured - sums.refunded - sums.disputed
    new: list[NewEstimate] = []
    for fact in facts:
        seen = fact.observation
        before, fact.estimated = fact.estimated, estimate_reason(seen, capture.currency, net)
        if fact.estimated is not None and fact.estimated is not before:
            units = tally(observations)[seen.id]
            new.append(NewEstimate(seen.id, capture.id, row.id, fact.estimated, units, capture.currency))
    return new


def _postings(row: PaymentRow, facts: Sequence[StoredFact]) -> list[tuple[NewPosting, str, str]]:
    """The postings that bring the ledger to what counts of a payment's facts, in the captured currency."""
    if row.paid_currency is None:
        return []
    postings: list[tuple[NewPosting, str, str]] = []
    counted = tally(fact.observation for fact in facts)
    for fact in facts if counted else ():
        seen = fact.observation
        account = ledger.account_of(seen.kind, row.held)
        new, fact.posted_amount = ledger.difference(
            seen.id, seen.kind, row.paid_currency, fact.posted_amount, counted[seen.id], account
        )
        fact.payment_id = row.id
        postings += [(posting, row.id, row.drive_id) for posting in new]
    return postings


def _count(row: PaymentRow, before: tuple[object, ...]) -> None:
    was_status, was_held, was_captured, *_ = before
    if row.status != was_status:
        _states(row.status).inc()
    if row.paid_currency and row.captured > cast(int, was_captured):
        _captured(row.paid_currency).inc(row.captured - cast(int, was_captured))
    if row.held and not was_held:
        _HELD.inc()
        log.warning("payment.held", payment=row.id, drive=row.drive_id, currency=row.paid_currency)


async def _drive_currencies(session: Transaction, drives: Collection[str]) -> dict[str, str]:
    if not drives:
        return {}
    rows = await session.execute(_CURRENCIES, {"ids": drives})
    return {row.id: row.currency for row in rows}


_CURRENCIES: Final = select(DRIVES.c.id, DRIVES.c.currency).where(one_of(DRIVES.c.id, "ids"))


def _announcement(row: PaymentRow, at: datetime) -> PaymentChanged:
    currency = row.paid_currency or row.currency or "USD"
    return PaymentChanged(
        payment_id=PaymentId(row.id),
        drive_id=DriveId(row.drive_id),
        pledge_id=None if row.pledge_id is None else PledgeId(row.pledge_id),
        creator_id=None if row.creator_id is None else CreatorId(row.creator_id),
        donor_id=None if row.donor_id is None else DonorId(row.donor_id),
        source=_source_of(row),
        version=row.version,
        status=row.status,
        held=row.held,
        captured=Money(row.captured, currency),
        refunded=Money(row.refunded, currency),
        disputed=Money(row.disputed, currency),
        captured_at=row.captured_at,
        changed_at=at,
        anonymous=row.anonymous,
    )


def _source_of(row: PaymentRow) -> Source | None:
    """The donation's platform and campaign; None where neither is known."""
    if row.platform is None and row.campaign is None:
        return None
    return Source(platform=row.platform, campaign=row.campaign)
