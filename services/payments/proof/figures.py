"""A drive's payments as payments' database knows them: their rows, their facts and their postings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Select, bindparam, case, func, select, text, type_coerce

from backbone.database.one_of import one_of
from backbone.database.transaction import SyncTransaction
from backbone.money import digits
from services.payments.approvals.states import Status
from services.payments.disbursements.tables import DISBURSEMENTS, PAID_OUT
from services.payments.domain import FactKind, Observation, sum_up
from services.payments.funds import Fund
from services.payments.matching.tables import POOLS
from services.payments.offline.tables import OFFLINE_GIFTS
from services.payments.recording import ledger
from services.payments.recording.rows import OBSERVATION_FIELDS
from services.payments.tables import CAPTURED, FACTS, PAYMENTS, POSTINGS


class Amounts(NamedTuple):
    """What was captured, refunded and disputed, in minor units."""

    captured: int = 0
    refunded: int = 0
    disputed: int = 0

    @property
    def net(self) -> int:
        """Captured less refunded and disputed."""
        return self.captured - self.refunded - self.disputed


class Posted(NamedTuple):
    """What the ledger holds for a payment, in minor units of the captured currency.

    Everything about held money is at `held`. What is counted is at the accounts of the payment's fund;
    `other_fund` is what is at those of the other one, and 0. `processor` and `offline` are the balances of
    the processor's money and of what came past it; `elsewhere` is the processor's in any other currency, and
    0. What sponsors added to the payment is in none of them.
    """

    captured: int = 0
    refunded: int = 0
    disputed: int = 0
    held: int = 0
    processor: int = 0
    offline: int = 0
    elsewhere: int = 0
    other_fund: int = 0

    @property
    def counted(self) -> Amounts:
        """What is counted, without held money."""
        return Amounts(self.captured, self.refunded, self.disputed)


class PostedAt(NamedTuple):
    """What is posted as counted for a payment in `drive` at `rate`, neither 0 nor the payment's own."""

    drive: str | None
    rate: str | None
    amounts: Amounts


class OwnFigures(NamedTuple):
    """A payment, what its facts add up to, and what the ledger holds for it.

    Amounts are in minor units of `currency`, which was captured; `changed_at` is in microseconds since 1970.
    """

    payment: str
    drive: str
    version: int
    currency: str | None
    held: bool
    changed_at: int
    stored: Amounts
    by_facts: Amounts
    posted: Posted
    offline: bool = False
    rate: str | None = None
    reporting_currency: str | None = None
    strays: Sequence[PostedAt] = ()
    """What is posted in another drive or at another rate than the payment's."""

    @property
    def reporting_net(self) -> int:
        """What it counts as in its drive's currency, as stored."""
        return self._worth(self.net, self.rate)

    @property
    def reporting_by_facts(self) -> int:
        """The same from its facts."""
        return self._worth(self.by_facts.net, self.rate)

    @property
    def reporting_by_ledger(self) -> int:
        """The same from its postings in its drive, each at the rate that it names."""
        own = self.posted.counted.net - sum(each.amounts.net for each in self.strays)
        in_drive = [each for each in self.strays if each.drive == self.drive]
        return self._worth(own, self.rate) + sum(
            self._worth(each.amounts.net, each.rate) for each in in_drive
        )

    def _worth(self, net: int, rate: str | None) -> int:
        """A net amount in the drive's currency; 0 where that is another and there is no rate."""
        target = self.reporting_currency or self.currency
        if rate is None or self.currency is None or target is None:
            return net if target == self.currency else 0
        return round(net * _factor(self.currency, target, rate))

    @property
    def expected(self) -> Posted:
        """What the ledger should hold for it."""
        if self.offline:
            return Posted(captured=self.net, offline=self.net)
        if self.held:
            return Posted(held=self.net, processor=self.net)
        return Posted(*self.stored, processor=self.net)

    @property
    def net(self) -> int:
        """Captured less refunded and disputed, as stored."""
        return self.stored.net

    @property
    def has_money(self) -> bool:
        """Whether any money has moved: leaderboard stores nothing of other payments."""
        return self.stored != (0, 0, 0)


