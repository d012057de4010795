"""Changes: facts are recorded, payments restated from them, the difference posted and announced.

Everything here runs inside its caller's transaction, in multi-row statements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, Final, cast

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone import ids
from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import Source
from backbone.ids import CreatorId, DonorId, DriveId, PaymentId, PledgeId
from backbone.messaging.outbox import announce
from backbone.money import Money, digits
from services.payments.domain import (
    NO_DRIVE,
    EstimateReason,
    FactKind,
    Observation,
    doubt,
    is_held,
    merge,
    merged,
    status,
    sum_up,
    tally,
)
from services.payments.recording import estimates, ledger
from services.payments.recording.estimates import NewEstimate
from services.payments.recording.ledger import NewPosting, PostedAmount
from services.payments.statements import lock_intents, upsert
from services.payments.tables import DRIVES, FACTS, PAYMENTS, REFUNDS

log = structlog.get_logger()

_STATES: Final = Counter("ataa_payments_total", "Payments that came into a state.", ["status"])
_CAPTURED: Final = Counter("ataa_captured_minor_units_total", "Money captured.", ["currency"])
_AGAIN: Final = Counter("ataa_payments_again_total", "Further captures on a pledge that was paid before.")
_HELD: Final = Counter("ataa_payments_held_total", "Payments whose money matched nothing and is held.")


_UNIT: Final = Gauge(
    "ataa_currency_minor_units", "Minor units that make one unit of a currency money came in.", ["currency"]
)


# Looking a series up by its labels costs more than counting.


@cache
def _states(status: str) -> Counter:
    return _STATES.labels(status)


for _status in PaymentStatus:
    _states(_status)  # there from the start: a series that began with its first event shows no rise


@cache
def _captured(currency: str) -> Counter:
    _UNIT.labels(currency).set(10 ** digits(currency))
    return _CAPTURED.labels(currency)


@dataclass(slots=True)
class PaymentRow:
    """A payment as it is read, changed and written back; see `tables.Payment`."""

    id: str
    pledge_id: str | None
    drive_id: str
    nth: int = 0
    version: int = 0
    status: str = PaymentStatus.AWAITED
    held: bool = False
    pledge_version: int = 0
    amount: int = 0
    currency: str | None = None
    donor_id: str | None = None
    creator_id: str | None = None
    platform: str | None = None
    campaign: str | None = None
    partner: str | None = None
    mode: str = "hosted"
    locale: str | None = None
    intent: str | None = None
    captured: int = 0
    refunded: int = 0
    disputed: int = 0
    paid_currency: str | None = None
    captured_at: datetime | None = None
    ended: bool = False
    checkout: str = "none"
    session_id: str | None = None
    attempts: int = 0

    @property
    def announced_state(self) -> tuple[object, ...]:
        """What an announcement says that facts can change."""
        return (
            self.status, self.held, self.captured, self.refunded, self.disputed, self.paid_currency,
            self.captured_at,
        )  # fmt: skip


COLUMNS: Final = tuple(PAYMENTS.c[each.name] for each in fields(PaymentRow))

PAYMENT_FIELDS: Final = tuple(each.name for each in fields(PaymentRow))
OBSERVATION_FIELDS: Final = tuple(each.name for each in fields(Observation))

WRITTEN: Final = tuple(
    name for name in PAYMENT_FIELDS if name not in ("id", "checkout", "session_id", "attempts")
)
"""What a restatement writes back; a payment's checkout belongs to the checkout worker."""


ByIntent = dict[str | None, PaymentRow]


@dataclass(slots=True)
class StoredFact:
    """A fact as stored: the finding, whose payment it is, and what stands in the ledger for it.

    `doubt` says why that amount is an estimate; None where Stripe said it.
    """

    observation: Observation
    payment_id: str | None = None
    posted_amount: PostedAmount = field(default_factory=lambda: PostedAmount(0, "", 0))
    doubt: EstimateReason | None = None

    def as_row(self, at: datetime) -> dict[str, Any]:
        """The row of `facts`."""
        row = {name: getattr(self.observation, name) for name in OBSERVATION_FIELDS}
        row["payment_id"] = self.payment_id
        posted_amount = self.posted_amount
        return row | {
            "posted": posted_amount.units, "posted_to": posted_amount.account, "postings":
            posted_amount.postings,
            "doubt": self.doubt, "heard_at": at,
        }  # fmt: skip


