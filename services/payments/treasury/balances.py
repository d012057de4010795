"""A drive's trial balance and statement, computed from the ledger.

Postings are summed by debit account, credit account and currency. Everything else follows from these sums,
so an account appears as soon as something is posted to it. Only late money is summed from the payments: a
posting does not say when its money was captured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, select, text

from backbone.contracts.pledges import DriveState
from backbone.database.transaction import SyncTransaction
from backbone.exchange_rates import Reported, converted
from services.payments.disbursements.balances import PAID, PaidOut
from services.payments.disbursements.pending import read_pending
from services.payments.disbursements.shares import owed, shares_of
from services.payments.funds import NO_SUMS, Fund, FundSums
from services.payments.rates.reporting import NONE_REPORTED, ReportedFunds, read_reported
from services.payments.recording import ledger
from services.payments.tables import CAPTURED, DRIVES, PAYMENTS, POSTINGS


class Movement(NamedTuple):
    """What was posted from one account to another, in minor units."""

    debit: str
    credit: str
    currency: str
    units: int


class AccountSums(NamedTuple):
    """The debits and credits of an account in one currency, in minor units."""

    account: str
    currency: str
    debit: int
    credit: int


class Owed(NamedTuple):
    """What is still to be paid to a beneficiary."""

    beneficiary: str
    units: int


@dataclass(slots=True)
class ZakatPart:
    """The part of a `Statement` that was given as zakat, posted to accounts of its own.

    `raised` is gross less refunds and disputes: what is matched or came past the processor is not zakat.
    `owed` is what may still be paid out of it; None but in the drive's currency.
    """

    gross: int = 0
    refunds: int = 0
    disputes: int = 0
    raised: int = 0
    fees: int = 0
    paid_out: int = 0
    owed: int | None = None


@dataclass(slots=True)
class Statement:
    """A drive's money in one currency, in minor units.

    `gross` is captured and counted; `refunds` and `disputes` (open or lost) are of counted money.
    `raised` is gross, offline and matched less both. `held` is what is not counted, less what of it was
    returned. `late` is the part of `gross` that was captured after the drive closed; None where that moment
    is not known.
    """

    currency: str
    gross: int = 0
    offline: int = 0
    matched: int = 0
    refunds: int = 0
    disputes: int = 0
    raised: int = 0
    held: int = 0
    fees: int = 0
    paid_out: int = 0
    late: int | None = 0
    owed: Sequence[Owed] = field(default_factory=tuple)
    zakat: ZakatPart = field(default_factory=ZakatPart)


@dataclass(frozen=True, slots=True)
class DriveLedger:
    """The sums of a drive's postings up to number `through`, and what else a statement needs."""

    movements: Sequence[Movement]
    through: int
    closed_at: datetime | None
    late: Mapping[str, int] | None
    """Captured after `closed_at` and counted, by currency; None where the drive is closed, but since when is
    unknown."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """The beneficiaries' ten-thousandths, by name."""
    paid: PaidOut = field(default_factory=PaidOut)
    """What was paid to each of them, in the drive's currency."""
    pending: FundSums = NO_SUMS
    """What is known to leave and is in no line, in the drive's currency (`read_pending`)."""
    converted: ReportedFunds = NONE_REPORTED
    """What gifts in other currencies are worth in the drive's, counted."""
    late_converted: int = 0
    """What of it was captured after `closed_at`."""


def read_drive_ledger(transaction: SyncTransaction, drive_id: str) -> DriveLedger:
    """Read all postings of a drive (`Database.read_whole`), and its late payments once it is closed."""
    values = {"drive": drive_id}
    rows = list(transaction.execute(_MOVEMENTS, values))
    movements = [Movement(row.debit, row.credit, row.currency, int(row.units)) for row in rows]
    drive = transaction.execute(_CLOSED_AT, values).first()
    closed_at = None if drive is None else drive.closed_at
    late: dict[str, int] | None = {}
    if closed_at is not None:
        found = transaction.execute(_LATE, values | {"closed_at": closed_at})
        late = {currency: int(units) for currency, units in found}
    elif drive is not None and drive.state == DriveState.CLOSED:
        late = None
    shares = {} if drive is None else shares_of(drive.beneficiaries or ())
    paid = PaidOut(tuple(row) for row in transaction.execute(PAID, values))
    through = max((row.through for row in rows), default=0)
    currency = "" if drive is None else drive.currency
    pending = NO_SUMS if drive is None else read_pending(transaction, drive_id, currency)
    many = drive is not None and bool(drive.currencies)
    worth = read_reported(transaction, drive_id, currency) if many else NONE_REPORTED
    late_worth = 0
    if closed_at is not None:
        found = transaction.execute(_LATE_RATED, values | {"closed_at": closed_at})
        late_worth = sum(converted(row.captured, row.paid_currency, currency, row.rate) for row in found)
    return DriveLedger(movements, through, closed_at, late, shares, paid, pending, worth, late_worth)


