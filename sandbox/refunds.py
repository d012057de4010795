"""Refunds, and the charges they return (https://docs.stripe.com/refunds)."""

from __future__ import annotations

from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.balance import refund_failed, refund_made
from sandbox.cards import CARDS
from sandbox.currencies import refuse_bad_amount
from sandbox.errors import invalid, invalid_state, missing_parameter, not_found
from sandbox.events import Subject
from sandbox.listing import Clause, page_of
from sandbox.records import Json, Payment, Refund, new_id
from sandbox.stripe_objects import charge_object, page_object, refund_object, to_json
from sandbox.stripe_parameters import REFUND, refuse_unknown

SETTLES_AFTER_S: Final = 1.0
REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer")


def create_refund(account: Account, call: ApiCall) -> Json:
    """Refund part or all of a captured charge. Raises ApiError when less is left or it is disputed."""
    params = call.params
    refuse_unknown(params, REFUND)
    payment = _refundable_payment(account, params)
    reason = forms.choice(params, "reason", REASONS, None)
    metadata = forms.metadata(params)
    amount = _amount(account, params, payment)
    later = CARDS[payment.card].refunding
    status = "pending" if later == "succeeds_later" else "succeeded"
    created, refund_id = int(account.clock()), new_id("re_")
    values = (refund_id, created, payment.id, amount, payment.currency, status, reason)
    n = account.journal.write(
        "INSERT INTO refunds (id, created, payment, amount, currency, status, reason, metadata)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, to_json(metadata)),
    )
    refund = Refund(n, *values, metadata)
    refund_made(account, refund, payment)
    shape = refund_object(refund, payment.charge)
    account.events.emit("refund.created", Subject.of(payment), shape, call)
    account.events.emit("charge.refunded", Subject.of(payment), charge(account, payment), call)
    action = "fail_refund" if later == "fails_later" else "settle_refund"
    account.schedule(action, refund.id, SETTLES_AFTER_S)
    return shape


def _refundable_payment(account: Account, params: dict[str, Any]) -> Payment:
    payment_id, charge_id = forms.text(params, "payment_intent"), forms.text(params, "charge")
    if payment_id is None and charge_id is None:
        raise missing_parameter("payment_intent")
    if payment_id is None:
        return account.charged_payment(charge_id or "", "charge")
    payment = account.payment(payment_id, "payment_intent")
    if charge_id is not None and charge_id != payment.charge:
        raise invalid("The charge does not belong to this PaymentIntent.", "charge")
    if not payment.captured:
        message = f"This PaymentIntent ({payment.id}) does not have a successful charge to refund."
        raise invalid_state(message, "payment_intent_unexpected_state", "payment_intent")
    return payment


def _amount(account: Account, params: dict[str, Any], payment: Payment) -> int:
    """The amount to refund, in minor units; all that is left when none is given."""
    dispute = account.dispute_of(payment.id)
    if dispute is not None and dispute.withdrawn:
        raise invalid_state(
            f"Charge {payment.charge} has been charged back; cannot issue a refund.", "charge_disputed"
        )
    left = account.refundable(payment)
    if left == 0:
        message = f"Charge {payment.charge} has already been refunded."
        raise invalid_state(message, "charge_already_refunded")
    amount = forms.integer(params, "amount")
    if amount is None:
        return left
    refuse_bad_amount(amount, payment.currency, "amount")
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        api_error = invalid(message, "amount")
        api_error.executed = True
        raise api_error
    return amount


def _refund(account: Account, refund_id: str) -> Refund:
    row = account.journal.row("SELECT * FROM refunds WHERE id = ?", (refund_id,))
    if row is None:
        raise not_found("refund", refund_id)
    return Refund.from_row(row)


def settle_refund(account: Account, refund_id: str) -> None:
    """Mark a refund succeeded and emit `refund.updated`, as when the bank reports it."""
    refund = _refund(account, refund_id)._replace(status="succeeded")
    account.journal.write("UPDATE refunds SET status = 'succeeded' WHERE n = ?", (refund.n,))
    payment = account.payment(refund.payment)
    account.events.emit("refund.updated", Subject.of(payment), refund_object(refund, payment.charge))


def fail_refund(account: Account, refund_id: str) -> None:
    """Mark a refund failed: its amount returns to the account's balance."""
    refund = _refund(account, refund_id)._replace(status="failed")
    account.journal.write("UPDATE refunds SET status = 'failed' WHERE n = ?", (refund.n,))
    payment = account.payment(refund.payment)
    refund_failed(account, refund, payment)
    for kind in ("refund.failed", "refund.updated"):
        account.events.emit(kind, Subject.of(payment), refund_object(refund, payment.charge))


def retrieve_refund(account: Account, call: ApiCall) -> Json:
    """Retrieve a refund by id. Raises ApiError (404)."""
    refund = _refund(account, call.target)
    return refund_object(refund, "ch_" + refund.payment[3:])


def list_refunds(account: Account, call: ApiCall) -> Json:
    """List refunds, newest first; filters: payment_intent, charge, created."""
    clauses: list[Clause] = []
    payment_id, charge_id = forms.text(call.params, "payment_intent"), forms.text(call.params, "charge")
    if payment_id is not None:
        clauses.append(("payment = ?", (payment_id,)))
    if charge_id is not None:
        clauses.append(("payment = ?", ("pi_" + charge_id[3:],)))
    rows, more = page_of(account, "refunds", call.params, clauses)
    data = [refund_object(refund, "ch_" + refund.payment[3:]) for refund in map(Refund.from_row, rows)]
    return page_object(data, more, "/v1/refunds")


def charge(account: Account, payment: Payment) -> Json:
    """The charge of a captured payment, with its refunds."""
    disputed = account.dispute_of(payment.id) is not None
    return charge_object(payment, account.refunds_of(payment.id), disputed)


def retrieve_charge(account: Account, call: ApiCall) -> Json:
    """Retrieve a charge by id. Raises ApiError (404)."""
    return charge(account, account.charged_payment(call.target))