@lru_cache(maxsize=1024)
def _factor(source: str, target: str, rate: str) -> Fraction:
    """Minor units of `target` for one of `source`. Not the arithmetic by which payments are counted."""
    return Fraction(rate) * Fraction(10) ** (digits(target) - digits(source))


def paid_payments(transaction: SyncTransaction, drive_id: str, after: str, limit: int) -> list[OwnFigures]:
    """The paid payments of a drive with ids above `after`, in the order of their ids; one snapshot."""
    given = {"of_drive": drive_id, "after": after, "most": limit}
    return _figures(transaction, transaction.execute(_PAGE, given).all())


def payments_by_id(transaction: SyncTransaction, ids: Collection[str]) -> list[OwnFigures]:
    """Those of these payments that exist, of any drive."""
    return _figures(transaction, transaction.execute(_BY_ID, {"ids": ids}).all())


def matched_sums(transaction: SyncTransaction, drive_id: str) -> dict[str, tuple[int, int]]:
    """By currency, what a drive's matching pools gave, and what the ledger holds of it."""
    of_drive = {"of_drive": drive_id}
    used = {currency: int(units) for currency, units in transaction.execute(_USED, of_drive)}
    posted = {currency: int(units) for currency, units in transaction.execute(_RECEIVABLE, of_drive)}
    return {one: (used.get(one, 0), posted.get(one, 0)) for one in used.keys() | posted.keys()}


_OF_RECEIVABLE: Final = POSTINGS.c.debit == ledger.MATCHING_RECEIVABLE
_USED: Final = (
    select(POOLS.c.currency, func.sum(POOLS.c.used))
    .where(POOLS.c.drive_id == bindparam("of_drive"))
    .group_by(POOLS.c.currency)
)
_RECEIVABLE: Final = (
    select(POSTINGS.c.currency, func.sum(case((_OF_RECEIVABLE, POSTINGS.c.units), else_=-POSTINGS.c.units)))
    .where(
        POSTINGS.c.drive_id == bindparam("of_drive"),
        _OF_RECEIVABLE | (POSTINGS.c.credit == ledger.MATCHING_RECEIVABLE),
    )
    .group_by(POSTINGS.c.currency)
)


def paid_out_sums(transaction: SyncTransaction, drive_id: str) -> dict[tuple[str, str], tuple[int, int]]:
    """By fund and currency, what a drive's disbursements paid out, and what the ledger holds of it."""
    of_drive = {"of_drive": drive_id}
    paid = {(fund, currency): int(units) for fund, currency, units in transaction.execute(_PAID, of_drive)}
    posted: Counter[tuple[str, str]] = Counter()
    for debit, credit, currency, units in transaction.execute(_DISBURSED, of_drive):
        for account, change in ((debit, -int(units)), (credit, int(units))):
            if account in _FUNDS:
                posted[_FUNDS[account], currency] += change
    return {one: (paid.get(one, 0), posted[one]) for one in paid.keys() | posted.keys()}


_FUNDS: Final[Mapping[str, str]] = {
    ledger.DISBURSED: Fund.GENERAL.value,
    ledger.in_fund(ledger.DISBURSED, zakat=True): Fund.ZAKAT.value,
}
"""By account of what was paid out: its fund."""
_PAID: Final = (
    select(DISBURSEMENTS.c.fund, DISBURSEMENTS.c.currency, func.sum(DISBURSEMENTS.c.units))
    .where(
        DISBURSEMENTS.c.drive_id == bindparam("of_drive"),
        text(PAID_OUT),
        DISBURSEMENTS.c.status != Status.REVERSED,
    )
    .group_by(DISBURSEMENTS.c.fund, DISBURSEMENTS.c.currency)
)
_DISBURSED: Final = (
    select(POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.currency, func.sum(POSTINGS.c.units))
    .where(
        POSTINGS.c.drive_id == bindparam("of_drive"),
        POSTINGS.c.debit.in_(_FUNDS) | POSTINGS.c.credit.in_(_FUNDS),
    )
    .group_by(POSTINGS.c.debit, POSTINGS.c.credit, POSTINGS.c.currency)
)


def number_of_paid(transaction: SyncTransaction, drive_id: str) -> int:
    """How many payments `paid_payments` has for a drive."""
    return int(transaction.execute(_COUNT, {"of_drive": drive_id}).scalar_one())