_MOVEMENTS: Final = (
    select(
        POSTINGS.c.debit,
        POSTINGS.c.credit,
        POSTINGS.c.currency,
        func.sum(POSTINGS.c.units).label("units"),
        func.max(POSTINGS.c.number).label("through"),
    )
    .where(POSTINGS.c.drive_id == bindparam("drive"))
    .group_by(POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.currency)
)
_CLOSED_AT: Final = select(
    DRIVES.c.state, DRIVES.c.closed_at, DRIVES.c.beneficiaries, DRIVES.c.currency, DRIVES.c.currencies
).where(DRIVES.c.id == bindparam("drive"))
_LATE: Final = (
    select(PAYMENTS.c.paid_currency, func.sum(PAYMENTS.c.captured))
    .where(
        PAYMENTS.c.drive_id == bindparam("drive"),
        text(CAPTURED),
        PAYMENTS.c.held.is_(False),
        PAYMENTS.c.offline.is_(False),
        PAYMENTS.c.captured_at > bindparam("closed_at", type_=PAYMENTS.c.captured_at.type),
    )
    .group_by(PAYMENTS.c.paid_currency)
)


_LATE_RATED: Final = select(PAYMENTS.c.captured, PAYMENTS.c.paid_currency, PAYMENTS.c.rate).where(
    PAYMENTS.c.drive_id == bindparam("drive"),
    text(CAPTURED),
    PAYMENTS.c.held.is_(False),
    PAYMENTS.c.rate.is_not(None),
    PAYMENTS.c.captured_at > bindparam("closed_at", type_=PAYMENTS.c.captured_at.type),
)


def trial_balance(movements: Iterable[Movement]) -> list[AccountSums]:
    """Debits and credits by account and currency. In each currency both add up to the same sum."""
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for debit, credit, currency, units in movements:
        sums[currency, debit][0] += units
        sums[currency, credit][1] += units
    return [AccountSums(account, currency, *both) for (currency, account), both in sorted(sums.items())]


_RAISED_FROM: Final = {
    (ledger.OFFLINE_CLEARING, ledger.RAISED): "offline",
    (ledger.MATCHING_RECEIVABLE, ledger.RAISED): "matched",
}
"""Where counted money comes from, by the accounts of its postings; all else is captured by the processor."""

_BALANCES: Final[Mapping[str, tuple[str, int]]] = {
    ledger.REFUNDS: ("refunds", 1),
    ledger.DISPUTES: ("disputes", 1),
    ledger.SUSPENSE: ("held", -1),
    ledger.FEES: ("fees", 1),
    ledger.DISBURSED: ("paid_out", -1),
}
"""The accounts whose balance is a line of the statement, with its sign: debits less credits, or reverse."""


def statements(found: DriveLedger, drive_currency: str) -> list[Statement]:
    """The statement of each currency in which something was posted; the drive's own one comes first.

    That one contains what gifts in other currencies are worth at their frozen rates. The statement of another
    currency has the same gifts as they were given.
    """
    lines: dict[str, Statement] = {drive_currency: Statement(drive_currency)}
    for movement in found.movements:
        line = lines.setdefault(movement.currency, Statement(movement.currency))
        _add(line, movement.debit, movement.credit, movement.units)
        _add(line, movement.credit, movement.debit, -movement.units)
    main = lines[drive_currency]
    parts: tuple[tuple[Statement | ZakatPart, Reported], ...] = (
        (main, found.converted.whole), (main.zakat, found.converted.zakat),
    )  # fmt: skip
    for part, worth in parts:
        part.gross, part.refunds = part.gross + worth.captured, part.refunds + worth.refunded
        part.disputes += worth.disputed
    for line in lines.values():
        line.raised = line.gross + line.offline + line.matched - line.refunds - line.disputes
        line.zakat.raised = line.zakat.gross - line.zakat.refunds - line.zakat.disputes
        line.late = None if found.late is None else found.late.get(line.currency, 0)
    own = main
    if own.late is not None:
        own.late += found.late_converted
    _state_owed(own, found)
    return [lines.pop(drive_currency), *(lines[name] for name in sorted(lines))]


def _state_owed(own: Statement, found: DriveLedger) -> None:
    """Set what is owed, to each beneficiary and from zakat.

    What sponsors promised is not there to be paid out, and fees are gone.
    """
    whole = own.raised - own.matched - own.fees - found.pending.whole
    own.owed = [Owed(name, owed(whole, found.shares, found.paid.by_name, name)) for name in found.shares]
    zakat = own.zakat.raised - own.zakat.fees - found.pending.zakat - found.paid.by_fund[Fund.ZAKAT]
    left = max(0, whole) - found.paid.by_name.total()
    own.zakat.owed = max(0, min(zakat, left))


def _add(line: Statement, account: str, other: str, units: int) -> None:
    """Add what was posted to `account` (`units` > 0: debited) against `other` to a statement."""
    general = ledger.GENERAL_ACCOUNTS.get(account, account)
    if general == ledger.RAISED:
        name, sign = _RAISED_FROM.get((other, account), "gross"), -1
    elif general in _BALANCES:
        name, sign = _BALANCES[general]
    else:
        return
    parts: tuple[Statement | ZakatPart, ...] = (line,) if general == account else (line, line.zakat)
    for part in parts:
        setattr(part, name, getattr(part, name) + sign * units)
