"""Stripe's test cards (https://docs.stripe.com/testing) and the outcome of paying with each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

Refunding = Literal["succeeds", "succeeds_later", "fails_later"]
Settling = Literal["at_once", "succeeds_later", "fails_later"]


@dataclass(frozen=True, slots=True)
class Card:
    """One test card or bank account; it is charged unless it has a `decline_code`.

    With `authenticates`, the donor first has to authenticate on the page of the card's bank (3-D Secure).
    """

    brand: str
    decline_code: str | None = None
    decline_message: str = "Your card was declined."
    disputed: bool = False
    refunding: Refunding = "succeeds"
    authenticates: bool = False
    settling: Settling = "at_once"

    @property
    def method(self) -> str:
        """Stripe's type of the payment method."""
        return "card" if self.settling == "at_once" else "us_bank_account"

    @property
    def error_code(self) -> str:
        """The error's `code`; for a few declines it equals the decline code."""
        own = ("expired_card", "incorrect_cvc", "processing_error")
        return self.decline_code if self.decline_code in own else "card_declined"


CARDS: Final[dict[str, Card]] = {
    "4242424242424242": Card("visa"),
    "4000056655665556": Card("visa"),
    "5555555555554444": Card("mastercard"),
    "5105105105105100": Card("mastercard"),
    "378282246310005": Card("amex"),
    "4000000000000002": Card("visa", "generic_decline"),
    "4000000000009995": Card("visa", "insufficient_funds", "Your card has insufficient funds."),
    "4000000000009987": Card("visa", "lost_card"),
    "4000000000009979": Card("visa", "stolen_card"),
    "4000000000000069": Card("visa", "expired_card", "Your card has expired."),
    "4000000000000127": Card("visa", "incorrect_cvc", "Your card's security code is incorrect."),
    "4000000000000119": Card(
        "visa", "processing_error", "An error occurred while processing your card. Try again in a little bit."
    ),
    "4000000000000259": Card("visa", disputed=True),
    "4000000000007726": Card("visa", refunding="succeeds_later"),
    "4000000000005126": Card("visa", refunding="fails_later"),
    "4000002760003184": Card("visa", authenticates=True),
    "4000000000003220": Card("visa", authenticates=True),
    "4000008400001629": Card("visa", "generic_decline", authenticates=True),
    # Bank accounts, whose debits settle later (docs.stripe.com/payments/ach-direct-debit).
    "000123456789": Card("", settling="succeeds_later"),
    "000111111116": Card("", settling="fails_later"),
}


def fingerprint_of(number: str) -> str:
    """A card's fingerprint: the same for the same number, and 16 characters as Stripe's."""
    return hashlib.sha256(f"sandbox {number}".encode()).hexdigest()[:16]


def digits_of(number: str) -> str:
    """The number without spaces and hyphens."""
    return number.replace(" ", "").replace("-", "")