_COLUMNS: Final = (
    PAYMENTS.c.id, PAYMENTS.c.drive_id, PAYMENTS.c.version, PAYMENTS.c.paid_currency, PAYMENTS.c.held,
    type_coerce(PAYMENTS.c.changed_at, BigInteger).label("changed_at"),
    PAYMENTS.c.captured, PAYMENTS.c.refunded, PAYMENTS.c.disputed,
    PAYMENTS.c.offline, PAYMENTS.c.rate, PAYMENTS.c.reporting_currency, PAYMENTS.c.zakat,
    PAYMENTS.c.intent,
)  # fmt: skip
_OF_DRIVE: Final = PAYMENTS.c.drive_id == bindparam("of_drive")
_PAGE: Final = (
    select(*_COLUMNS)
    .where(_OF_DRIVE, text(CAPTURED), PAYMENTS.c.id > bindparam("after"))
    .order_by(PAYMENTS.c.id)
    .limit(bindparam("most"))
)
_BY_ID: Final = select(*_COLUMNS).where(one_of(PAYMENTS.c.id, "ids"))
_COUNT: Final = select(func.count()).select_from(PAYMENTS).where(_OF_DRIVE, text(CAPTURED))


def _figures(transaction: SyncTransaction, rows: Sequence[Any]) -> list[OwnFigures]:
    by_facts = _facts(transaction, [row[-1] for row in rows if row[-1] is not None])
    by_facts |= _gifts(transaction, [row[0] for row in rows if row.offline])
    paid = {row.id: _Paid(row.paid_currency, row.drive_id, row.rate, row.zakat) for row in rows}
    posted, strays = _posted(transaction, paid)
    nothing, unposted = Amounts(), Posted()
    return [
        OwnFigures(
            payment, drive, version, currency, held, changed_at, Amounts(captured, refunded, disputed),
            by_facts.get(payment if offline else intent, nothing), posted.get(payment, unposted), offline,
            rate, reporting_currency, strays.get(payment, ()),
        )
        for (
            payment, drive, version, currency, held, changed_at, captured, refunded, disputed, offline, rate,
            reporting_currency, _, intent,
        ) in rows
    ]  # fmt: skip


def _gifts(transaction: SyncTransaction, payments: Sequence[str]) -> dict[str, Amounts]:
    """What approvals say of offline gifts, by payment; a reversed one is captured and refunded."""
    if not payments:
        return {}
    rows = transaction.execute(_GIFTS, {"payments": payments})
    return {
        payment: Amounts(units, units if status == Status.REVERSED else 0) for payment, units, status in rows
    }


_GIFTS: Final = select(OFFLINE_GIFTS.c.payment_id, OFFLINE_GIFTS.c.units, OFFLINE_GIFTS.c.status).where(
    one_of(OFFLINE_GIFTS.c.payment_id, "payments")
)


def _facts(transaction: SyncTransaction, intents: Sequence[str]) -> dict[str, Amounts]:
    """What the facts of payment intents add up to. Most have a capture and nothing else."""
    found: dict[str, Amounts] = {}
    several: set[str] = set()
    for intent, kind, units in transaction.execute(_BRIEF_FACTS, {"intents": intents}):
        if intent in found or kind != FactKind.CAPTURE:
            several.add(intent)
        else:
            found[intent] = Amounts(units)
    observed: defaultdict[str, list[Observation]] = defaultdict(list)
    for row in transaction.execute(_WHOLE_FACTS, {"intents": list(several)}) if several else ():
        each, kind, intent, *others = row
        observed[intent].append(Observation(each, FactKind(kind), intent, *others))
    for intent, facts in observed.items():
        sums = sum_up(facts, ended=False)
        found[intent] = Amounts(sums.captured, sums.refunded, sums.disputed)
    return found


_OF_INTENTS: Final = one_of(FACTS.c.intent, "intents")
_BRIEF_FACTS: Final = select(FACTS.c.intent, FACTS.c.kind, FACTS.c.units).where(_OF_INTENTS)
_WHOLE_FACTS: Final[Select[Any]] = select(*(FACTS.c[name] for name in OBSERVATION_FIELDS)).where(_OF_INTENTS)
assert OBSERVATION_FIELDS[:3] == ("id", "kind", "intent")