async def record(session: AsyncSession, observations: Iterable[Observation], at: datetime) -> None:
    """Record what was found, in any order and as often as it is told; restate whom it concerns.

    A capture whose payment is unknown makes one; a refund or dispute whose capture is unknown is
    kept for when it is known. Transactions that record facts of the same intent wait for each other:
    neither overlooks what the other one is about to commit.
    """
    found = await _unrecorded(session, merged(observations))
    if not found:
        return
    await lock_intents(session, {observation.intent for observation in found.values() if observation.intent})
    rows = await _payments_of(session, found.values())
    facts = await _facts_of(session, found, rows.values())
    before = {each: replace(fact) for each, fact in facts.items()}
    for observation in found.values():
        known = facts.get(observation.id)
        facts[observation.id] = (
            StoredFact(observation)
            if known is None
            else replace(known, observation=merge(known.observation, observation))
        )
    by_intent: ByIntent = {row.intent: row for row in rows.values() if row.intent is not None}
    told = [facts[each] for each in found]
    new = await _assign_captures(session, told, rows, by_intent)
    concerned = {row.id: row for row in new} | _assign_others(told, rows, by_intent)
    await _tie_refunds(session, found.values())
    await restate(session, list(concerned.values()), facts, at, new=frozenset(row.id for row in new))
    await store_facts(session, [fact for each, fact in facts.items() if fact != before.get(each)], at)


async def _unrecorded(session: AsyncSession, found: dict[str, Observation]) -> dict[str, Observation]:
    """Those of `found` that tell more than is stored; most webhooks repeat what another one said."""
    if not found:
        return found
    known = await read_facts(session, FACTS.c.id.in_(found))
    return {
        each: observation
        for each, observation in found.items()
        if each not in known
        or known[each].payment_id is None
        or merge(known[each].observation, observation) != known[each].observation
    }


async def _payments_of(session: AsyncSession, observations: Collection[Observation]) -> dict[str, PaymentRow]:
    """The payments that findings name or whose intents they concern, locked in the order of their tickets."""
    named = {observation.payment_id for observation in observations if observation.payment_id}
    intents = {observation.intent for observation in observations if observation.intent}
    captures = [observation for observation in observations if observation.kind is FactKind.CAPTURE]
    pledges = {observation.pledge_id for observation in captures if observation.pledge_id}
    concerned = [PAYMENTS.c.id.in_(named), PAYMENTS.c.intent.in_(intents)]
    if pledges:
        concerned.append(PAYMENTS.c.pledge_id.in_(pledges))
    # In one statement: a second one would lock rows out of their order, and two transactions could deadlock.
    return await read_payments(session, or_(*concerned))


async def read_payments(session: AsyncSession, condition: Any) -> dict[str, PaymentRow]:
    """Payments by id, locked in the order of their tickets."""
    statement = select(*COLUMNS).where(condition).order_by(PAYMENTS.c.number).with_for_update()
    return {row.id: PaymentRow(*row) for row in await session.execute(statement)}


async def _facts_of(
    session: AsyncSession, found: Mapping[str, Observation], rows: Iterable[PaymentRow]
) -> dict[str, StoredFact]:
    """Every fact of these payments and of the intents found."""
    intents = {observation.intent for observation in found.values() if observation.intent}
    intents |= {row.intent for row in rows if row.intent}
    ended = [each for each, observation in found.items() if observation.intent is None]
    condition = (
        or_(FACTS.c.intent.in_(intents), FACTS.c.id.in_(ended)) if ended else FACTS.c.intent.in_(intents)
    )
    return await read_facts(session, condition)


async def read_facts(session: AsyncSession, condition: Any) -> dict[str, StoredFact]:
    """Stored facts by Stripe's id."""
    return {row.id: _stored_fact(row) for row in await session.execute(select(FACTS).where(condition))}


def _stored_fact(row: Any) -> StoredFact:
    observation = Observation(
        row.id, FactKind(row.kind), row.intent, row.units, row.currency, row.rank, row.at, row.payment_id,
        row.pledge_id, row.drive_id, row.refund_id, row.told_at, row.withdrawn, row.returned, row.settled_in,
        row.torn,
    )  # fmt: skip
    posted_amount = PostedAmount(row.posted, row.posted_to, row.postings)
    return StoredFact(
        observation, row.payment_id, posted_amount, None if row.doubt is None else EstimateReason(row.doubt)
    )


async def _assign_captures(
    session: AsyncSession,
    facts: Sequence[StoredFact],
    rows: dict[str, PaymentRow],
    by_intent: ByIntent,
) -> list[PaymentRow]:
    """Give every capture its payment; those that had to be made for it."""
    new: list[PaymentRow] = []
    for fact in facts:
        observation = fact.observation
        if observation.kind is not FactKind.CAPTURE:
            continue
        row = by_intent.get(observation.intent) or _unpaid_payment(observation, rows)
        if row is None:
            row = await _make_payment(session, observation, rows)
            new.append(row)
        row.intent = observation.intent
        rows[row.id] = by_intent[row.intent] = row
        fact.payment_id = row.id
    return new


