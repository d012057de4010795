"""Payments and facts as stored: read under lock, changed in memory, written back in one statement a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Select, bindparam, insert, or_, select, update

from backbone.contracts.payments import PaymentStatus
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.exchange_rates import Reported, reported
from services.payments.domain import EstimateReason, FactKind, Observation
from services.payments.recording.ledger import PostedAmount
from services.payments.statements import upsert
from services.payments.tables import FACTS, PAYMENTS


@dataclass(slots=True)
class PaymentRow:
    """A payment as it is read, changed and written back; see `tables.Payment`."""

    id: str
    pledge_id: str | None
    drive_id: str
    capture_index: int = 0
    version: int = 0
    status: str = PaymentStatus.AWAITED
    held: bool = False
    pledge_version: int = 0
    amount: int = 0
    currency: str | None = None
    donor_id: str | None = None
    anonymous: bool | None = None
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
    held_reason: str | None = None
    held_since: datetime | None = None
    released_at: datetime | None = None
    pledged_drive: str | None = None
    pledged_creator: str | None = None
    rate: str | None = None
    reporting_currency: str | None = None

    @property
    def reporting(self) -> Reported | None:
        """The amounts in the drive's currency, where they are in another one and have a rate."""
        if self.rate is None or self.reporting_currency is None or self.paid_currency is None:
            return None
        sums = (self.captured, self.refunded, self.disputed)
        return reported(*sums, self.paid_currency, self.reporting_currency, self.rate)

    @property
    def in_other_drive(self) -> bool:
        """Whether a person counted it in another drive than its pledge's."""
        return self.released_at is not None and self.pledged_drive != self.drive_id

    offline: bool = False
    suspected: bool = False
    zakat: bool = False

    @property
    def announced_state(self) -> tuple[object, ...]:
        """The announced values that facts can change; a difference here is announced."""
        return (
            self.status, self.held, self.captured, self.refunded, self.disputed, self.paid_currency,
            self.captured_at, self.rate, self.reporting_currency,
        )  # fmt: skip


PAYMENT_FIELDS: Final = tuple(each.name for each in fields(PaymentRow))
OBSERVATION_FIELDS: Final = tuple(each.name for each in fields(Observation))

_PAYMENT_COLUMNS: Final = tuple(PAYMENTS.c[name] for name in PAYMENT_FIELDS)

_UPDATED_FIELDS: Final = tuple(
    name for name in PAYMENT_FIELDS if name not in ("id", "checkout", "session_id", "attempts")
)
"""What a restatement writes back. The checkout columns belong to the checkout worker."""


@dataclass(slots=True)
class StoredFact:
    """A fact as stored: its merged observation, the payment it belongs to, and what the ledger holds for it.

    `estimated` is the reason why the counted amount is an estimate (column `doubt`), None where Stripe
    reported the amount itself.
    """

    observation: Observation
    payment_id: str | None = None
    posted_amount: PostedAmount = field(default_factory=lambda: PostedAmount(0, "", 0))
    estimated: EstimateReason | None = None

    def as_row(self, at: datetime) -> dict[str, Any]:
        """The row of `facts`; `at` is written only where the fact is new."""
        posted = self.posted_amount
        return {name: getattr(self.observation, name) for name in OBSERVATION_FIELDS} | {
            "payment_id": self.payment_id,
            "posted": posted.units,
            "posted_to": posted.account,
            "postings": posted.postings,
            "doubt": self.estimated,
            "heard_at": at,
        }


async def read_payments(
    session: Transaction,
    *,
    ids: Collection[str] = (),
    intents: Collection[str] = (),
    pledges: Collection[str] = (),
) -> dict[str, PaymentRow]:
    """Payments with one of these ids, payment intents or pledges, by id.

    They are locked in the order of their tickets (see `statements.lock_payments`), in one statement: a second
    one would lock rows out of their order, and two transactions could deadlock.
    """
    wanted = {name: all_of for name, all_of in zip(_SOUGHT, (ids, intents, pledges), strict=True) if all_of}
    if not wanted:
        return {}
    rows = await session.execute(_payments_by(tuple(wanted)), wanted)
    return {row[0]: PaymentRow(*row) for row in rows}


_SOUGHT: Final = ("id", "intent", "pledge_id")


@lru_cache(maxsize=8)
def _payments_by(names: tuple[str, ...]) -> Select[Any]:
    sought = or_(*(one_of(PAYMENTS.c[name], name) for name in names))
    return select(*_PAYMENT_COLUMNS).where(sought).order_by(PAYMENTS.c.number).with_for_update()


async def write_payments(
    session: Transaction, rows: Sequence[PaymentRow], new: frozenset[str], at: datetime
) -> None:
    """Insert the payments whose ids are in `new`, and update the others."""
    inserted = [payment_values(row, at) for row in rows if row.id in new]
    if inserted:
        await session.execute(_INSERT_PAYMENT, inserted)
    updated = [
        {"at_id": row.id, "at_now": at} | {f"to_{name}": getattr(row, name) for name in _UPDATED_FIELDS}
        for row in rows
        if row.id not in new
    ]
    if updated:
        await session.execute(_UPDATE_PAYMENT, updated)


def payment_values(row: PaymentRow, at: datetime) -> dict[str, Any]:
    """The columns of a new payment made at `at`."""
    return {name: getattr(row, name) for name in PAYMENT_FIELDS} | {"made_at": at, "changed_at": at}


_INSERT_PAYMENT: Final = insert(PAYMENTS)
_UPDATE_PAYMENT: Final = (
    update(PAYMENTS)
    .where(PAYMENTS.c.id == bindparam("at_id"))
    .values({name: bindparam(f"to_{name}") for name in _UPDATED_FIELDS} | {"changed_at": bindparam("at_now")})
)


async def read_facts(
    session: Transaction, *, ids: Collection[str] = (), intents: Collection[str] = ()
) -> dict[str, StoredFact]:
    """Stored facts with one of these ids of Stripe's, or of these payment intents, by id."""
    wanted = {name: all_of for name, all_of in (("id", ids), ("intent", intents)) if all_of}
    if not wanted:
        return {}
    rows = await session.execute(_facts_by(tuple(wanted)), wanted)
    return {row[0]: _stored_fact(*row) for row in rows}


@lru_cache(maxsize=4)
def _facts_by(names: tuple[str, ...]) -> Select[Any]:
    columns = (FACTS.c[name] for name in (*OBSERVATION_FIELDS, "posted", "posted_to", "postings", "doubt"))
    return select(*columns).where(or_(*(one_of(FACTS.c[name], name) for name in names)))


def _stored_fact(each: str, kind: str, *observed: Any) -> StoredFact:
    """A fact from its row: the fields of its observation, and what the ledger holds for it."""
    *others, posted, posted_to, postings, doubt = observed
    observation = Observation(each, FactKind(kind), *others)
    estimated = None if doubt is None else EstimateReason(doubt)
    return StoredFact(
        observation, observation.payment_id, PostedAmount(posted, posted_to, postings), estimated
    )


async def write_facts(session: Transaction, facts: Sequence[StoredFact], at: datetime) -> None:
    """Insert new facts and update stored ones."""
    if facts:
        statement = upsert(session, FACTS, ("id",), _UPDATED_FACT_COLUMNS)
        await session.execute(statement, [fact.as_row(at) for fact in facts])


_UPDATED_FACT_COLUMNS: Final = tuple(
    column.name for column in FACTS.c if column.name not in ("id", "kind", "heard_at")
)
