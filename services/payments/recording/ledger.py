"""The ledger: a posting is one immutable row that debits one account and credits another.

The transaction that changes a fact compares what counts of it with what is posted for it, and posts the
difference; a correction is a posting in the opposite direction. So the ledger always equals the facts.

What was given as zakat has accounts of its own: those of what became of donors' money (`ZAKAT_ACCOUNTS`).
Accounts of where money is (clearing, bank) are of all money, and so is `held`, which counts in no fund.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import case, func, insert, select

from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction, Transaction
from services.payments.domain import FactKind
from services.payments.tables import PAYMENTS, POSTINGS

CLEARING: Final = "processor_clearing"
FEES: Final = "processor_fees"
BANK: Final = "bank"
RAISED: Final = "drive_raised"
SUSPENSE: Final = "held"
REFUNDS: Final = "refunds"
DISPUTES: Final = "disputes"
OFFLINE_CLEARING: Final = "offline_clearing"
MATCHING_RECEIVABLE: Final = "matching_receivable"
BENEFICIARY_PAYABLE: Final = "beneficiary_payable"
DISBURSED: Final = "disbursed"

ZAKAT_ACCOUNTS: Final[Mapping[str, str]] = {
    account: f"{account}_zakat"
    for account in (RAISED, REFUNDS, DISPUTES, FEES, BENEFICIARY_PAYABLE, DISBURSED)
}
"""The accounts to which zakat is posted, by those of other gifts."""
GENERAL_ACCOUNTS: Final[Mapping[str, str]] = {zakat: account for account, zakat in ZAKAT_ACCOUNTS.items()}
"""The reverse: by account of zakat, that of other gifts."""

PROCESSOR_MONEY: Final = (CLEARING, FEES, ZAKAT_ACCOUNTS[FEES], BANK)
"""The accounts whose balances add up to captured less refunded and disputed: what the processor still
holds, what it charged, and what it paid out."""

OTHER_SIDE: Final[Mapping[FactKind, str]] = {FactKind.REFUND: REFUNDS, FactKind.DISPUTE: DISPUTES}


@dataclass(frozen=True, slots=True)
class PostedAmount:
    """What the ledger holds for one fact: `units` at `account`, by `postings` rows so far."""

    units: int
    account: str
    postings: int


@dataclass(frozen=True, slots=True)
class NewPosting:
    """A posting to be written: `units` > 0 from account `credit` to account `debit`.

    `rate` is the payment's frozen rate, where its currency is not the drive's.
    """

    debit: str
    credit: str
    units: int
    currency: str
    cause: str
    rate: str | None = None


def difference(
    fact_id: str,
    kind: FactKind,
    currency: str,
    posted: PostedAmount,
    units: int,
    account: str,
    rate: str | None = None,
) -> tuple[list[NewPosting], PostedAmount]:
    """The postings that bring the ledger to `units` at `account` for a fact, and the amount posted then.

    Captures are debited to clearing and credited to `account` (`account_of`); refunds and disputes are
    debited to their own account and credited to clearing. `cause` numbers a fact's postings, so that none can
    be written twice.
    """
    steps: list[tuple[str, str, int]] = []
    captured = kind is FactKind.CAPTURE
    if posted.units and posted.account != account:
        debit, credit = (posted.account, account) if captured else (account, posted.account)
        steps.append((debit, credit, posted.units))
    change = units - posted.units
    if change:
        debit, credit = (CLEARING, account) if captured else (account, CLEARING)
        steps.append((debit, credit, change) if change > 0 else (credit, debit, -change))
    new = [
        NewPosting(debit, credit, amount, currency, f"{fact_id}#{posted.postings + number}", rate)
        for number, (debit, credit, amount) in enumerate(steps, 1)
    ]
    return new, PostedAmount(units, account, posted.postings + len(new))


def account_of(kind: FactKind, *, held: bool, zakat: bool) -> str:
    """The account opposite to clearing for a fact of this kind.

    Everything about held money is posted to the suspense account, so that its balance is what is held.
    """
    return SUSPENSE if held else in_fund(OTHER_SIDE.get(kind, RAISED), zakat=zakat)


def in_fund(account: str, *, zakat: bool) -> str:
    """An account that each fund has for itself: the one of zakat, or `account`, that of other gifts."""
    return ZAKAT_ACCOUNTS[account] if zakat else account


async def post(
    session: Transaction, postings: Sequence[tuple[NewPosting, str | None, str | None]], at: datetime
) -> None:
    """Write postings, each with its payment's and drive's id, where it has them.

    Raises `IntegrityError` for a known cause.
    """
    rows = [
        {"debit": new.debit, "credit": new.credit, "units": new.units, "currency": new.currency,
         "cause": new.cause, "payment_id": payment_id, "drive_id": drive_id, "posted_at": at,
         "rate": new.rate}
        for new, payment_id, drive_id in postings
    ]  # fmt: skip
    if rows:
        await session.execute(_INSERT, rows)


_INSERT: Final = insert(POSTINGS)


class FeePlace(NamedTuple):
    """Where the fees of a payment are posted: the drive ("": none), and the account of its fund."""

    drive_id: str
    account: str


async def move_fees(
    session: Transaction, payments: Mapping[str, FeePlace]
) -> list[tuple[NewPosting, str | None, str | None]]:
    """The postings that move fees to where their payments are now; `payments` has these places by id.

    The payments are locked, so that no other transaction posts fees of theirs meanwhile.
    """
    balances: defaultdict[tuple[str, FeePlace, str], int] = defaultdict(int)
    numbers: Counter[str] = Counter()
    rows = await session.execute(_FEES, {"payments": sorted(payments)})
    for payment_id, drive_id, currency, debit, credit, units in rows:
        numbers[payment_id] += 1
        account, change = (debit, units) if debit in _FEE_ACCOUNTS else (credit, -units)
        balances[payment_id, FeePlace(drive_id or "", account), currency] += change
    moved: list[tuple[NewPosting, str | None, str | None]] = []
    for (payment_id, posted, currency), units in sorted(balances.items()):
        if not units or posted == payments[payment_id]:
            continue
        for place, amount in ((posted, -units), (payments[payment_id], units)):
            numbers[payment_id] += 1
            debit, credit = (place.account, CLEARING) if amount > 0 else (CLEARING, place.account)
            new = NewPosting(debit, credit, abs(amount), currency, f"{payment_id}/fees#{numbers[payment_id]}")
            moved.append((new, payment_id, place.drive_id or None))
    return moved


_FEE_ACCOUNTS: Final = (FEES, ZAKAT_ACCOUNTS[FEES])
_FEES: Final = (
    select(
        POSTINGS.c.payment_id, POSTINGS.c.drive_id, POSTINGS.c.currency, POSTINGS.c.debit, POSTINGS.c.credit,
        POSTINGS.c.units,
    )
    .where(one_of(POSTINGS.c.payment_id, "payments"))
    .where(POSTINGS.c.debit.in_(_FEE_ACCOUNTS) | POSTINGS.c.credit.in_(_FEE_ACCOUNTS))
)  # fmt: skip


def processor_balance(transaction: SyncTransaction) -> dict[str, int]:
    """Captured less refunded and disputed, by currency, in minor units. Sums the whole table.

    Fees and payouts move money within `PROCESSOR_MONEY` and do not change it.
    """
    rows = transaction.execute(_PROCESSOR_BALANCE)
    return {currency: int(units) for currency, units in rows}


_DEBITED: Final = POSTINGS.c.debit.in_(PROCESSOR_MONEY)
_CREDITED: Final = POSTINGS.c.credit.in_(PROCESSOR_MONEY)
_PROCESSOR_BALANCE: Final = (
    select(
        POSTINGS.c.currency,
        func.sum(case((_DEBITED, POSTINGS.c.units), else_=0) - case((_CREDITED, POSTINGS.c.units), else_=0)),
    )
    .where(_DEBITED | _CREDITED)
    .group_by(POSTINGS.c.currency)
)


def balances(transaction: SyncTransaction) -> dict[tuple[str, str], int]:
    """Debits less credits by account and currency, in minor units. Sums the whole table."""
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    for debit, credit, currency, units in transaction.execute(_BETWEEN_ACCOUNTS):
        found[debit, currency] += int(units)
        found[credit, currency] -= int(units)
    return dict(found)


_BETWEEN_ACCOUNTS: Final = select(
    POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.currency, func.sum(POSTINGS.c.units)
).group_by(POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.currency)


class Compared(NamedTuple):
    """The ledger's `balances` by account and currency, and its `drift` by currency.

    Drift is the payments' net less the processor's balance, without offline gifts. Not 0: a defect.
    """

    drift: Mapping[str, int]
    balances: Mapping[tuple[str, str], int]


def compare(transaction: SyncTransaction) -> Compared:
    """Compare the ledger with the payments. Sums two whole tables (`Database.read_whole`)."""
    found = balances(transaction)
    posted: defaultdict[str, int] = defaultdict(int)
    for (account, currency), units in found.items():
        if account in PROCESSOR_MONEY:
            posted[currency] += units
    rows = transaction.execute(_NET_BY_CURRENCY)
    expected = {currency: int(units) for currency, units in rows}
    drift = {name: expected.get(name, 0) - posted.get(name, 0) for name in expected.keys() | posted.keys()}
    return Compared(drift, found)


_NET_BY_CURRENCY: Final = (
    select(
        PAYMENTS.c.paid_currency, func.sum(PAYMENTS.c.captured - PAYMENTS.c.refunded - PAYMENTS.c.disputed)
    )
    .where(PAYMENTS.c.paid_currency.is_not(None), PAYMENTS.c.offline.is_(False))
    .group_by(PAYMENTS.c.paid_currency)
)
