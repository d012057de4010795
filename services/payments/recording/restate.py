"""Payments derived from their facts again; the difference is posted to the ledger and announced.

Everything here runs inside its caller's transaction, in multi-row statements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple, cast

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import select

from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import Source
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.exchange_rates import Pair, Quote, is_convertible
from backbone.ids import CreatorId, DonorId, DriveId, PaymentId, PledgeId
from backbone.messaging.outbox import announce
from backbone.money import Money, digits
from services.payments.domain import (
    FactKind,
    HeldReason,
    Observation,
    estimate_reason,
    held_reason,
    status,
    sum_up,
    tally,
)
from services.payments.matching.allocation import counted_net, gift_of, match_gifts
from services.payments.matching.domain import Gift
from services.payments.rates.store import find_rates
from services.payments.recording import estimates, ledger
from services.payments.recording.estimates import NewEstimate
from services.payments.recording.ledger import NewPosting
from services.payments.recording.rows import PaymentRow, StoredFact, write_payments
from services.payments.tables import DRIVES

log = structlog.get_logger()

_STATES: Final = Counter("ataa_payments_total", "Payments that entered a status.", ["status"])
_CAPTURED: Final = Counter("ataa_captured_minor_units_total", "Money captured.", ["currency"])
_HELD: Final = Counter(
    "ataa_payments_held_total",
    "Payments posted to the suspense account: nothing matches them, or they are suspected.",
    ["reason"],
)
_MINOR_UNITS: Final = Gauge(
    "ataa_currency_minor_units", "Minor units in one unit of a currency of the ledger.", ["currency"]
)

# `labels` is slower than the increment itself, so each series is looked up once.


@cache
def _states(status: str) -> Counter:
    return _STATES.labels(status)


for _reason in HeldReason:
    _HELD.labels(_reason)
for _status in PaymentStatus:
    _states(_status)  # created at import: a series that begins with its first event shows no increase


@cache
def note_currency(currency: str) -> None:
    """Export how many minor units a currency has."""
    _MINOR_UNITS.labels(currency).set(10 ** digits(currency))


@cache
def _captured(currency: str) -> Counter:
    note_currency(currency)
    return _CAPTURED.labels(currency)


NOT_MOVED: Final[Mapping[str, str]] = {}


class _Drive(NamedTuple):
    """A drive's currency, and the others that it takes."""

    currency: str
    others: Collection[str]


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
    moved_from: Mapping[str, str] = NOT_MOVED,
) -> None:
    """Derive payments from their facts, post the difference to the ledger, and announce what changed.

    `facts` must hold every fact of the intents of `rows`; what is posted for each is updated in place, and
    the caller writes them (`write_facts`). Payments in `new` are inserted. Payments in `changed` had their
    attribution changed: they are written in any case, and announced if they were announced before.
    `moved_from` has the drives in which payments were posted that are now in another one.
    """
    drives = await _drives(session, {row.drive_id for row in rows if row.intent})
    by_intent: dict[str | None, list[StoredFact]] = defaultdict(list)
    for fact in facts.values():
        by_intent[fact.observation.intent].append(fact)
    quotes = await find_rates(session, _needed_rates(rows, by_intent, drives), at)
    changes = _Changes()
    rephrased: set[str] = set()
    for row in rows:
        before, reason, rate = row.announced_state, row.held_reason, row.rate
        net_before = counted_net(row)
        own = by_intent[row.intent] if row.intent else []
        if not row.offline:  # an offline gift has no facts that its state could be derived from
            changes.estimates += _derive(row, own, drives.get(row.drive_id), quotes, at)
        changes.postings += _postings(row, own, moved_from.get(row.id, row.drive_id), rate)
        if row.held_reason != reason:
            rephrased.add(row.id)
        if row.announced_state != before or (row.id in changed and row.version):
            row.version += 1
            changes.announced.append(row)
            changes.gifts += gift_of(row, net_before)
            _count(row, before)
    written = {row.id for row in changes.announced} | changed | new | rephrased
    await write_payments(session, [row for row in rows if row.id in written], new, at)
    matched = await match_gifts(session, changes.gifts, at)
    moved = {row.id: _fee_place(row) for row in rows if row.id in moved_from}
    fees = await ledger.move_fees(session, moved) if moved else []
    await ledger.post(session, [*changes.postings, *matched.postings, *fees], at)
    await estimates.note(session, changes.estimates, at)
    await announce(session, [*(announcement_of(row, at) for row in changes.announced), *matched.events])


def _needed_rates(
    rows: Sequence[PaymentRow],
    by_intent: Mapping[str | None, Sequence[StoredFact]],
    drives: Mapping[str, _Drive],
) -> set[Pair]:
    """The pairs of captures in a currency that their drives take besides their own, without a frozen rate."""
    needed: set[Pair] = set()
    for row in rows:
        drive = drives.get(row.drive_id)
        if drive is None or not drive.others or row.intent is None:
            continue
        if row.rate is not None and row.reporting_currency == drive.currency:
            continue
        for fact in by_intent[row.intent]:
            currency = fact.observation.currency
            if fact.observation.kind is FactKind.CAPTURE and currency in drive.others and not row.offline:
                needed.add((currency, drive.currency))
    return needed


def _freeze_rate(row: PaymentRow, drive: _Drive | None, quotes: Mapping[Pair, Quote]) -> None:
    """Freeze the rate of money in another currency; it changes only with the drive.

    Money that is held because there was no rate waits for a person: it gets one when it is released.
    """
    currency = row.paid_currency or ""
    if drive is None or drive.currency == currency:
        row.rate = row.reporting_currency = None
    elif row.held_reason == HeldReason.NO_RATE and row.released_at is None:
        return
    elif row.rate is None or row.reporting_currency != drive.currency:
        quote = quotes.get((currency, drive.currency))
        usable = quote is not None and is_convertible(row.captured, currency, drive.currency, quote.rate)
        row.rate = quote.rate if quote is not None and usable else None
        row.reporting_currency = drive.currency if usable else None


