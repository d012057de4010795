"""The ledger: a posting is one row, debit and credit of the same amount, and never changes.

What facts say and what is posted are compared in the transaction that changes either, and the
difference is posted; a correction is a posting the other way round. So the ledger is the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import FactKind
from services.payments.tables import PAYMENTS, POSTINGS

CLEARING: Final = "processor_clearing"
RAISED: Final = "drive_raised"
HELD: Final = "held"

OTHER_SIDE: Final[Mapping[FactKind, str]] = {FactKind.REFUND: "refunds", FactKind.DISPUTE: "disputes"}


@dataclass(frozen=True, slots=True)
class PostedAmount:
    """What stands in the ledger for one fact: `units` at `account`, by `postings` rows so far."""

    units: int
    account: str
    postings: int


@dataclass(frozen=True, slots=True)
class NewPosting:
    """One posting to be made: `units` > 0 from `credit` to `debit`."""

    debit: str
    credit: str
    units: int
    currency: str
    cause: str


def difference(
    fact_id: str, kind: FactKind, currency: str, posted_amount: PostedAmount, units: int, account: str
) -> tuple[list[NewPosting], PostedAmount]:
    """The postings that bring what stands for a fact to `units` at `account`, and what stands then.

    Captured money is credited to `account` (`drive_raised` or `held`) out of clearing; refunds and
    disputes are debited to theirs. The cause numbers a fact's postings, so that none is made twice.
    """
    steps: list[tuple[str, str, int]] = []
    if posted_amount.units and posted_amount.account != account:
        steps.append((posted_amount.account, account, posted_amount.units))
    change = units - posted_amount.units
    if change:
        taken, given = (CLEARING, account) if kind is FactKind.CAPTURE else (account, CLEARING)
        steps.append((taken, given, change) if change > 0 else (given, taken, -change))
    entries = [
        NewPosting(debit, credit, amount, currency, f"{fact_id}#{posted_amount.postings + place}")
        for place, (debit, credit, amount) in enumerate(steps, 1)
    ]
    return entries, PostedAmount(units, account, posted_amount.postings + len(entries))


def account_of(kind: FactKind, held: bool) -> str:
    """The account on the other side of clearing for a fact of this kind."""
    return OTHER_SIDE.get(kind) or (HELD if held else RAISED)


async def post(session: AsyncSession, entries: Sequence[tuple[NewPosting, str, str]], at: datetime) -> None:
    """Write postings, each with its payment's and drive's id; raises where a cause was posted before."""
    rows = [
        {"debit": entry.debit, "credit": entry.credit, "units": entry.units, "currency": entry.currency,
         "cause": entry.cause, "payment_id": payment_id, "drive_id": drive_id, "posted_at": at}
        for entry, payment_id, drive_id in entries
    ]  # fmt: skip
    if rows:
        await session.execute(insert(POSTINGS), rows)


async def balance(session: AsyncSession, account: str) -> dict[str, int]:
    """Debits less credits of `account`, a currency, in minor units."""
    signed = case((POSTINGS.c.debit == account, POSTINGS.c.units), else_=-POSTINGS.c.units)
    rows = await session.execute(
        select(POSTINGS.c.currency, func.sum(signed))
        .where((POSTINGS.c.debit == account) | (POSTINGS.c.credit == account))
        .group_by(POSTINGS.c.currency)
    )
    return {currency: int(units) for currency, units in rows}


async def drift(session: AsyncSession) -> dict[str, int]:
    """What the payments add up to less what the ledger says is at the processor: 0 or a defect."""
    net = PAYMENTS.c.captured - PAYMENTS.c.refunded - PAYMENTS.c.disputed
    rows = await session.execute(
        select(PAYMENTS.c.paid_currency, func.sum(net))
        .where(PAYMENTS.c.paid_currency.is_not(None))
        .group_by(PAYMENTS.c.paid_currency)
    )
    said = {currency: int(units) for currency, units in rows}
    posted = await balance(session, CLEARING)
    return {name: said.get(name, 0) - posted.get(name, 0) for name in said.keys() | posted.keys()}
