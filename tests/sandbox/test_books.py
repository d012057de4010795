"""The books, after any sequence of what can happen to money."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sandbox import checkout, disputes, paying, refunds
from sandbox.account import Account
from sandbox.api import find_operation
from sandbox.books import books
from sandbox.call import Call
from sandbox.currencies import decimal_string, fee
from sandbox.events import EventLog
from sandbox.forms import decode
from sandbox.journal import Journal
from sandbox.refusals import Refusal

CARDS = ("4242424242424242", "4000000000000002", "4000000000005126", "4000000000007726")
CURRENCIES = {"usd": 1, "jpy": 1, "kwd": 10, "isk": 100}
INQUIRY = ("warning_needs_response", "warning_under_review")
DECIDED = ("won", "lost", "needs_response", "under_review")
AFTER = {
    "warning_needs_response": (*INQUIRY, "warning_closed", *DECIDED),
    "warning_under_review": (*INQUIRY, "warning_closed", *DECIDED),
    "needs_response": DECIDED,
    "under_review": DECIDED,
    "won": ("lost",),
}
"""What a dispute may become."""


@dataclass
class Disputed:
    """What a dispute has taken, told from outside."""

    status: str
    gone: int
    amount: int

    def become(self, status: str, left: int) -> None:
        """Take on a status while `left` of the charge is not refunded."""
        before, self.status = self.status, status
        if status == before:
            return
        taken = self.amount if before == "" else min(self.amount, left)
        if status in ("needs_response", "under_review") and self.gone == 0:
            self.gone = taken if before == "" else left
        elif status == "prevented":
            self.gone = taken
        elif status == "lost":
            self.gone = min(left, self.gone) if self.gone else min(left, self.amount)
        elif status == "won":
            self.gone = 0


class Money(RuleBasedStateMachine):
    """Pays, refunds, disputes and settles at random, and keeps its own books beside the sandbox's."""

    payments = Bundle("payments")
    refunds = Bundle("refunds")

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal(None)
        self.account = Account(self.journal, EventLog(self.journal), "http://sandbox")
        self.captured: dict[str, int] = {}
        self.currency: dict[str, str] = {}
        self.given_back: dict[str, tuple[str, int]] = {}
        self.disputed: dict[str, Disputed] = {}
        self.sold = 0

    @initialize()
    def empty(self) -> None:
        assert books(self.journal) == {}

    def left(self, payment: str) -> int:
        return self.captured[payment] - sum(
            amount for owner, amount in self.given_back.values() if owner == payment
        )

    @rule(
        target=payments,
        steps=st.integers(1, 99_999_999 // 100),
        currency=st.sampled_from(sorted(CURRENCIES)),
        card=st.sampled_from(CARDS),
    )
    def give(self, steps: int, currency: str, card: str) -> str:
        price = {"currency": currency, "unit_amount": str(steps * CURRENCIES[currency])}
        line = {"quantity": "1", "price_data": price | {"product_data": {"name": "Winter"}}}
        wish = {
            "mode": "payment",
            "line_items": {"0": line},
            "success_url": "http://example.org/",
            "payment_intent_data": {"metadata": {"ataa_drive": "drv_1"}},
        }
        session = checkout.create_session(self.account, Call(wish))["id"]
        tried = paying.pay(self.account, session, card, None, None)
        if tried.decline is not None:
            assert tried.session.status == "open"
            tried = paying.pay(self.account, session, CARDS[0], None, None)
        repeated = paying.pay(self.account, session, CARDS[0], None, None)
        payment = tried.session.payment
        assert payment is not None
        assert repeated.session.payment == payment
        self.captured[payment] = steps * CURRENCIES[currency]
        self.currency[payment] = currency.upper()
        return payment

    @rule(
        amount=st.integers(100, 10_000), reference=st.sampled_from([{}, {"client_reference_id": "order-17"}])
    )
    def sell_something_else(self, amount: int, reference: dict[str, str]) -> None:
        """Other business on the same account, with a refund and a dispute of its own."""
        price = {"currency": "usd", "unit_amount": str(amount), "product_data": {"name": "Hat"}}
        line = {"quantity": "1", "price_data": price}
        wish = {"mode": "payment", "line_items": {"0": line}, "success_url": "http://example.org/"}
        session = checkout.create_session(self.account, Call(wish | reference))["id"]
        payment = paying.pay(self.account, session, CARDS[0], None, None).session.payment
        assert payment is not None
        refunds.create_refund(self.account, Call({"payment_intent": payment, "amount": "50"}))
        disputes.bring_to(self.account, payment, "needs_response")
        self.sold += 1

    @rule(target=refunds, payment=payments, share=st.fractions(0, 1.2))
    def refund(self, payment: str, share: Any) -> str:
        step = CURRENCIES[self.currency[payment].lower()]
        amount = int(self.captured[payment] * share) // step * step
        wish = {"payment_intent": payment, "amount": str(amount)}
        forbidden = payment in self.disputed and self.disputed[payment].gone > 0
        if forbidden or not 0 < amount <= self.left(payment):
            with pytest.raises(Refusal):
                refunds.create_refund(self.account, Call(wish))
            return ""
        refund_id: str = refunds.create_refund(self.account, Call(wish))["id"]
        self.given_back[refund_id] = (payment, amount)
        return refund_id

    @rule(refund=refunds)
    def fail_refund(self, refund: str) -> None:
        if refund in self.given_back:
            refunds.fail_refund(self.account, refund)
            del self.given_back[refund]

    @rule(payment=payments, status=st.sampled_from(disputes.STATUSES), full=st.booleans())
    def dispute(self, payment: str, status: str, full: bool) -> None:
        known, left = self.disputed.get(payment), self.left(payment)
        possible = left > 0 if known is None else status in (known.status, *AFTER.get(known.status, ()))
        amount = self.captured[payment] if full else left
        wish = disputes.Wish(amount) if full else None
        if not possible:
            with pytest.raises(Refusal):
                disputes.bring_to(self.account, payment, status, wish)
            return
        shown = disputes.bring_to(self.account, payment, status, wish)
        if known is None:
            known = self.disputed[payment] = Disputed("", 0, amount)
        known.become(status, left)
        assert (shown["status"], shown["amount"]) == (status, known.amount)
        assert -sum(each["amount"] for each in shown["balance_transactions"]) == known.gone

    @invariant()
    def the_books_are_right(self) -> None:
        kept = books(self.journal)
        assert kept.keys() == set(self.currency.values())
        for currency, row in kept.items():
            of = [payment for payment, its in self.currency.items() if its == currency]
            captured = sum(self.captured[payment] for payment in of)
            refunded = sum(amount for owner, amount in self.given_back.values() if owner in of)
            lost = sum(self.disputed[payment].gone for payment in of if payment in self.disputed)
            fees = sum(fee(self.captured[payment], currency) for payment in of)
            expected = (captured, refunded, lost, fees, captured - refunded - lost - fees)
            names = ("captured", "refunded", "disputed", "fees", "net")
            assert row == {
                name: decimal_string(amount, currency) for name, amount in zip(names, expected, strict=True)
            }

    @invariant()
    def other_business_is_in_no_books_but_those_of_everything(self) -> None:
        dispute_count = len(self.journal.rows("SELECT 1 FROM disputes"))
        assert dispute_count == len(self.disputed) + self.sold
        if self.sold:
            everything = books(self.journal, with_foreign=True)
            assert everything["USD"] != books(self.journal).get("USD")

    @invariant()
    def nothing_goes_back_that_did_not_come(self) -> None:
        for payment in self.captured:
            left = self.account.unrefunded(self.account.payment(payment))
            assert left == self.left(payment) >= 0
            if payment in self.disputed:
                assert 0 <= self.disputed[payment].gone <= self.captured[payment]

    def teardown(self) -> None:
        self.journal.close()


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (2550, "USD", "25.50"), (5, "USD", "0.05"), (-103, "USD", "-1.03"), (-5, "USD", "-0.05"),
        (700, "JPY", "700"), (1230, "KWD", "1.230"), (50_000, "ISK", "500"), (99_999_999, "EUR", "999999.99"),
    ],
)  # fmt: skip
def test_amounts_are_written_with_their_currency_s_digits(amount: int, currency: str, text: str) -> None:
    assert decimal_string(amount, currency) == text
    assert Decimal(text) == Decimal(decimal_string(amount, currency))


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [(2500, "USD", 103), (1000, "USD", 59), (17, "USD", 30), (18, "USD", 31), (10_000, "ISK", 300)],
)
def test_the_fee_is_rounded_half_up(amount: int, currency: str, expected: int) -> None:
    assert fee(amount, currency) == expected


def test_stripe_s_form_encoding_is_read_with_or_without_escaped_brackets() -> None:
    expected = {"a": {"b": {"0": {"c": "d e"}}}, "x": {"0": "1", "1": "2"}, "z": "é&="}
    assert decode("a[b][0][c]=d+e&x[]=1&x[]=2&z=%C3%A9%26%3D") == expected
    assert decode("a%5Bb%5D%5B0%5D%5Bc%5D=d%20e&x[0]=1&x[1]=2&z=%C3%A9%26%3D") == expected


@pytest.mark.parametrize("form", ["a=1&a[b]=2", "a[b]=2&a=1", "a[b=1", "a" + "[b]" * 9 + "=1"])
def test_parameters_that_contradict_each_other_are_refused(form: str) -> None:
    with pytest.raises(Refusal):
        decode(form)


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/refunds/re_1/cancel", "/v1/", "/v1/events/evt_1/x/y"])
def test_addresses_the_sandbox_does_not_offer_are_refused(path: str) -> None:
    with pytest.raises(Refusal) as refused:
        find_operation("GET", path)
    assert refused.value.status == 404