def _derive(
    row: PaymentRow,
    facts: Sequence[StoredFact],
    drive: _Drive | None,
    quotes: Mapping[Pair, Quote],
    at: datetime,
) -> list[NewEstimate]:
    """Set a payment's status and amounts from its facts; returns the facts that became estimates."""
    observations = [fact.observation for fact in facts]
    sums = sum_up(observations, ended=row.ended)
    row.status = status(sums)
    capture = next((each for each in observations if each.kind is FactKind.CAPTURE), None)
    if capture is None:
        return []
    row.captured, row.refunded, row.disputed = sums.captured, sums.refunded, sums.disputed
    row.paid_currency, row.captured_at = capture.currency, capture.at
    _freeze_rate(row, drive, quotes)
    _hold(row, held_reason_of(row, capture, drive), at)
    net = sums.captured - sums.refunded - sums.disputed
    new: list[NewEstimate] = []
    for fact in facts:
        seen = fact.observation
        before, fact.estimated = fact.estimated, estimate_reason(seen, capture.currency, net)
        if fact.estimated is not None and fact.estimated is not before:
            units = tally(observations)[seen.id]
            new.append(NewEstimate(seen.id, capture.id, row.id, fact.estimated, units, capture.currency))
    return new


def held_reason_of(row: PaymentRow, capture: Observation, drive: _Drive | None) -> HeldReason | None:
    """See `domain.held_reason`."""
    pledged = None if row.currency is None else Money(row.amount, row.currency)
    paid = Money(capture.units, capture.currency)
    if drive is None:
        return held_reason(paid, pledged, None)
    return held_reason(
        paid, pledged, drive.currency,
        released=row.released_at is not None, suspected=row.suspected,
        others=drive.others, has_rate=row.rate is not None,
    )  # fmt: skip


def _hold(row: PaymentRow, reason: HeldReason | None, at: datetime) -> None:
    """Hold a payment for this reason, or no longer; `held_since` is the moment it began."""
    row.held, row.held_reason = reason is not None, reason
    row.held_since = None if reason is None else row.held_since or at


def _postings(
    row: PaymentRow, facts: Sequence[StoredFact], posted_in: str, posted_at_rate: str | None
) -> list[tuple[NewPosting, str, str]]:
    """The postings that bring the ledger to what counts of a payment's facts, in the captured currency.

    What was posted in another drive is reversed there, at the rate at which it was posted, so that each
    drive's ledger is that of its payments.
    """
    if row.paid_currency is None:
        return []
    postings: list[tuple[NewPosting, str, str]] = []
    counted = tally(fact.observation for fact in facts)
    for fact in facts if counted else ():
        seen = fact.observation
        account = ledger.account_of(seen.kind, held=row.held, zakat=row.zakat)
        if posted_in != row.drive_id:
            back, fact.posted_amount = ledger.difference(
                seen.id, seen.kind, row.paid_currency, fact.posted_amount, 0, fact.posted_amount.account,
                posted_at_rate,
            )  # fmt: skip
            postings += [(posting, row.id, posted_in) for posting in back]
        new, fact.posted_amount = ledger.difference(
            seen.id, seen.kind, row.paid_currency, fact.posted_amount, counted[seen.id], account, row.rate
        )
        fact.payment_id = row.id
        postings += [(posting, row.id, row.drive_id) for posting in new]
    return postings


def _fee_place(row: PaymentRow) -> ledger.FeePlace:
    return ledger.FeePlace(row.drive_id, ledger.in_fund(ledger.FEES, zakat=row.zakat))


def _count(row: PaymentRow, before: tuple[object, ...]) -> None:
    was_status, was_held, was_captured, *_ = before
    if row.status != was_status:
        _states(row.status).inc()
    if row.paid_currency and row.captured > cast(int, was_captured):
        _captured(row.paid_currency).inc(row.captured - cast(int, was_captured))
    if row.held and not was_held:
        _HELD.labels(row.held_reason).inc()
        log.warning(
            "payment.held",
            payment=row.id,
            drive=row.drive_id,
            currency=row.paid_currency,
            reason=row.held_reason,
        )


async def _drives(session: Transaction, drives: Collection[str]) -> dict[str, _Drive]:
    if not drives:
        return {}
    rows = await session.execute(_CURRENCIES, {"ids": drives})
    return {row.id: _Drive(row.currency, row.currencies or ()) for row in rows}


_CURRENCIES: Final = select(DRIVES.c.id, DRIVES.c.currency, DRIVES.c.currencies).where(
    one_of(DRIVES.c.id, "ids")
)


def announcement_of(row: PaymentRow, at: datetime) -> PaymentChanged:
    """The event with the whole state of a payment."""
    currency = row.paid_currency or row.currency or "USD"
    amounts = row.reporting
    reporting: Sequence[Money | None] = (None, None, None)
    if amounts is not None and row.reporting_currency is not None:
        reporting = [Money(units, row.reporting_currency) for units in amounts]
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
        in_other_drive=row.in_other_drive,
        offline=row.offline,
        reporting_captured=reporting[0],
        reporting_refunded=reporting[1],
        reporting_disputed=reporting[2],
        rate=row.rate if amounts is not None else None,
    )


def _source_of(row: PaymentRow) -> Source | None:
    """The donation's platform and campaign; None where neither is known."""
    if row.platform is None and row.campaign is None:
        return None
    return Source(platform=row.platform, campaign=row.campaign)
