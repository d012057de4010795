"""A drive's payments as payments' database knows them: their rows, their facts and their postings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, func, select, text

from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from services.payments.domain import FactKind, Observation, PaymentFacts, sum_up
from services.payments.recording.rows import OBSERVATION_FIELDS
from services.payments.tables import FACTS, PAYMENTS, POSTINGS

PAID: Final = "intent IS NOT NULL"
"""Payments of which Stripe has reported anything: the condition of the index `payments_paid`."""


@dataclass(frozen=True, slots=True)
class OwnFigures:
    """A payment, what its facts add up to, and what the ledger holds for it.

    Amounts are in minor units of `currency`, which was captured. `balances` are debits less credits of each
    account by (account, currency).
    """

    payment: str
    drive: str
    version: int
    currency: str | None
    held: bool
    changed_at: datetime
    stored: PaymentFacts
    by_facts: PaymentFacts
    balances: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def net(self) -> int:
        """Captured less refunded and disputed, as stored."""
        return self.stored.left - self.stored.disputed

    @property
    def has_money(self) -> bool:
        """Whether any money has moved: leaderboard stores nothing of other payments."""
        return bool(self.stored.captured or self.stored.refunded or self.stored.disputed)


def paid_payments(transaction: SyncTransaction, drive_id: str, after: str, limit: int) -> list[OwnFigures]:
    """The paid payments of a drive with ids above `after`, in the order of their ids; one snapshot."""
    given = {"of_drive": drive_id, "after": after, "most": limit}
    return _figures(transaction, transaction.execute(_PAGE, given).all())


def payments_by_id(transaction: SyncTransaction, ids: Collection[str]) -> list[OwnFigures]:
    """Those of these payments that exist, of any drive."""
    return _figures(transaction, transaction.execute(_BY_ID, {"ids": ids}).all())


def number_of_paid(transaction: SyncTransaction, drive_id: str) -> int:
    """How many payments `paid_payments` has for a drive."""
    return int(transaction.execute(_COUNT, {"of_drive": drive_id}).scalar_one())


_COLUMNS: Final = (
    PAYMENTS.c.id, PAYMENTS.c.drive_id, PAYMENTS.c.version, PAYMENTS.c.paid_currency, PAYMENTS.c.held,
    PAYMENTS.c.changed_at, PAYMENTS.c.captured, PAYMENTS.c.refunded, PAYMENTS.c.disputed, PAYMENTS.c.ended,
    PAYMENTS.c.intent,
)  # fmt: skip
_OF_DRIVE: Final = PAYMENTS.c.drive_id == bindparam("of_drive")
_PAGE: Final = (
    select(*_COLUMNS)
    .where(_OF_DRIVE, text(PAID), PAYMENTS.c.id > bindparam("after"))
    .order_by(PAYMENTS.c.id)
    .limit(bindparam("most"))
)
_BY_ID: Final = select(*_COLUMNS).where(one_of(PAYMENTS.c.id, "ids"))
_COUNT: Final = select(func.count()).select_from(PAYMENTS).where(_OF_DRIVE, text(PAID))


def _figures(transaction: SyncTransaction, rows: Sequence[Row[Any]]) -> list[OwnFigures]:
    by_facts = _facts(transaction, {row.intent: row.ended for row in rows if row.intent is not None})
    balances = _balances(transaction, [row.id for row in rows])
    nothing = PaymentFacts()
    return [
        OwnFigures(
            row.id, row.drive_id, row.version, row.paid_currency, row.held, row.changed_at,
            PaymentFacts(row.captured, row.refunded, row.disputed, row.ended),
            by_facts.get(row.intent, nothing), balances.get(row.id, {}),
        )
        for row in rows
    ]  # fmt: skip


def _facts(transaction: SyncTransaction, intents: dict[str, bool]) -> dict[str, PaymentFacts]:
    """What the facts of payment intents add up to. Most have a capture and nothing else."""
    found: dict[str, PaymentFacts] = {}
    several: set[str] = set()
    for intent, kind, units in transaction.execute(_BRIEF_FACTS, {"intents": list(intents)}):
        if intent in found or kind != FactKind.CAPTURE:
            several.add(intent)
        else:
            found[intent] = PaymentFacts(units, ended=intents[intent])
    observed: defaultdict[str, list[Observation]] = defaultdict(list)
    for row in transaction.execute(_WHOLE_FACTS, {"intents": list(several)}) if several else ():
        each, kind, intent, *others = row
        observed[intent].append(Observation(each, FactKind(kind), intent, *others))
    return found | {one: sum_up(facts, ended=intents[one]) for one, facts in observed.items()}


_OF_INTENTS: Final = one_of(FACTS.c.intent, "intents")
_BRIEF_FACTS: Final = select(FACTS.c.intent, FACTS.c.kind, FACTS.c.units).where(_OF_INTENTS)
_WHOLE_FACTS: Final[Select[Any]] = select(*(FACTS.c[name] for name in OBSERVATION_FIELDS)).where(_OF_INTENTS)
assert OBSERVATION_FIELDS[:3] == ("id", "kind", "intent")


def _balances(transaction: SyncTransaction, ids: Sequence[str]) -> dict[str, dict[tuple[str, str], int]]:
    found: defaultdict[str, defaultdict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    for payment, currency, debit, credit, units in transaction.execute(_POSTED, {"ids": ids}):
        balances = found[payment]
        balances[debit, currency] += units
        balances[credit, currency] -= units
    return {payment: dict(balances) for payment, balances in found.items()}


_POSTED: Final = select(
    POSTINGS.c.payment_id, POSTINGS.c.currency, POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.units
).where(one_of(POSTINGS.c.payment_id, "ids"))
