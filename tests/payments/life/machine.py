"""Any life of any payments, step by step against the plain model, with crashes between and within steps."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.payments.life.at_stripe import RATES, WORTHLESS, AtStripe
from tests.payments.life.comparison import Compared
from tests.payments.life.decisions import Decisions
from tests.payments.life.large_refunds import DecidedRefunds
from tests.payments.life.model import (
    OTHER,
    PENDING,
    SUCCEEDED,
)
from tests.payments.life.process import CRASHES, PURPOSES, UNITS


class LivesOfPayments(AtStripe, DecidedRefunds, Decisions, Compared):
    """All rules. At its end what is left is delivered, sent and placed, and everything is compared again."""

    @rule(
        units=UNITS,
        drive=st.sampled_from([0, 1]),
        fee=st.sampled_from([0, 30]),
        crash=CRASHES,
        purpose=PURPOSES,
    )
    def give_too_much_and_release(
        self, units: int, drive: int, fee: int, crash: int | None, purpose: str | None
    ) -> None:
        """A gift that is held, and counted by a person in its drive or in another one."""
        self.give(0, units, is_known=True, more=100, told=True, purpose=purpose)
        if fee:
            self.read_fee(0, fee, is_held=False, crash=None)
        self.release(0, drive, is_held=False, crash=crash)

    @rule(units=UNITS, before=RATES, after=RATES, part=UNITS)
    def give_at_a_rate_that_changes(self, units: int, before: str, after: str, part: int) -> None:
        """A gift in another currency that is partly refunded after the rate has changed."""
        self.set_rate(before)
        self.give(0, units, is_known=True, more=0, told=True, currency=OTHER)
        self.set_rate(after)
        self.refund_in_dashboard(0, part, SUCCEEDED, told=True)

    @rule(after=RATES, step=st.sampled_from(["dispute", "refund"]), crash=CRASHES)
    def give_too_little_for_a_rate_and_release(self, after: str, step: str, crash: int | None) -> None:
        """A gift that is worth nothing at its capture: a later rate counts it once a person releases it."""
        self.set_rate(WORTHLESS)
        self.give(0, 1, is_known=True, more=0, told=True, currency=OTHER)
        self.set_rate(after)
        if step == "dispute":
            self.dispute(0, 1, told=True)
        else:
            self.refund_in_dashboard(0, 1, PENDING, told=True)
        if self.life.held(list(self.account.captures)[-1]):
            self.release(0, 0, is_held=True, crash=crash)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.finish()
            self.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    def finish(self) -> None:
        """Deliver everything and compare once more, with the statements too."""
        if not self.life.drives:
            return
        self.announce_drive(2)
        for number in range(len(self.pledges)):
            self.consume_pledge(number)
        self.deliver([self.account.events.index(each) for each in self.account.events], None)
        self.apply(None)
        self.processor.outcome = SUCCEEDED
        self.retry_refunds(None)
        self.place_fees(None)
        self.everything_agrees()
        assert not any(self.run(self.books.drift()).values())
        self.statements_agree()
