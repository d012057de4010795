"""Disputes: opened by a card or a command, then decided (https://docs.stripe.com/disputes/how-disputes-work).

What a dispute takes and gives back are its balance transactions, in the currency of the payment: the
amount is withdrawn when it opens (not for an inquiry or a block), and returned when it is won. A
dispute that is lost returns what was refunded before (https://support.stripe.com/questions/
dispute-for-full-charge-amount-after-a-partial-refund-was-issued).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sandbox import forms
from sandbox.account import Account
from sandbox.call import Call
from sandbox.events import Subject
from sandbox.listing import Clause, page_of
from sandbox.records import Dispute, Json, Payment, new_id
from sandbox.refusals import Refusal, impossible, missing
from sandbox.shapes import dispute_object, page_object, to_json

INQUIRIES: Final = ("warning_needs_response", "warning_under_review", "warning_closed")
OPEN: Final = ("needs_response", "under_review")
STATUSES: Final = (*OPEN, "won", "lost", *INQUIRIES, "prevented")
CASE_TYPES: Final = ("chargeback", "compliance", "inquiry", "resolution", "block")

FOLLOWING: Final[dict[str, tuple[str, ...]]] = {
    "warning_needs_response": ("warning_under_review", "warning_closed", *OPEN, "won", "lost"),
    "warning_under_review": ("warning_needs_response", "warning_closed", *OPEN, "won", "lost"),
    "needs_response": ("under_review", "won", "lost"),
    "under_review": ("needs_response", "won", "lost"),
    "won": ("lost",),
}
"""What a dispute may become; a status left out is the last one."""

CLOSED: Final = ("won", "lost", "warning_closed")


@dataclass(frozen=True, slots=True)
class Wish:
    """A dispute to open, in Stripe's minor units: by default all that is not refunded is contested.

    `amount` and `currency` are the cardholder's bank's, which may count in another currency;
    `withdrawn` is what it takes from the balance, in the payment's currency.
    """

    amount: int | None = None
    currency: str | None = None
    withdrawn: int | None = None
    case_type: str | None = None


def bring_to(account: Account, payment_id: str, status: str, wish: Wish | None = None) -> Json:
    """Open the payment's dispute if it has none, and bring it to `status`; the dispute as it now is.

    Repeating a status changes nothing. Raises Refusal (409) for what cannot follow, such as leaving
    lost, and when nothing is left to dispute.
    """
    payment = account.payment(payment_id, "payment_intent")
    dispute = account.dispute_of(payment.id) or _open(account, payment, wish or Wish(), status)
    if dispute.status != status:
        if status not in FOLLOWING.get(dispute.status, ()):
            message = f"Dispute {dispute.id} is already {dispute.status}."
            raise Refusal(409, {"type": "invalid_request_error", "message": message, "param": "status"})
        dispute = _change(account, payment, dispute, status)
    return dispute_object(dispute, payment.charge)


def open_planned(account: Account, payment_id: str) -> None:
    """The dispute a test card brings; none if all was refunded meanwhile or a command was faster."""
    payment = account.payment(payment_id)
    if account.dispute_of(payment_id) is None and account.unrefunded(payment):
        _open(account, payment, Wish(), "needs_response")


def _open(account: Account, payment: Payment, wish: Wish, status: str) -> Dispute:
    """A new dispute in the first status on the way to `status`, its money withdrawn where it takes any."""
    if not payment.captured:
        raise impossible(f"PaymentIntent {payment.id} is not paid.", "payment_intent_unexpected_state")
    left = account.unrefunded(payment)
    if left == 0:
        raise impossible(f"Charge {payment.charge} is refunded.", "charge_already_refunded")
    amount = left if wish.amount is None else wish.amount
    currency = wish.currency or payment.currency
    if currency == payment.currency and amount > payment.amount:
        raise impossible(f"Charge {payment.charge} is less than the dispute.", "amount_too_large")
    first = status if status in (*INQUIRIES, "prevented") else "needs_response"
    n = account.journal.write(
        "INSERT INTO disputes"
        " (id, created, payment, amount, currency, status, case_type, settled_in, moved, gone)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, '[]', 0)",
        (
            new_id("dp_"), int(account.clock()), payment.id, amount, currency, first,
            wish.case_type or _case_type(first), payment.currency,
        ),
    )  # fmt: skip
    dispute = Dispute.from_row(account.journal.row("SELECT * FROM disputes WHERE n = ?", (n,)) or ())
    _emit(account, payment, dispute, "created")
    if first == "needs_response" or dispute.case_type == "resolution":
        taken = left if currency != payment.currency else amount
        return _move(account, payment, dispute, -(taken if wish.withdrawn is None else wish.withdrawn))
    return dispute


def _case_type(status: str) -> str:
    if status == "prevented":
        return "resolution"
    return "inquiry" if status in INQUIRIES else "chargeback"


def _change(account: Account, payment: Payment, dispute: Dispute, status: str) -> Dispute:
    """Bring a dispute to its next status, and move the money that goes with it."""
    was_open = bool(dispute.gone)
    if dispute.status in INQUIRIES and status in ("won", "lost"):
        dispute = _change(account, payment, dispute, "needs_response")
        was_open = True
    dispute = dispute._replace(status=status)
    account.journal.write("UPDATE disputes SET status = ? WHERE n = ?", (status, dispute.n))
    _emit(account, payment, dispute, "closed" if status in CLOSED else "updated")
    left = account.unrefunded(payment)
    if status == "won":
        return _move(account, payment, dispute, dispute.gone)
    if status == "lost" and was_open:
        return _move(account, payment, dispute, max(0, dispute.gone - left))
    if status in ("lost", *OPEN) and not was_open:
        return _move(account, payment, dispute, -min(-dispute.moved[0] if dispute.moved else left, left))
    return dispute


def _move(account: Account, payment: Payment, dispute: Dispute, amount: int) -> Dispute:
    """Add a balance transaction: money withdrawn (below 0) or returned; nothing for 0."""
    if not amount:
        return dispute
    moved = [*dispute.moved, amount]
    dispute = dispute._replace(moved=moved, gone=-sum(moved))
    account.journal.write(
        "UPDATE disputes SET moved = ?, gone = ? WHERE n = ?", (to_json(moved), dispute.gone, dispute.n)
    )
    _emit(account, payment, dispute, "funds_withdrawn" if amount < 0 else "funds_reinstated")
    return dispute


def _emit(account: Account, payment: Payment, dispute: Dispute, kind: str) -> None:
    shown = dispute_object(dispute, payment.charge)
    account.events.emit(f"charge.dispute.{kind}", Subject.of(payment), shown)


def retrieve_dispute(account: Account, call: Call) -> Json:
    """The dispute called by its id; raises Refusal 404."""
    row = account.journal.row("SELECT * FROM disputes WHERE id = ?", (call.target,))
    if row is None:
        raise missing("dispute", call.target)
    dispute = Dispute.from_row(row)
    return dispute_object(dispute, "ch_" + dispute.payment[3:])


def list_disputes(account: Account, call: Call) -> Json:
    """Newest first; filters: payment_intent, charge, created."""
    clauses: list[Clause] = []
    payment_id, charge_id = forms.text(call.params, "payment_intent"), forms.text(call.params, "charge")
    if payment_id is not None:
        clauses.append(("payment = ?", (payment_id,)))
    if charge_id is not None:
        clauses.append(("payment = ?", ("pi_" + charge_id[3:],)))
    rows, more = page_of(account, "disputes", call.params, clauses)
    data = [dispute_object(dispute, "ch_" + dispute.payment[3:]) for dispute in map(Dispute.from_row, rows)]
    return page_object(data, more, "/v1/disputes")
