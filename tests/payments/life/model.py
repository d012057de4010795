"""A plain model of money: what has been reported, and the amounts, accounts and shares that follow from it.

Money is in minor units. Drives, pledges and pools are numbers; a payment is known by its intent at Stripe, an
offline gift by its number. Nothing here is stored, versioned or shared with the code under test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

PENDING, SUCCEEDED, FAILED = "pending", "succeeded", "failed"
_ORDER = (PENDING, SUCCEEDED, FAILED)
OTHER = "JPY"
"""The currency that all drives take besides their own, USD."""
SHARES = {"Relief": 7_000, "Homes": 3_000}

Net = dict[str, tuple[int, int | None]]
"""By payment: its drive, and what is left of it; None where it does not count."""
Account = tuple[int, str, str]
"""A drive (-1: none), a currency and an account's name."""


@dataclass
class Capture:
    intent: str
    units: int
    currency: str
    pledge: int | None
    drive: int | None
    """The drive that its metadata names."""
    at: int


@dataclass
class Dispute:
    intent: str
    units: int
    status: str
    moves: tuple[int, ...]
    told_at: int


@dataclass
class Pool:
    drive: int
    cap: int
    ratio: int
    per_gift_cap: int | None
    starts_at: int
    ends_at: int | None
    firsts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By payment: its first share, and the net that it was computed from."""
    shares: dict[str, int] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return sum(self.shares.values())


@dataclass
class Offline:
    drive: int
    units: int
    status: str = "pending"


@dataclass
class Disbursement:
    drive: int
    beneficiary: str
    units: int
    fund: str
    status: str = "pending"


@dataclass
class Life:
    """What payments knows of everything that happened so far."""

    pledged: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    """The drive, the amount and the currency of each pledge that is known to payments."""
    zakat: set[int] = field(default_factory=set)
    """Those of them that were made as zakat."""
    drives: set[int] = field(default_factory=set)
    captures: dict[str, Capture] = field(default_factory=dict)
    refunds: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    unsent: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Refunds that were asked for and not reported yet: the intent and the amount."""
    waiting: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Refunds that wait for a second key, likewise."""
    fees: dict[str, tuple[str, int]] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)
    """Of `fees`, those whose payment was known when they were looked at."""
    offline: list[Offline] = field(default_factory=list)
    disbursed: list[Disbursement] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    ceased: set[tuple[str, int]] = field(default_factory=set)
    """Payments that counted in a drive and were held later."""
    quote: str | None = None
    """The newest exchange rate of `OTHER` in USD, which is never too old."""
    rates: dict[str, str] = field(default_factory=dict)
    """The frozen rates, by payment."""
    read_rates: Callable[[], Mapping[str, str]] = dict
    """The rates on the payments as stored. When one is frozen is checked, and what follows is predicted."""

    # What is reported

    def see_capture(self, capture: Capture) -> None:
        self.captures.setdefault(capture.intent, capture)

    def see_refund(self, name: str, intent: str, units: int, status: str) -> None:
        known = self.refunds.get(name, (intent, units, PENDING))[2]
        self.refunds[name] = (intent, units, max(known, status, key=_ORDER.index))

    def see_dispute(self, name: str, dispute: Dispute) -> None:
        known = self.disputes.get(name)
        if known is None or known.told_at < dispute.told_at:
            self.disputes[name] = dispute

    # What follows for a payment

    def amounts(self, intent: str) -> tuple[int, int, int]:
        """Captured, refunded and disputed."""
        captured = self.captures[intent].units
        refunded = sum(
            units for of, units, status in self.refunds.values() if of == intent and status != FAILED
        )
        exact, estimated = 0, 0
        for each in self.disputes.values():
            if each.intent == intent and each.moves:
                exact += max(0, -sum(each.moves))
            elif each.intent == intent and each.status in ("needs_response", "under_review", "lost"):
                estimated += each.units
        left = max(0, captured - refunded - exact)
        return captured, refunded, exact + min(estimated, left)

    def status(self, intent: str) -> str:
        captured, refunded, disputed = self.amounts(intent)
        if disputed:
            return "disputed"
        if refunded >= captured:
            return "refunded"
        return "partly_refunded" if refunded else "captured"

    def pledge_drive(self, intent: str) -> int | None:
        """The drive that the pledge names; its first capture's metadata while the pledge is unknown."""
        capture = self.captures[intent]
        if capture.pledge is None:
            return capture.drive
        if capture.pledge in self.pledged:
            return self.pledged[capture.pledge][0]
        return next(each.drive for each in self.captures.values() if each.pledge == capture.pledge)

    def drive(self, intent: str) -> int | None:
        return self.released.get(intent, self.pledge_drive(intent))

    def fund(self, intent: str) -> str:
        return "zakat" if self.captures[intent].pledge in self.zakat else "general"

    def held(self, intent: str) -> str | None:
        """Why a payment is held."""
        capture, drive = self.captures[intent], self.drive(intent)
        if drive not in self.drives:
            return "unknown_drive"
        if capture.currency not in ("USD", OTHER):
            return "other_currency"
        pledged = self.pledged.get(-1 if capture.pledge is None else capture.pledge)
        if intent not in self.released and pledged is not None:
            if pledged[2] != capture.currency:
                return "other_currency"
            if pledged[1] != capture.units:
                return "other_amount"
        return None if capture.currency == "USD" or intent in self.rates else "no_exchange_rate"

    def left(self, intent: str) -> int:
        """What may still be refunded through our API."""
        captured, refunded, _ = self.amounts(intent)
        return captured - refunded - sum(units for of, units in self.reserved() if of == intent)

    def reserved(self) -> list[tuple[str, int]]:
        """The refunds that were asked for and not reported yet, waiting or not."""
        return [*self.unsent.values(), *self.waiting.values()]

    # Exchange rates

    def is_convertible(self, intent: str) -> bool:
        """Whether a gift in `OTHER` is worth a cent at its frozen rate, or at the newest."""
        rate = self.rates.get(intent, self.quote)
        return rate is not None and worth(self.captures[intent].units, rate) > 0

    def worth_of(self, intent: str, units: int) -> int:
        """An amount of a payment in USD, if it has a rate or needs none."""
        return worth(units, self.rates[intent]) if intent in self.rates else units

    def _freeze(self, before: Mapping[str, str | None]) -> None:
        """Take over the rates that were frozen in a transaction; `before` has why payments were held."""
        stored = self.read_rates()
        for intent, capture in self.captures.items():
            known, found = self.rates.get(intent), stored.get(intent)
            if known is not None or capture.currency != OTHER:
                assert found == known, "a frozen rate changed"
                continue
            waits = before.get(intent) == "no_exchange_rate" and intent not in self.released
            may = self.drive(intent) in self.drives and self.is_convertible(intent) and not waits
            assert found is None or (may and found == self.quote)
            assert found is not None or not may or intent in before, "no rate was frozen with a capture"
            if found is not None:
                self.rates[intent] = found

    # Matching

    def nets(self) -> Net:
        found: Net = {}
        for intent in self.captures:
            drive = self.drive(intent)
            captured, refunded, disputed = self.amounts(intent)
            net = captured - refunded - disputed
            counted = None if self.held(intent) else self.worth_of(intent, net)
            found[intent] = (-1 if drive is None else drive, counted)
        return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Match what changes within the block, as one transaction does."""
        before, reasons = self.nets(), {each: self.held(each) for each in self.captures}
        yield
        self._freeze(reasons)
        after = self.nets()
        self._match(before, after)

    def _match(self, before: Net, after: Net) -> None:
        changed = sorted(
            (each for each in after if before.get(each) != after[each]),
            key=lambda each: self.captures[each].at,
        )
        for each in changed:
            was = before.get(each, (-1, None))
            if was[1] is not None and after[each][1] is None:
                self.ceased.add((each, after[each][0]))
        for each in changed:
            for pool in self.pools:
                if each in pool.firsts:
                    net = after[each][1] if pool.drive == after[each][0] else None
                    pool.shares[each] = min(pool.shares[each], _due(pool, each, net))
        for each in changed:
            for pool in self.pools:
                if each in pool.firsts and pool.drive == after[each][0]:
                    due = _due(pool, each, after[each][1])
                    rise = due - _due(pool, each, before.get(each, (-1, None))[1])
                    pool.shares[each] += max(0, min(rise, due - pool.shares[each], pool.cap - pool.used))
        for each in changed:
            drive, net = after[each]
            is_new = before.get(each, (-1, None))[1] is None and net is not None
            if is_new and (each, drive) not in self.ceased:
                self._share_out(each, drive, max(0, net or 0))

    def _share_out(self, intent: str, drive: int, net: int) -> None:
        at = self.captures[intent].at
        for pool in self.pools:
            is_open = pool.starts_at <= at and (pool.ends_at is None or at < pool.ends_at)
            if pool.drive != drive or not is_open or intent in pool.firsts:
                continue
            share = min(net * pool.ratio // 10_000, pool.cap - pool.used)
            share = share if pool.per_gift_cap is None else min(share, pool.per_gift_cap)
            if share > 0:
                pool.firsts[intent], pool.shares[intent] = (share, net), share

    # Accounts

    def balances(self) -> dict[Account, int]:
        """Debits less credits of each account."""
        found: Counter[Account] = Counter()

        def move(drive: int | None, currency: str, debit: str, credit: str, units: int) -> None:
            place = -1 if drive is None else drive
            found[place, currency, debit] += units
            found[place, currency, credit] -= units

        for intent, capture in self.captures.items():
            drive, held = self.drive(intent), self.held(intent)
            captured, refunded, disputed = self.amounts(intent)
            own = _SUFFIX[self.fund(intent)]
            clearing, currency = "processor_clearing", capture.currency
            move(drive, currency, clearing, "held" if held else f"drive_raised{own}", captured)
            move(drive, currency, "held" if held else f"refunds{own}", clearing, refunded)
            move(drive, currency, "held" if held else f"disputes{own}", clearing, disputed)
        for name in self.placed:
            intent, units = self.fees[name]
            currency, fees = self.captures[intent].currency, f"processor_fees{_SUFFIX[self.fund(intent)]}"
            move(self.drive(intent), currency, fees, "processor_clearing", units)
        for gift in self.offline:
            if gift.status in ("approved", "reversal_requested"):
                move(gift.drive, "USD", "offline_clearing", "drive_raised", gift.units)
        for pool in self.pools:
            move(pool.drive, "USD", "matching_receivable", "drive_raised", pool.used)
        for one in self.disbursed:
            if one.status in PAID:
                own = _SUFFIX[one.fund]
                move(one.drive, "USD", f"beneficiary_payable{own}", f"disbursed{own}", one.units)
        return {account: units for account, units in found.items() if units}

    def owed(self, drive: int, beneficiary: str) -> int:
        """What may be paid to a beneficiary of a drive now, from both funds together."""
        net = self.net(drive, "general") + self.net(drive, "zakat")
        paid = Counter[str]()
        for one in self.disbursed:
            if one.drive == drive and one.status in PAID:
                paid[one.beneficiary] += one.units
        parts = {name: max(0, net) * bps // 10_000 for name, bps in SHARES.items()}
        rest = max(0, net) - sum(parts.values())
        first = max(SHARES, key=lambda name: max(0, net) * SHARES[name] % 10_000)
        parts[first] += rest
        due = parts[beneficiary] - paid[beneficiary]
        return max(0, min(due, max(0, net) - paid.total()))

    def net(self, drive: int, fund: str) -> int:
        """What a fund of a drive raised and kept."""
        net = sum(
            left
            for intent, (place, left) in self.nets().items()
            if place == drive and left is not None and self.fund(intent) == fund
        )
        if fund == "general":
            net += sum(
                gift.units
                for gift in self.offline
                if gift.drive == drive and gift.status in ("approved", "reversal_requested")
            )
        net -= sum(
            units
            for name, (intent, units) in self.fees.items()
            if intent in self.captures
            and self.drive(intent) == drive
            and self.captures[intent].currency == "USD"
            and self.fund(intent) == fund
        )
        net -= sum(
            self.worth_of(intent, units) + (intent in self.rates)  # a refund may round the net down by one
            for intent, units in self.reserved()
            if self.drive(intent) == drive and not self.held(intent) and self.fund(intent) == fund
        )
        return net - self._rated_fees(drive, fund)

    def _rated_fees(self, drive: int, fund: str) -> int:
        """Fees of gifts in `OTHER`: rounded up together a rate, as if there were one fund."""
        whole, zakat = Counter[str](), Counter[str]()
        for name in self.placed:
            intent, units = self.fees[name]
            if intent in self.rates and self.drive(intent) == drive:
                whole[self.rates[intent]] += units
                if self.fund(intent) == "zakat":
                    zakat[self.rates[intent]] += units
        of_zakat = _worth_up(zakat)
        return of_zakat if fund == "zakat" else _worth_up(whole) - of_zakat

    def left_in(self, drive: int, fund: str) -> int:
        """What may be paid out of a fund of a drive, to whomever it is owed."""
        out = (one for one in self.disbursed if one.drive == drive and one.status in PAID)
        return max(0, self.net(drive, fund) - sum(one.units for one in out if one.fund == fund))


def worth(yen: int, rate: str) -> int:
    """An amount in `OTHER`, which has no minor unit, in cents; rounded once, half to even."""
    return round(yen * Fraction(rate) * 100)


def _worth_up(yen: Mapping[str, int]) -> int:
    """Amounts in `OTHER` by their rates, in cents; each rounded up."""
    return sum(ceil(units * Fraction(rate) * 100) for rate, units in yen.items())


_SUFFIX = {"general": "", "zakat": "_zakat"}
TAKES_ZAKAT = (0, 2)
"""The drives that take zakat."""
PAID = ("approved", "reversal_requested")


def _due(pool: Pool, intent: str, net: int | None) -> int:
    first, base = pool.firsts[intent]
    return first * min(max(0, net or 0), base) // base