def _unpaid_payment(observation: Observation, rows: Mapping[str, PaymentRow]) -> PaymentRow | None:
    """The payment a capture pays: the one it names, else its pledge's, unless that is paid already."""
    row = _intended_payment(observation, rows)
    return row if row is not None and row.intent is None else None


def _intended_payment(observation: Observation, rows: Mapping[str, PaymentRow]) -> PaymentRow | None:
    if (named := rows.get(observation.payment_id or "")) is not None:
        return named
    same = (row for row in rows.values() if observation.pledge_id and row.pledge_id == observation.pledge_id)
    return min(same, key=lambda row: row.nth, default=None)


async def _make_payment(
    session: AsyncSession, observation: Observation, rows: Mapping[str, PaymentRow]
) -> PaymentRow:
    """A payment for a capture that has none: a pledge paid again, or one nobody told us of."""
    meant = _intended_payment(observation, rows)
    if meant is not None:
        _AGAIN.inc()
        log.warning("payment.again", pledge=meant.pledge_id, payment=meant.id, intent=observation.intent)
        # Its attribution is the pledge's, its money its own: what the first one stated it has yet to say.
        return replace(
            meant, id=ids.new("pay"), nth=await _next_nth(session, meant, rows), version=0, intent=None,
            status=PaymentStatus.AWAITED, held=False, captured=0, refunded=0, disputed=0, paid_currency=None,
            captured_at=None, checkout="none", session_id=None, attempts=0, ended=False,
        )  # fmt: skip
    log.warning(
        "payment.unannounced",
        pledge=observation.pledge_id,
        drive=observation.drive_id,
        intent=observation.intent,
    )
    named = observation.payment_id
    return PaymentRow(
        id=named if named and ids.is_id(named, "pay") else ids.new("pay"),
        pledge_id=_if_id(observation.pledge_id, "plg"),
        drive_id=_if_id(observation.drive_id, "drv") or NO_DRIVE,
    )


def _if_id(text: str | None, kind: ids.Kind) -> str | None:
    return text if text is not None and ids.is_id(text, kind) else None


async def _next_nth(session: AsyncSession, meant: PaymentRow, rows: Mapping[str, PaymentRow]) -> int:
    stored = await session.execute(select(PAYMENTS.c.nth).where(PAYMENTS.c.pledge_id == meant.pledge_id))
    taken = {nth for (nth,) in stored} | {
        row.nth for row in rows.values() if row.pledge_id == meant.pledge_id
    }
    return max(taken) + 1


def _assign_others(
    facts: Sequence[StoredFact],
    rows: Mapping[str, PaymentRow],
    by_intent: ByIntent,
) -> dict[str, PaymentRow]:
    """Give refunds, disputes and ended sessions their payments; the payments that are concerned."""
    concerned: dict[str, PaymentRow] = {}
    for fact in facts:
        observation = fact.observation
        if observation.kind is FactKind.ENDED:
            row = rows.get(observation.payment_id or "")
            if row is not None and row.session_id == observation.id:
                row.ended = True
        else:
            row = by_intent.get(observation.intent)
        if row is not None:
            fact.payment_id = row.id
            concerned[row.id] = row
    return concerned


async def _tie_refunds(session: AsyncSession, observations: Iterable[Observation]) -> None:
    """Tell the refunds asked for through our API that Stripe has them, whoever says so first."""
    tied = [
        {"of": observation.refund_id, "as": observation.id}
        for observation in observations
        if observation.kind is FactKind.REFUND and observation.refund_id
    ]
    if tied:
        await session.execute(
            update(REFUNDS)
            .where(REFUNDS.c.id == bindparam("of"))
            .values(stripe_id=bindparam("as"), state="sent"),
            tied,
        )


async def restate(
    session: AsyncSession,
    rows: Sequence[PaymentRow],
    facts: Mapping[str, StoredFact],
    at: datetime,
    *,
    new: frozenset[str] = frozenset(),
    changed: frozenset[str] = frozenset(),
) -> None:
    """Bring payments, the ledger and whoever listens to what the facts say.

    `facts` holds every fact of the intents of `rows`, and is told what is then posted for each.
    `new` are to be inserted; `changed` had their attribution changed and are written in any case.
    """
    drives = await _drive_currencies(session, {row.drive_id for row in rows if row.intent})
    by_intent: dict[str | None, list[StoredFact]] = defaultdict(list)
    for fact in facts.values():
        by_intent[fact.observation.intent].append(fact)
    entries: list[tuple[NewPosting, str, str]] = []
    estimates_made: list[NewEstimate] = []
    announced: list[PaymentRow] = []
    for row in rows:
        before = row.announced_state
        own = by_intent[row.intent] if row.intent else []
        estimates_made += _state(row, own, drives.get(row.drive_id))
        entries += _postings(row, own)
        if row.announced_state != before or (row.id in changed and row.version):
            row.version += 1
            announced.append(row)
            _count(row, before)
    announced_ids = {row.id for row in announced}
    await _write(session, [row for row in rows if row.id in announced_ids | changed | new], new, at)
    await ledger.post(session, entries, at)
    await estimates.note(session, estimates_made, at)
    await announce(session, [_announcement(row, at) for row in announced])


