"""What happens at Stripe and with pledges, and the events about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from backbone.exchange_rates import Quote
from backbone.money import Money
from services.payments.rates.store import OfferedRate, offer
from tests.payments.harness import a_pledge
from tests.payments.life.model import (
    FAILED,
    OTHER,
    PENDING,
    SUCCEEDED,
    TAKES_ZAKAT,
    Capture,
)
from tests.payments.life.process import CRASHES, DRIVES, MORE, PICKED, PURPOSES, TOLD, UNITS, Process
from tests.payments.life.stripe_account import Told
from tests.payments.stripe_events import as_stored, metadata
from tests.rounds import apply_waiting

FAR = datetime(2100, 1, 1, tzinfo=UTC)
CURRENCIES = st.sampled_from(["USD", "USD", OTHER])
PAID_IN = st.sampled_from(["USD", "USD", OTHER, "EUR"])
WORTHLESS = "0.0045"
"""At this rate a gift of 1 yen is worth nothing."""
RATES = st.sampled_from(["0.0064531", "0.0091", WORTHLESS])


class AtStripe(Process):
    """Rules: pledges, payments, refunds and disputes, and webhooks in any order, any number of times."""

    @precondition(lambda self: 2 not in self.life.drives and len(self.life.captures) > 2)
    @rule(crash=CRASHES)
    def announce_the_third_drive(self, crash: int | None) -> None:
        self.announce_drive(2, crash)

    @rule(
        drive=DRIVES,
        units=UNITS,
        is_known=st.sampled_from([True, True, False]),
        crash=CRASHES,
        currency=CURRENCIES,
        purpose=PURPOSES,
    )
    def make_pledge(
        self,
        drive: int,
        units: int,
        is_known: bool,
        crash: int | None,
        currency: str,
        purpose: str | None,
    ) -> None:
        purpose = purpose if drive in TAKES_ZAKAT else None
        pledge = a_pledge(self.drives[drive], amount=Money(units, currency), purpose=purpose)
        self.pledges.append(pledge)
        if is_known:
            self.consume_pledge(len(self.pledges) - 1, crash)

    @precondition(lambda self: self.pledges)
    @rule(picked=PICKED, crash=CRASHES)
    def consume(self, picked: int, crash: int | None) -> None:
        self.consume_pledge(len(self.pledges) - 1 - picked % len(self.pledges), crash)

    # At Stripe

    @rule(
        drive=DRIVES,
        units=UNITS,
        is_known=TOLD,
        more=MORE,
        told=TOLD,
        currency=CURRENCIES,
        purpose=PURPOSES,
    )
    def give(
        self,
        drive: int,
        units: int,
        is_known: bool,
        more: int,
        told: bool,
        currency: str = "USD",
        purpose: str | None = None,
    ) -> None:
        """Pledge and pay."""
        self.make_pledge(drive, units, is_known, None, currency, purpose)
        self.pay(units + more, currency, len(self.pledges) - 1, drive, told)

    @precondition(lambda self: self.pledges)
    @rule(picked=PICKED, more=MORE, currency=PAID_IN, told=TOLD)
    def pay_pledge(self, picked: int, more: int, currency: str, told: bool) -> None:
        """Pay what was pledged, or more, or in another currency; also a second time."""
        number = len(self.pledges) - 1 - picked % len(self.pledges)
        pledge = self.pledges[number]
        drive = next(n for n, each in enumerate(self.drives) if each.drive_id == pledge.drive_id)
        self.pay(pledge.amount.minor_units + more, currency, number, drive, told)

    @rule(drive=DRIVES, units=UNITS, told=TOLD, currency=CURRENCIES)
    def pay_without_pledge(self, drive: int, units: int, told: bool, currency: str) -> None:
        self.pay(units, currency, None, drive, told)

    @rule(rate=RATES)
    def set_rate(self, rate: str) -> None:
        """Set the exchange rate; those that are frozen stay as they are."""
        self.rates_set += 1
        # Of a moment to come, because handlers of events of pledges use the system's clock.
        quote = Quote(rate, FAR + timedelta(seconds=self.rates_set))

        async def offered() -> object:
            async with self.database.transaction() as session:
                new = OfferedRate((OTHER, "USD"), quote, "api", "key_a", confirmed=True)
                return await offer(session, new, self.clock.now())

        assert self.run(offered()) is None
        self.life.quote = rate

    def pay(self, units: int, currency: str, pledge: int | None, drive: int, told: bool) -> None:
        self.clock.move(1)
        capture = Capture(
            f"pi_{len(self.account.captures) + 1}", units, currency, pledge, drive, self.account.now
        )
        of_pledge = None if pledge is None else self.pledges[pledge].pledge_id
        self.account.capture(capture, metadata(None, of_pledge, self.drives[drive].drive_id))
        self._tell(told)

    def _tell(self, told: bool) -> None:
        if told:
            self._store(self.account.events[-1:], None)
            self.apply(None)

    @precondition(lambda self: self.account.captures)
    @rule(picked=PICKED, units=UNITS, status=st.sampled_from([PENDING, SUCCEEDED]), told=TOLD)
    def refund_in_dashboard(self, picked: int, units: int, status: str, told: bool) -> None:
        intent = list(self.account.captures)[-1 - picked % len(self.account.captures)]
        units = min(units, self.account.left(intent))
        if units > 0:
            self.clock.move(1)
            self.account.refund(intent, units, status)
            self._tell(told)

    @precondition(lambda self: self.account.refunds)
    @rule(picked=PICKED, status=st.sampled_from([SUCCEEDED, FAILED]), told=TOLD)
    def end_refund(self, picked: int, status: str, told: bool) -> None:
        refund = list(self.account.refunds.values())[-1 - picked % len(self.account.refunds)]
        if refund.status != FAILED and refund.status != status:
            self.clock.move(1)
            self.account.end_refund(refund, status)
            self._tell(told)

    @precondition(lambda self: self.account.captures)
    @rule(picked=PICKED, units=UNITS, told=TOLD)
    def dispute(self, picked: int, units: int, told: bool) -> None:
        intent = list(self.account.captures)[-1 - picked % len(self.account.captures)]
        if all(each.intent != intent for each in self.account.disputes.values()):
            self.clock.move(1)
            self.account.dispute(intent, min(units, self.account.captures[intent].units))
            self._tell(told)

    @precondition(lambda self: self.account.disputes)
    @rule(
        picked=PICKED,
        step=st.sampled_from(["withdrawn", "won", "lost", "reinstated", "under_review"]),
        told=TOLD,
    )
    def change_dispute(self, picked: int, step: str, told: bool) -> None:
        name = list(self.account.disputes)[-1 - picked % len(self.account.disputes)]
        known = self.account.disputes[name]
        self.clock.move(1)
        out = -sum(known.moves)
        if step == "withdrawn" and not known.moves:
            self.account.change_dispute(name, "funds_withdrawn", known.status, -known.units)
        elif step == "reinstated" and out:
            self.account.change_dispute(name, "funds_reinstated", known.status, out)
        elif step in ("won", "lost") and known.status not in ("won", "lost"):
            self.account.change_dispute(name, "closed", step)
        elif step == "under_review" and known.status == "needs_response":
            self.account.change_dispute(name, "updated", step)
        else:
            return
        self._tell(told)

    # Webhooks

    @precondition(lambda self: self.account.events)
    @rule(picked=st.lists(st.integers(0, 30), min_size=1, max_size=3), crash=CRASHES)
    def deliver(self, picked: list[int], crash: int | None) -> None:
        """Deliver events in any order, whether or not they were delivered before."""
        events = self.account.events
        chosen = [events[-1 - number % len(events)] for number in picked]
        self._store(chosen, crash)

    @precondition(lambda self: self.account.events)
    @rule()
    def deliver_and_apply(self) -> None:
        """Deliver and apply everything that was not delivered yet."""
        self._store([each for each in self.account.events if each.body["id"] not in self.kept], None)
        self.apply(None)

    def _store(self, chosen: list[Told], crash: int | None) -> None:
        given = [as_stored(each.body) for each in chosen]
        committed, _ = self.attempt(self.books.store.keep_all(given), crash)
        for each in chosen if committed else ():
            if each.body["id"] not in self.kept:
                self.kept.add(each.body["id"])
                self.stored.append(each)

    @precondition(lambda self: self.stored)
    @rule(crash=CRASHES)
    def apply(self, crash: int | None) -> None:
        committed, _ = self.attempt(apply_waiting(self.books.applier), crash)
        if committed:
            with self.life.transaction():
                for told in self.stored:
                    told.see(self.life)
            self.stored = []
