"""Payments and facts as stored: read under lock, changed in memory, written back in one statement a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, insert, select, update

from backbone.contracts.payments import PaymentStatus
from backbone.database.transaction import Transaction
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

    @property
    def announced_state(self) -> tuple[object, ...]:
        """The announced values that facts can change; a difference here is announced."""
        return (
            self.status, self.held, self.captured, self.refunded, self.disputed, self.paid_currency,
            self.captured_at,
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


async def read_payments(session: Transaction, condition: Any) -> dict[str, PaymentRow]:
    """Payments by id, locked in the order of their tickets (see `statements.lock_payments`)."""
    statement = select(*_PAYMENT_COLUMNS).where(condition).order_by(PAYMENTS.c.number).with_for_update()
    return {row.id: PaymentRow(*row) for row in await session.execute(statement)}


async def write_payments(
    session: Transaction, rows: Sequence[PaymentRow], new: frozenset[str], at: datetime
) -> None:
    """Insert the payments whose ids are in `new`, and update the others."""
    inserted = [payment_values(row, at) for row in rows if row.id in new]
    if inserted:
        await session.execute(insert(PAYMENTS), inserted)
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


_UPDATE_PAYMENT: Final = (
    update(PAYMENTS)
    .where(PAYMENTS.c.id == bindparam("at_id"))
    .values({name: bindparam(f"to_{name}") for name in _UPDATED_FIELDS} | {"changed_at": bindparam("at_now")})
)


async def read_facts(session: Transaction, condition: Any) -> dict[str, StoredFact]:
    """Stored facts by Stripe's id."""
    return {row.id: _stored_fact(row) for row in await session.execute(select(FACTS).where(condition))}


def _stored_fact(row: Any) -> StoredFact:
    observation = Observation(
        row.id, FactKind(row.kind), row.intent, row.units, row.currency, row.rank, row.at, row.payment_id,
        row.pledge_id, row.drive_id, row.refund_id, row.told_at, row.withdrawn, row.returned, row.settled_in,
        row.torn,
    )  # fmt: skip
    posted = PostedAmount(row.posted, row.posted_to, row.postings)
    estimated = None if row.doubt is None else EstimateReason(row.doubt)
    return StoredFact(observation, row.payment_id, posted, estimated)


async def write_facts(session: Transaction, facts: Sequence[StoredFact], at: datetime) -> None:
    """Insert new facts and update stored ones."""
    if facts:
        statement = upsert(session, FACTS, ("id",), _UPDATED_FACT_COLUMNS)
        await session.execute(statement, [fact.as_row(at) for fact in facts])


_UPDATED_FACT_COLUMNS: Final = tuple(
    column.name for column in FACTS.c if column.name not in ("id", "kind", "heard_at")
)
