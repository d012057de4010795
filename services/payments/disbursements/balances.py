"""What a drive's beneficiaries are owed, as payments, ledger and approved disbursements state it.

Sums the drive's payments, by the index `payments_captured`. That takes longer the more donations a drive
has, and is done once for each disbursement that is recorded or approved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, case, func, or_, select, text, true

from backbone.database.transaction import Transaction
from services.payments.disbursements.pending import charged, read_pending
from services.payments.disbursements.shares import owed
from services.payments.disbursements.tables import DISBURSEMENTS, PAID_OUT
from services.payments.funds import Fund, FundSums
from services.payments.rates.reporting import reported_net
from services.payments.recording.ledger import FEES, ZAKAT_ACCOUNTS
from services.payments.tables import CAPTURED, DRIVES, PAYMENTS, POSTINGS

_NET: Final = PAYMENTS.c.captured - PAYMENTS.c.refunded - PAYMENTS.c.disputed
_OF_DRIVE: Final = (
    PAYMENTS.c.drive_id == bindparam("drive"),
    PAYMENTS.c.paid_currency == bindparam("currency"),
    PAYMENTS.c.held.is_(False),
    text(CAPTURED),
)
_RAISED: Final = (
    select(
        func.coalesce(func.sum(case((PAYMENTS.c.zakat, 0), else_=_NET)), 0).label("general"),
        func.coalesce(func.sum(case((PAYMENTS.c.zakat, _NET), else_=0)), 0).label("zakat"),
    )
    .where(*_OF_DRIVE)
    .subquery("raised")
)
_FEE_ACCOUNTS: Final = (FEES, ZAKAT_ACCOUNTS[FEES])
_FEES: Final = (
    select(
        *(
            func.coalesce(func.sum(charged(account)), 0).label(name)
            for account, name in zip(_FEE_ACCOUNTS, ("general", "zakat"), strict=True)
        )
    )
    .where(
        POSTINGS.c.drive_id == bindparam("drive"),
        POSTINGS.c.currency == bindparam("currency"),
        or_(POSTINGS.c.debit.in_(_FEE_ACCOUNTS), POSTINGS.c.credit.in_(_FEE_ACCOUNTS)),
    )
    .subquery("fees")
)
_RAISED_AND_FEES: Final = select(
    _RAISED.c.general,
    _RAISED.c.zakat,
    _FEES.c.general.label("general_fees"),
    _FEES.c.zakat.label("zakat_fees"),
).select_from(_RAISED.join(_FEES, true()))
"""In one statement: a payment that becomes zakat moves with its fee, and is seen with both or neither."""
PAID: Final = (
    select(DISBURSEMENTS.c.beneficiary, DISBURSEMENTS.c.fund, func.sum(DISBURSEMENTS.c.units))
    .where(
        DISBURSEMENTS.c.drive_id == bindparam("drive"), text(PAID_OUT), DISBURSEMENTS.c.status != "reversed"
    )
    .group_by(DISBURSEMENTS.c.beneficiary, DISBURSEMENTS.c.fund)
)
_LOCK_DRIVE: Final = select(DRIVES.c.id).where(DRIVES.c.id == bindparam("drive")).with_for_update()


async def lock_drive(session: Transaction, drive_id: str) -> bool:
    """Make transactions that pay out money of this drive wait for each other; whether the drive is stored.

    No other transaction that holds this lock waits for a row of `disbursements`.
    """
    return (await session.execute(_LOCK_DRIVE, {"drive": drive_id})).first() is not None


async def net_of(session: Transaction, drive_id: str, currency: str) -> FundSums:
    """What each fund raised and kept, offline gifts included: without held money, refunds, disputes and fees.

    Gifts in other currencies count with what they are worth at their frozen rates. What is known to leave and
    not posted yet is subtracted too (`read_pending`). Unknown are fees whose balance transaction was not read
    yet, or is in a currency that is neither the gift's nor the drive's.
    """
    of_drive: dict[str, Any] = {"drive": drive_id, "currency": currency}
    pending = await session.run_sync(read_pending, drive_id, currency)
    found = (await session.execute(_RAISED_AND_FEES, of_drive)).one()
    general, zakat, general_fees, zakat_fees = map(int, found)
    raised, fees = FundSums(general, zakat), FundSums(general_fees, zakat_fees)
    reported = await reported_net(session, drive_id, currency)
    # Again: a payment may have become zakat in between. Each fund bears the more of what it bore and bears.
    pending = pending.largest(await session.run_sync(read_pending, drive_id, currency))
    return raised.plus(reported).minus(fees).minus(pending)


class PaidOut:
    """What was paid to beneficiaries and did not come back, from the rows of `PAID`, in minor units."""

    def __init__(self, rows: Iterable[tuple[str, str, int]] = ()) -> None:
        self.by_name: Counter[str] = Counter()
        self.by_fund: Counter[str] = Counter()
        for name, fund, units in rows:
            self.add(name, fund, int(units))

    def add(self, name: str, fund: str, units: int) -> None:
        """Count `units` more; below 0, less."""
        self.by_name[name] += units
        self.by_fund[fund] += units


async def paid_of(session: Transaction, drive_id: str) -> PaidOut:
    """What a drive's beneficiaries were paid."""
    return PaidOut(tuple(row) for row in await session.execute(PAID, {"drive": drive_id}))


class Payable(NamedTuple):
    """The most that may be paid now: to a beneficiary from any fund, and from a fund to anybody."""

    to_beneficiary: int
    from_fund: int

    @property
    def most(self) -> int:
        """What may be paid to the beneficiary from the fund."""
        return min(self)


def payable(net: FundSums, shares: Mapping[str, int], paid: PaidOut, name: str, fund: Fund) -> Payable:
    """What may be paid to `name` from `fund`.

    A beneficiary's share is that of both funds together, so the owner decides which of them it is paid from,
    and no minor unit is stuck between two roundings.
    """
    left = net.of(fund) - paid.by_fund[fund]
    return Payable(owed(net.whole, shares, paid.by_name, name), max(0, left))
