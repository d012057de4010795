"""Balance transactions as payments reads them, and what each one posts to the ledger.

Captures, refunds and disputes are posted from their facts (recording/); a balance transaction adds its fee.
Payouts and fees of the account are posted from their own transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.payments.processor import Movement
from services.payments.recording.ledger import BANK, CLEARING, FEES, NewPosting, in_fund

PAYOUT_TYPES: Final = frozenset(("payout", "payout_cancel", "payout_failure"))
ACCOUNT_FEES: Final = frozenset(("stripe_fee", "stripe_fx_fee", "tax_fee", "network_cost"))
"""Types whose amount is a fee of the account, not of one payment."""

PAYMENT_TYPES: Final = frozenset(
    (
        "charge", "payment", "refund", "payment_refund", "refund_failure", "payment_failure_refund",
        "payment_reversal", "adjustment",
    )
)  # fmt: skip
"""Types whose amount is posted from the facts of a payment (docs.stripe.com/api/balance_transactions)."""

CAPTURE_TYPES: Final = ("charge", "payment")


class MovementState(StrEnum):
    """What became of a balance transaction.

    `waiting`: its payment is unknown so far, and so is whether it is ours. `held`: it cannot be posted
    without a guess. `foreign`: it belongs to other business of the account.
    """

    POSTED = "posted"
    WAITING = "waiting"
    HELD = "held"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class PlacedPayment:
    """The payment of a movement."""

    id: str
    drive_id: str
    currency: str
    zakat: bool = False


def state_of(movement: Movement, payments: Mapping[str, PlacedPayment]) -> MovementState:
    """What becomes of a movement, given the captured payments by intent."""
    if movement.type in PAYOUT_TYPES:
        return MovementState.POSTED
    if movement.intent is None:
        if movement.type in ACCOUNT_FEES:
            return MovementState.POSTED
        # A charge without a payment intent cannot be ours; anything else moved money that nobody explains.
        return MovementState.FOREIGN if movement.type in CAPTURE_TYPES else MovementState.HELD
    if movement.type not in PAYMENT_TYPES | ACCOUNT_FEES:
        return MovementState.HELD
    payment = payments.get(movement.intent)
    if payment is None:
        return MovementState.WAITING
    return MovementState.POSTED if payment.currency == movement.currency else MovementState.HELD


def postings_of(movement: Movement, *, zakat: bool = False) -> list[NewPosting]:
    """The postings of a movement that is posted; each cause is the transaction's id and what it posts.

    `zakat` is whether its payment is: a fee of zakat is posted to an account of its own.
    """
    fee = movement.fee - (movement.amount if movement.type in ACCOUNT_FEES else 0)
    steps = [("fee", in_fund(FEES, zakat=zakat), fee)]
    if movement.type in PAYOUT_TYPES:
        steps.append(("payout", BANK, -movement.amount))
    return [
        NewPosting(
            account if units > 0 else CLEARING,
            CLEARING if units > 0 else account,
            abs(units),
            movement.currency,
            f"{movement.id}#{name}",
        )
        for name, account, units in steps
        if units
    ]
