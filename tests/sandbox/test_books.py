"""The books after any sequence of payments, refunds and disputes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sandbox import checkout, disputes, payment_intents, payouts, refunds
from sandbox.account import Account
from sandbox.api import find_operation
from sandbox.api_call import ApiCall
from sandbox.books import books
from sandbox.currencies import decimal_string, fee
from sandbox.errors import ApiError
from sandbox.events import EventLog
from sandbox.forms import decode
from sandbox.journal import Journal

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
"""The allowed transitions of a dispute."""


@dataclass
class Disputed:
    """An independent model of a dispute and the amount it has withdrawn."""

    status: str
    withdrawn: int
    amount: int

    def become(self, status: str, left: int) -> None:
        """Change the status while `left` of the charge is not refunded."""
        before, self.status = self.status, status
        if status == before:
            return
        taken = self.amount if before == "" else min(self.amount, left)
        if status in ("needs_response", "under_review") and self.withdrawn == 0:
            self.withdrawn = taken if before == "" else left
        elif status == "prevented":
            self.withdrawn = taken
        elif status == "lost":
            self.withdrawn = min(left, self.withdrawn) if self.withdrawn else min(left, self.amount)
        elif status == "won":
            self.withdrawn = 0


class Money(RuleBasedStateMachine):
    """Random payments, refunds and disputes, with independent books to compare with the sandbox's."""

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
        self.paid_out: Counter[str] = Counter()

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
        session_params = {
            "mode": "payment",
            "line_items": {"0": line},
            "success_url": "http://example.org/",
            "payment_intent_data": {"metadata": {"ataa_drive": "drv_1"}},
        }
        session = checkout.create_session(self.account, ApiCall(session_params))["id"]
        tried = payment_intents.pay(self.account, session, card, None, None)
        if tried.decline is not None:
            assert tried.session.status == "open"
            tried = payment_intents.pay(self.account, session, CARDS[0], None, None)
        repeated = payment_intents.pay(self.account, session, CARDS[0], None, None)
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
        """A payment that Ataa did not create, with its own refund and dispute."""
        price = {"currency": "usd", "unit_amount": str(amount), "product_data": {"name": "Hat"}}
        line = {"quantity": "1", "price_data": price}
        session_params = {"mode": "payment", "line_items": {"0": line}, "success_url": "http://example.org/"}
        session = checkout.create_session(self.account, ApiCall(session_params | reference))["id"]
        payment = payment_intents.pay(self.account, session, CARDS[0], None, None).session.payment
        assert payment is not None
        refunds.create_refund(self.account, ApiCall({"payment_intent": payment, "amount": "50"}))
        disputes.set_status(self.account, payment, "needs_response")
        self.sold += 1

    @rule(target=refunds, payment=payments, share=st.fractions(0, 1.2))
    def refund(self, payment: str, share: Any) -> str:
        step = CURRENCIES[self.currency[payment].lower()]
        amount = int(self.captured[payment] * share) // step * step
        session_params = {"payment_intent": payment, "amount": str(amount)}
        forbidden = payment in self.disputed and self.disputed[payment].withdrawn > 0
        if forbidden or not 0 < amount <= self.left(payment):
            with pytest.raises(ApiError):
                refunds.create_refund(self.account, ApiCall(session_params))
            return ""
        refund_id: str = refunds.create_refund(self.account, ApiCall(session_params))["id"]
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
        session_params = disputes.DisputeRequest(amount) if full else None
        if not possible:
            with pytest.raises(ApiError):
                disputes.set_status(self.account, payment, status, session_params)
            return
        shown = disputes.set_status(self.account, payment, status, session_params)
        if known is None:
            known = self.disputed[payment] = Disputed("", 0, amount)
        known.become(status, left)
        assert (shown["status"], shown["amount"]) == (status, known.amount)
        assert -sum(each["amount"] for each in shown["balance_transactions"]) == known.withdrawn

    @invariant()
    def books_are_right(self) -> None:
        kept = books(self.journal)
        assert kept.keys() == set(self.currency.values())
        for currency, row in kept.items():
            of = [payment for payment, its in self.currency.items() if its == currency]
            captured = sum(self.captured[payment] for payment in of)
            refunded = sum(amount for owner, amount in self.given_back.values() if owner in of)
            lost = sum(self.disputed[payment].withdrawn for payment in of if payment in self.disputed)
            fees = sum(fee(self.captured[payment], currency) for payment in of)
            fees += sum(
                1_500 for payment in of if payment in self.disputed and self.disputed[payment].withdrawn
            )
            expected = (captured, refunded, lost, fees, captured - refunded - lost - fees)
            names = ("captured", "refunded", "disputed", "fees", "net")
            assert row == {
                name: decimal_string(amount, currency) for name, amount in zip(names, expected, strict=True)
            }

    @rule(failing=st.booleans(), currency=st.sampled_from([None, "USD", "JPY"]))
    def pay_out(self, failing: bool, currency: str | None) -> None:
        """Every payout is the sum of what it pays out; a failed one returns to the balance."""
        for payout in payouts.make_payouts(self.account, currency, failing=failing):
            assert currency in (None, payout["currency"].upper())
            lines = self.lines("payout = ? AND type <> 'payout'", payout["id"])
            assert sum(amount - charged for amount, charged in lines) == payout["amount"] > 0
            (payouts.fail_payout if failing else payouts.settle_payout)(self.account, payout["id"])
            self.paid_out[payout["currency"].upper()] += 0 if failing else payout["amount"]

    def lines(self, condition: str, *values: str) -> list[tuple[int, int]]:
        """Amount and fee of balance transactions."""
        return self.journal.rows(f"SELECT amount, fee FROM balance_transactions WHERE {condition}", values)

    @invariant()
    def balance_is_what_was_not_paid_out(self) -> None:
        for currency, row in books(self.journal, with_foreign=True).items():
            balance = sum(amount - charged for amount, charged in self.lines("currency = ?", currency))
            assert decimal_string(balance + self.paid_out[currency], currency) == row["net"]

    @invariant()
    def foreign_payments_are_in_the_full_books_only(self) -> None:
        dispute_count = len(self.journal.rows("SELECT 1 FROM disputes"))
        assert dispute_count == len(self.disputed) + self.sold
        if self.sold:
            everything = books(self.journal, with_foreign=True)
            assert everything["USD"] != books(self.journal).get("USD")

    @invariant()
    def refunds_and_disputes_do_not_exceed_captures(self) -> None:
        for payment in self.captured:
            left = self.account.refundable(self.account.payment(payment))
            assert left == self.left(payment) >= 0
            if payment in self.disputed:
                assert 0 <= self.disputed[payment].withdrawn <= self.captured[payment]

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
def test_amount_has_the_decimals_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert decimal_string(amount, currency) == text
    assert Decimal(text) == Decimal(decimal_string(amount, currency))


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [(2500, "USD", 103), (1000, "USD", 59), (17, "USD", 30), (18, "USD", 31), (10_000, "ISK", 300)],
)
def test_fee_is_rounded_half_up(amount: int, currency: str, expected: int) -> None:
    assert fee(amount, currency) == expected


def test_form_encoding_is_read_with_and_without_escaped_brackets() -> None:
    expected = {"a": {"b": {"0": {"c": "d e"}}}, "x": {"0": "1", "1": "2"}, "z": "é&="}
    assert decode("a[b][0][c]=d+e&x[]=1&x[]=2&z=%C3%A9%26%3D") == expected
    assert decode("a%5Bb%5D%5B0%5D%5Bc%5D=d%20e&x[0]=1&x[1]=2&z=%C3%A9%26%3D") == expected


@pytest.mark.parametrize("form", ["a=1&a[b]=2", "a[b]=2&a=1", "a[b=1", "a" + "[b]" * 9 + "=1"])
def test_contradictory_parameters_are_refused(form: str) -> None:
    with pytest.raises(ApiError):
        decode(form)


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/refunds/re_1/cancel", "/v1/", "/v1/events/evt_1/x/y"])
def test_unknown_routes_are_refused(path: str) -> None:
    with pytest.raises(ApiError) as refused:
        find_operation("GET", path)
    assert refused.value.status == 404
