"""Disputes, opened by a card or a control (https://docs.stripe.com/disputes/how-disputes-work).

A dispute moves money by balance transactions in the payment's currency: the amount is withdrawn when it opens
(not for an inquiry or a block) and returned when it is won. A lost dispute returns what had been refunded
before (https://support.stripe.com/questions/
dispute-for-full-charge-amount-after-a-partial-refund-was-issued).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.balance import dispute_moved, shown_of
from sandbox.errors import ApiError, invalid_state, not_found
from sandbox.events import Subject
from sandbox.listing import Clause, page_of
from sandbox.records import Dispute, Json, Payment, new_id
from sandbox.stripe_objects import dispute_object, page_object, to_json

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
"""The allowed transitions; a status that is not a key is final."""

CLOSED: Final = ("won", "lost", "warning_closed")


@dataclass(frozen=True, slots=True)
class DisputeRequest:
    """The details of a dispute to open, in Stripe's minor units; by default the amount not yet refunded.

    `amount` and `currency` are those of the cardholder's bank, which may use another currency; `withdrawn`
    is what the dispute withdraws from the balance, in the payment's currency.
    """

    amount: int | None = None
    currency: str | None = None
    withdrawn: int | None = None
    case_type: str | None = None


def set_status(
    account: Account, payment_id: str, status: str, requested: DisputeRequest | None = None
) -> Json:
    """Open the payment's dispute if it has none, bring it to `status`, and return it.

    Repeating a status changes nothing. Raises ApiError: 409 for a transition that is not allowed, such as
    leaving `lost`; 400 when nothing is left to dispute.
    """
    payment = account.payment(payment_id, "payment_intent")
    dispute = account.dispute_of(payment.id) or _open(account, payment, requested or DisputeRequest(), status)
    if dispute.status != status:
        if status not in FOLLOWING.get(dispute.status, ()):
            message = f"Dispute {dispute.id} is already {dispute.status}."
            raise ApiError(409, {"type": "invalid_request_error", "message": message, "param": "status"})
        dispute = _change(account, payment, dispute, status)
    return _shown(account, dispute)


def open_scheduled(account: Account, payment_id: str) -> None:
    """Open the dispute of a test card, unless the payment is refunded or disputed already."""
    payment = account.payment(payment_id)
    if account.dispute_of(payment_id) is None and account.refundable(payment):
        _open(account, payment, DisputeRequest(), "needs_response")


def _open(account: Account, payment: Payment, requested: DisputeRequest, status: str) -> Dispute:
    """A new dispute in the first status on the way to `status`, its amount withdrawn where that applies."""
    if not payment.captured:
        raise invalid_state(f"PaymentIntent {payment.id} is not paid.", "payment_intent_unexpected_state")
    left = account.refundable(payment)
    if left == 0:
        raise invalid_state(f"Charge {payment.charge} is refunded.", "charge_already_refunded")
    amount = left if requested.amount is None else requested.amount
    currency = requested.currency or payment.currency
    if currency == payment.currency and amount > payment.amount:
        raise invalid_state(f"Charge {payment.charge} is less than the dispute.", "amount_too_large")
    first = status if status in (*INQUIRIES, "prevented") else "needs_response"
    n = account.journal.write(
        "INSERT INTO disputes"
        " (id, created, payment, amount, currency, status, case_type, settled_in, moved, gone)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, '[]', 0)",
        (
            new_id("dp_"), int(account.clock()), payment.id, amount, currency, first,
            requested.case_type or _case_type(first), payment.currency,
        ),
    )  # fmt: skip
    dispute = Dispute.from_row(account.journal.row("SELECT * FROM disputes WHERE n = ?", (n,)) or ())
    _emit(account, payment, dispute, "created")
    if first == "needs_response" or dispute.case_type == "resolution":
        taken = left if currency != payment.currency else amount
        return _move(
            account, payment, dispute, -(taken if requested.withdrawn is None else requested.withdrawn)
        )
    return dispute


def _case_type(status: str) -> str:
    if status == "prevented":
        return "resolution"
    return "inquiry" if status in INQUIRIES else "chargeback"


def _change(account: Account, payment: Payment, dispute: Dispute, status: str) -> Dispute:
    """Bring a dispute to its next status, with the balance transactions that follow."""
    was_open = bool(dispute.withdrawn)
    if dispute.status in INQUIRIES and status in ("won", "lost"):
        dispute = _change(account, payment, dispute, "needs_response")
        was_open = True
    dispute = dispute._replace(status=status)
    account.journal.write("UPDATE disputes SET status = ? WHERE n = ?", (status, dispute.n))
    _emit(account, payment, dispute, "closed" if status in CLOSED else "updated")
    left = account.refundable(payment)
    if status == "won":
        return _move(account, payment, dispute, dispute.withdrawn)
    if status == "lost" and was_open:
        return _move(account, payment, dispute, max(0, dispute.withdrawn - left))
    if status in ("lost", *OPEN) and not was_open:
        return _move(account, payment, dispute, -min(-dispute.moved[0] if dispute.moved else left, left))
    return dispute


def _move(account: Account, payment: Payment, dispute: Dispute, amount: int) -> Dispute:
    """Add a balance transaction: a withdrawal (negative) or a return; none for 0."""
    if not amount:
        return dispute
    moved = [*dispute.moved, amount]
    dispute = dispute._replace(moved=moved, withdrawn=-sum(moved))
    account.journal.write(
        "UPDATE disputes SET moved = ?, gone = ? WHERE n = ?", (to_json(moved), dispute.withdrawn, dispute.n)
    )
    dispute_moved(account, dispute, payment)
    _emit(account, payment, dispute, "funds_withdrawn" if amount < 0 else "funds_reinstated")
    return dispute


def _emit(account: Account, payment: Payment, dispute: Dispute, kind: str) -> None:
    account.events.emit(f"charge.dispute.{kind}", Subject.of(payment), _shown(account, dispute))


def _shown(account: Account, dispute: Dispute) -> Json:
    return dispute_object(dispute, "ch_" + dispute.payment[3:], shown_of(account, dispute.id))


def retrieve_dispute(account: Account, call: ApiCall) -> Json:
    """Retrieve a dispute by id. Raises ApiError (404)."""
    row = account.journal.row("SELECT * FROM disputes WHERE id = ?", (call.target,))
    if row is None:
        raise not_found("dispute", call.target)
    return _shown(account, Dispute.from_row(row))


def list_disputes(account: Account, call: ApiCall) -> Json:
    """List disputes, newest first; filters: payment_intent, charge, created."""
    clauses: list[Clause] = []
    payment_id, charge_id = forms.text(call.params, "payment_intent"), forms.text(call.params, "charge")
    if payment_id is not None:
        clauses.append(("payment = ?", (payment_id,)))
    if charge_id is not None:
        clauses.append(("payment = ?", ("pi_" + charge_id[3:],)))
    rows, more = page_of(account, "disputes", call.params, clauses)
    data = [_shown(account, dispute) for dispute in map(Dispute.from_row, rows)]
    return page_object(data, more, "/v1/disputes")