def _state(row: PaymentRow, facts: Sequence[StoredFact], drive_currency: str | None) -> list[NewEstimate]:
    """State a payment from its facts; those of them that have just come into doubt."""
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
    estimates_made: list[NewEstimate] = []
    for fact in facts:
        before, fact.doubt = fact.doubt, doubt(fact.observation, capture.currency, net)
        if fact.doubt is not None and fact.doubt is not before:
            found = fact.observation
            estimates_made.append(
                NewEstimate(
                    found.id, capture.id, row.id, fact.doubt, tally(observations)[found.id], capture.currency
                )
            )
    return estimates_made


def _postings(row: PaymentRow, facts: Sequence[StoredFact]) -> list[tuple[NewPosting, str, str]]:
    """The postings that bring the ledger to what counts of a payment's facts, in its own currency."""
    entries: list[tuple[NewPosting, str, str]] = []
    counted = tally(fact.observation for fact in facts)
    for fact in facts if counted and row.paid_currency else ():
        observation = fact.observation
        account = ledger.account_of(observation.kind, row.held)
        posted, fact.posted_amount = ledger.difference(
            observation.id,
            observation.kind,
            row.paid_currency or "",
            fact.posted_amount,
            counted[observation.id],
            account,
        )
        fact.payment_id = row.id
        entries += [(entry, row.id, row.drive_id) for entry in posted]
    return entries


def _count(row: PaymentRow, before: tuple[object, ...]) -> None:
    was_status, was_held, was_captured, *_ = before
    if row.status != was_status:
        _states(row.status).inc()
    if row.paid_currency and row.captured > cast(int, was_captured):
        _captured(row.paid_currency).inc(row.captured - cast(int, was_captured))
    if row.held and not was_held:
        _HELD.inc()
        log.warning("payment.held", payment=row.id, drive=row.drive_id, currency=row.paid_currency)


async def _drive_currencies(session: AsyncSession, drives: Collection[str]) -> dict[str, str]:
    if not drives:
        return {}
    rows = await session.execute(select(DRIVES.c.id, DRIVES.c.currency).where(DRIVES.c.id.in_(drives)))
    return {row.id: row.currency for row in rows}


async def _write(
    session: AsyncSession, rows: Sequence[PaymentRow], new: frozenset[str], at: datetime
) -> None:
    made = [
        {name: getattr(row, name) for name in PAYMENT_FIELDS} | {"made_at": at, "changed_at": at}
        for row in rows
        if row.id in new
    ]
    if made:
        await session.execute(insert(PAYMENTS), made)
    kept = [
        {"at_id": row.id, "at_now": at} | {f"to_{name}": getattr(row, name) for name in WRITTEN}
        for row in rows
        if row.id not in new
    ]
    if kept:
        await session.execute(_UPDATE, kept)


_UPDATE: Final = (
    update(PAYMENTS)
    .where(PAYMENTS.c.id == bindparam("at_id"))
    .values({name: bindparam(f"to_{name}") for name in WRITTEN} | {"changed_at": bindparam("at_now")})
)


def _announcement(row: PaymentRow, at: datetime) -> PaymentChanged:
    currency = row.paid_currency or row.currency or "USD"
    return PaymentChanged(
        payment_id=PaymentId(row.id),
        drive_id=DriveId(row.drive_id),
        pledge_id=None if row.pledge_id is None else PledgeId(row.pledge_id),
        creator_id=None if row.creator_id is None else CreatorId(row.creator_id),
        donor_id=None if row.donor_id is None else DonorId(row.donor_id),
        source=source_of(row),
        version=row.version,
        status=row.status,
        held=row.held,
        captured=Money(row.captured, currency),
        refunded=Money(row.refunded, currency),
        disputed=Money(row.disputed, currency),
        captured_at=row.captured_at,
        changed_at=at,
    )


def source_of(row: PaymentRow) -> Source | None:
    """Where a gift came from, if anything is known of it."""
    if row.platform is None and row.campaign is None:
        return None
    return Source(platform=row.platform, campaign=row.campaign)


async def store_facts(session: AsyncSession, facts: Sequence[StoredFact], at: datetime) -> None:
    """Write facts as they now are, new ones and known ones."""
    if facts:
        statement = upsert(session, FACTS, ("id",), _TOLD)
        await session.execute(statement, [fact.as_row(at) for fact in facts])


_TOLD: Final = tuple(column.name for column in FACTS.c if column.name not in ("id", "kind", "heard_at"))
