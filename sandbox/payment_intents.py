"""Payments: a card is charged for a session, declined, or refused because the session has expired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.balance import charge_captured
from sandbox.cards import CARDS, Card, digits_of, fingerprint_of
from sandbox.checkout import end_unpaid
from sandbox.currencies import fee
from sandbox.errors import ApiError, invalid
from sandbox.events import Subject
from sandbox.listing import page_of
from sandbox.records import Json, Payment, Session, new_id
from sandbox.stripe_objects import page_object, payment_intent_object, session_object, to_json

DISPUTE_AFTER_S: Final = 1.0
INSERT: Final = (
    "INSERT INTO payments"
    " (id, created, status, amount, currency, fee, session, pledge, metadata, card, donor, failure)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a payment attempt: the session afterwards, and the error of a decline."""

    session: Session
    decline: Json | None = None


def pay(account: Account, session_id: str, number: str, email: str | None, name: str | None) -> Outcome:
    """Charge a card for a session, at most once: a complete session keeps its first charge.

    Raises ApiError for an unknown session (404), an expired session (410) or an unknown card number (400).
    """
    session = account.session(session_id)
    if session.status == "open" and session.expires_at <= account.clock():
        end_unpaid(account, session)
        session = session._replace(status="expired")
    if session.status == "expired":
        message = "This checkout session has expired."
        error = {"type": "invalid_request_error", "code": "checkout_session_expired", "message": message}
        raise ApiError(410, error)
    card = CARDS.get(digits_of(number))
    if card is None:
        raise invalid(
            "The sandbox accepts only Stripe's test cards, such as 4242424242424242.",
            "card",
            "incorrect_number",
        )
    if session.status == "complete":
        return Outcome(session)
    payment = _with_card(account, session, digits_of(number), email, name)
    return (
        _decline(account, session, payment, card)
        if card.decline_code
        else _capture(account, session, payment, card)
    )


def _with_card(
    account: Account, session: Session, number: str, email: str | None, name: str | None
) -> Payment:
    """The session's payment intent with this card, existing or new; not yet written."""
    requested = session.requested
    donor = {"email": email or requested["customer_email"], "name": name}
    if session.payment is not None:
        return account.payment(session.payment)._replace(card=number, donor=donor, failure=None)
    pledge = requested["intent_metadata"].get("ataa_pledge") or requested["metadata"].get("ataa_pledge")
    return Payment(
        n=0,
        id=new_id("pi_"),
        created=int(account.clock()),
        status="requires_payment_method",
        amount=session.amount,
        currency=session.currency,
        fee=0,
        session=session.id,
        pledge=pledge or requested["client_reference_id"],
        metadata=requested["intent_metadata"],
        card=number,
        donor=donor,
        failure=None,
    )


def _capture(account: Account, session: Session, payment: Payment, card: Card) -> Outcome:
    payment = payment._replace(status="succeeded", fee=fee(payment.amount, payment.currency))
    _write(account, session, payment)
    charge_captured(account, payment)
    paid = session._replace(status="complete", payment=payment.id, donor=payment.donor)
    account.journal.write(
        "UPDATE sessions SET status = 'complete', payment = ?, donor = ? WHERE n = ?",
        (payment.id, to_json(payment.donor), session.n),
    )
    subject = Subject.of(payment)
    account.events.emit("payment_intent.succeeded", subject, payment_intent_object(payment))
    account.events.emit("checkout.session.completed", subject, session_object(paid, account.base_url))
    if card.disputed:
        account.schedule("open_dispute", payment.id, DISPUTE_AFTER_S)
    return Outcome(paid)


def _decline(account: Account, session: Session, payment: Payment, card: Card) -> Outcome:
    """Record the declined attempt; the session stays open for another card."""
    decline = {
        "type": "card_error",
        "code": card.error_code,
        "decline_code": card.decline_code,
        "message": card.decline_message,
        "doc_url": f"https://stripe.com/docs/error-codes/{card.error_code.replace('_', '-')}",
        "payment_method": {
            "id": "pm_" + payment.id[3:],
            "object": "payment_method",
            "type": "card",
            "card": {
                "brand": card.brand,
                "fingerprint": fingerprint_of(payment.card or ""),
                "last4": (payment.card or "")[-4:],
            },
        },
    }
    payment = payment._replace(failure=decline)
    _write(account, session, payment)
    if session.payment is None:
        session = session._replace(payment=payment.id)
        account.journal.write("UPDATE sessions SET payment = ? WHERE n = ?", (payment.id, session.n))
    account.events.emit("payment_intent.payment_failed", Subject.of(payment), payment_intent_object(payment))
    return Outcome(session, decline)


def _write(account: Account, session: Session, payment: Payment) -> None:
    metadata, donor = to_json(payment.metadata), to_json(payment.donor)
    failure = to_json(payment.failure) if payment.failure else None
    if session.payment is None:
        account.journal.write(INSERT, (*payment[1:9], metadata, payment.card, donor, failure))
        return
    account.journal.write(
        "UPDATE payments SET status = ?, fee = ?, card = ?, donor = ?, failure = ? WHERE id = ?",
        (payment.status, payment.fee, payment.card, donor, failure, payment.id),
    )


def retrieve_payment_intent(account: Account, call: ApiCall) -> Json:
    """Retrieve a payment intent by id. Raises ApiError (404)."""
    return payment_intent_object(account.payment(call.target))


def list_payment_intents(account: Account, call: ApiCall) -> Json:
    """List payment intents, newest first."""
    rows, more = page_of(account, "payments", call.params, [])
    data: list[Any] = [payment_intent_object(Payment.from_row(row)) for row in rows]
    return page_object(data, more, "/v1/payment_intents")
