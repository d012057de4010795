"""What gifts in other currencies are worth in their drive's, from the ledger and from the payments.

A posting of such a gift names the rate that was frozen for it. So the ledger alone gives each payment's
cumulative amounts and their rate, and `exchange_rates.reported` the same figures that leaderboard counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, select, text

from backbone.database.transaction import SyncTransaction, Transaction
from backbone.exchange_rates import Reported, converted, reported
from services.payments.funds import FundSums
from services.payments.recording import ledger
from services.payments.tables import CAPTURED, PAYMENTS, POSTINGS

NOTHING: Final = Reported(0, 0, 0)

_GENERAL: Final = {ledger.RAISED: (0, -1), ledger.REFUNDS: (1, 1), ledger.DISPUTES: (2, 1)}
ZAKAT_PLACES: Final = {ledger.ZAKAT_ACCOUNTS[account]: place for account, place in _GENERAL.items()}
PLACES: Final = {**_GENERAL, **ZAKAT_PLACES}
"""By account: the place of its amount in `Reported`, and the sign of its debits; those of zakat, and all."""


class RatedMovement(NamedTuple):
    """What was posted for a payment from one account to another at a rate, in minor units."""

    payment_id: str
    currency: str
    rate: str
    debit: str
    credit: str
    units: int


def reported_by_ledger(
    movements: Iterable[RatedMovement], target: str, places: Mapping[str, tuple[int, int]] = PLACES
) -> Reported:
    """The sum of what these payments are worth in `target`; money that is held is not among it.

    `places` has the accounts that are summed. A payment is in one fund: zakat is part of the whole exactly.
    """
    payments: defaultdict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for payment_id, currency, rate, debit, credit, units in movements:
        for account, moved in ((debit, units), (credit, -units)):
            if account in places:
                place, sign = places[account]
                payments[payment_id, currency, rate][place] += sign * moved
    found = [
        reported(captured, refunded, disputed, currency, target, rate)
        for (_, currency, rate), (captured, refunded, disputed) in payments.items()
    ]
    return Reported(*(sum(each) for each in zip(*found, strict=True))) if found else NOTHING


class ReportedFunds(NamedTuple):
    """What a drive's gifts in other currencies are worth: all of them, and those that are zakat."""

    whole: Reported = NOTHING
    zakat: Reported = NOTHING


NONE_REPORTED: Final = ReportedFunds()


def read_reported(transaction: SyncTransaction, drive_id: str, target: str) -> ReportedFunds:
    """The same for all gifts in other currencies of a drive. Reads all of their postings."""
    rows = transaction.execute(_RATED, {"drive": drive_id})
    movements = [
        RatedMovement(row.payment_id, row.currency, row.rate, row.debit, row.credit, int(row.units))
        for row in rows
    ]
    return ReportedFunds(
        reported_by_ledger(movements, target), reported_by_ledger(movements, target, ZAKAT_PLACES)
    )


_RATED: Final = (
    select(
        POSTINGS.c.payment_id, POSTINGS.c.currency, POSTINGS.c.rate, POSTINGS.c.debit, POSTINGS.c.credit,
        func.sum(POSTINGS.c.units).label("units"),
    )
    .where(POSTINGS.c.drive_id == bindparam("drive"), POSTINGS.c.rate.is_not(None))
    .group_by(
        POSTINGS.c.payment_id, POSTINGS.c.currency, POSTINGS.c.rate, POSTINGS.c.debit, POSTINGS.c.credit
    )
)  # fmt: skip


async def reported_net(session: Transaction, drive_id: str, target: str) -> FundSums:
    """What is left of a drive's gifts in other currencies, in `target`."""
    left = [0, 0]
    for row in await session.execute(_PAID, {"drive": drive_id, "currency": target}):
        left[row.zakat] += converted(row.net, row.paid_currency, target, row.rate)
    return FundSums(*left)


_PAID: Final = select(
    (PAYMENTS.c.captured - PAYMENTS.c.refunded - PAYMENTS.c.disputed).label("net"),
    PAYMENTS.c.paid_currency,
    PAYMENTS.c.rate,
    PAYMENTS.c.zakat,
).where(
    PAYMENTS.c.drive_id == bindparam("drive"),
    PAYMENTS.c.reporting_currency == bindparam("currency"),
    PAYMENTS.c.held.is_(False),
    text(CAPTURED),
)