class _Paid(NamedTuple):
    """In which currency a payment was captured, for which drive, its frozen rate, and whether it is zakat."""

    currency: str | None
    drive: str
    rate: str | None
    zakat: bool


def _posted(
    transaction: SyncTransaction, paid: Mapping[str, _Paid]
) -> tuple[dict[str, Posted], dict[str, list[PostedAt]]]:
    """What the ledger holds for payments, by their ids, and what of it is not at their own drive and rate."""
    found: dict[str, Posted] = {}
    strays: defaultdict[str, defaultdict[tuple[str | None, str | None], list[int]]]
    strays = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for payment, currency, drive, rate, debit, credit, units in transaction.execute(
        _POSTED, {"ids": list(paid)}
    ):
        own, known = paid[payment], found.get(payment)
        is_stray = drive != own.drive or rate != own.rate
        is_own_currency = currency == own.currency
        if known is None and not is_stray and is_own_currency and (debit, credit) == _CAPTURED[own.zakat]:
            found[payment] = Posted(captured=units, processor=units)  # most have this posting and no other
        elif ledger.MATCHING_RECEIVABLE not in (debit, credit):
            sides = _SIDES[own.zakat]
            moved = _moved(sides.get(debit, ()), units, is_own_currency)
            back = _moved(sides.get(credit, ()), -units, is_own_currency)
            found[payment] = Posted(*map(sum, zip(known or Posted(), moved, back, strict=True)))
            if is_stray:
                amounts = strays[payment][drive, rate]
                amounts[:] = map(sum, zip(amounts, moved.counted, back.counted, strict=True))
    return found, {
        payment: [PostedAt(*key, Amounts(*amounts)) for key, amounts in by_key.items() if any(amounts)]
        for payment, by_key in strays.items()
    }


def _moved(sides: Sequence[tuple[str, int]], units: int, own_currency: bool) -> Posted:
    """The effect of a debit of an account, by the fields of `Posted` that it is part of."""
    if own_currency:
        return Posted(**{name: sign * units for name, sign in sides})
    return Posted(elsewhere=sum(units for name, _ in sides if name == "processor"))


_COUNTED: Final[Mapping[str, tuple[str, int]]] = {
    ledger.RAISED: ("captured", -1),
    ledger.OTHER_SIDE[FactKind.REFUND]: ("refunded", 1),
    ledger.OTHER_SIDE[FactKind.DISPUTE]: ("disputed", 1),
}


def _sides(*, zakat: bool) -> dict[str, Sequence[tuple[str, int]]]:
    """For payments of one fund: the fields of `Posted` that an account's debits raise (1) or lower (-1)."""
    sides: dict[str, Sequence[tuple[str, int]]] = {
        ledger.SUSPENSE: (("held", -1),),
        ledger.OFFLINE_CLEARING: (("offline", 1),),
        **dict.fromkeys(ledger.PROCESSOR_MONEY, (("processor", 1),)),
    }
    for account, (name, sign) in _COUNTED.items():
        sides[ledger.in_fund(account, zakat=zakat)] = ((name, sign),)
        sides[ledger.in_fund(account, zakat=not zakat)] = (("other_fund", sign),)
    sides[ledger.in_fund(ledger.FEES, zakat=not zakat)] = (("processor", 1), ("other_fund", 1))
    return sides


_FUND_FLAGS: Final = (False, True)
_CAPTURED: Final = tuple(
    (ledger.CLEARING, ledger.in_fund(ledger.RAISED, zakat=zakat)) for zakat in _FUND_FLAGS
)
_SIDES: Final = tuple(_sides(zakat=zakat) for zakat in _FUND_FLAGS)
"""For payments that are no zakat, and for those that are."""

_POSTED: Final = select(
    POSTINGS.c.payment_id, POSTINGS.c.currency, POSTINGS.c.drive_id, POSTINGS.c.rate, POSTINGS.c.debit,
    POSTINGS.c.credit, POSTINGS.c.units,
).where(one_of(POSTINGS.c.payment_id, "ids"))  # fmt: skip
