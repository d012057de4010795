"""Disputes: opened by a card or a command, then won or lost (https://docs.stripe.com/disputes)."""

from __future__ import annotations

from typing import Final

from rehearsal.sandbox import forms
from rehearsal.sandbox.account import Account
from rehearsal.sandbox.call import Call
from rehearsal.sandbox.events import Subject
from rehearsal.sandbox.listing import Clause, page_of
from rehearsal.sandbox.records import Dispute, Json, Payment, new_id
from rehearsal.sandbox.refusals import Refusal, impossible, missing
from rehearsal.sandbox.shapes import dispute_object, page_object

STATUSES: Final = ("needs_response", "won", "lost")


def bring_to(account: Account, payment_id: str, status: str) -> Json:
    """Open the payment's dispute if it has none, and close it as told; the dispute as it now is.

    Repeating a status changes nothing. Raises Refusal (409) for leaving won or lost, and when nothing is left
    to dispute.
    """
    payment = account.payment(payment_id, "payment_intent")
    dispute = account.dispute_of(payment.id) or _open(account, payment)
    if dispute.status != status:
        if dispute.status != "needs_response":
            message = f"Dispute {dispute.id} is already {dispute.status}."
            raise Refusal(409, {"type": "invalid_request_error", "message": message, "param": "status"})
        dispute = _close(account, payment, dispute, status)
    return dispute_object(dispute, payment.charge)


def open_planned(account: Account, payment_id: str) -> None:
    """The dispute a test card brings; none if all was refunded meanwhile or a command was faster."""
    payment = account.payment(payment_id)
    if account.dispute_of(payment_id) is None and account.unrefunded(payment):
        _open(account, payment)


def _open(account: Account, payment: Payment) -> Dispute:
    """Take what is not refunded back from the account."""
    if not payment.captured:
        raise impossible(f"PaymentIntent {payment.id} is not paid.", "payment_intent_unexpected_state")
    amount = account.unrefunded(payment)
    if amount == 0:
        raise impossible(f"Charge {payment.charge} is refunded.", "charge_already_refunded")
    values = (new_id("dp_"), int(account.clock()), payment.id, amount, payment.currency, "needs_response")
    n = account.journal.write(
        "INSERT INTO disputes (id, created, payment, amount, currency, status) VALUES (?, ?, ?, ?, ?, ?)",
        values,
    )
    dispute = Dispute(n, *values)
    for kind in ("charge.dispute.created", "charge.dispute.funds_withdrawn"):
        account.events.emit(kind, Subject.of(payment), dispute_object(dispute, payment.charge))
    return dispute


def _close(account: Account, payment: Payment, dispute: Dispute, status: str) -> Dispute:
    closed = dispute._replace(status=status)
    account.journal.write("UPDATE disputes SET status = ? WHERE n = ?", (status, dispute.n))
    kinds = ["charge.dispute.closed"]
    if status == "won":
        kinds.append("charge.dispute.funds_reinstated")
    for kind in kinds:
        account.events.emit(kind, Subject.of(payment), dispute_object(closed, payment.charge))
    return closed


def retrieve_dispute(account: Account, call: Call) -> Json:
    """The dispute called by its id; raises Refusal 404."""
    row = account.journal.row("SELECT * FROM disputes WHERE id = ?", (call.target,))
    if row is None:
        raise missing("dispute", call.target)
    dispute = Dispute._make(row)
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
    data = [dispute_object(dispute, "ch_" + dispute.payment[3:]) for dispute in map(Dispute._make, rows)]
    return page_object(data, more, "/v1/disputes")
