"""Payments: a card is charged for a session, declined, or refused because the session has expired.

A card that needs 3-D Secure is charged once its holder has authenticated. A bank debit completes the session
unpaid, and settles or fails later.
"""

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
SETTLES_AFTER_S: Final = 1.0
DEBIT_FAILED: Final = {
    "type": "invalid_request_error",
    "code": "payment_method_unexpected_state",
    "decline_code": "no_account",
    "message": "The customer's bank account could not be located.",
}
NOT_AUTHENTICATED: Final = {
    "type": "invalid_request_error",
    "code": "payment_intent_authentication_failure",
    "decline_code": "authentication_failed",
    "message": "The provided PaymentMethod has failed authentication. You can provide payment_method_data or"
    " a new PaymentMethod to attempt to fulfill this PaymentIntent again.",
}
INSERT: Final = (
    "INSERT INTO payments"
    " (id, created, status, amount, currency, fee, session, pledge, metadata, card, donor, failure)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a payment attempt: the session afterwards, and the error of a decline.

    `authenticates`: the donor has to authenticate before the card is charged.
    """

    session: Session
    decline: Json | None = None
    authenticates: bool = False


def pay(account: Account, session_id: str, number: str, email: str | None, name: str | None) -> Outcome:
    """Charge a card for a session, at most once: a complete session keeps its first charge.

    Raises ApiError for an unknown session (404), an expired session (410) or an unknown card number (400).
    """
    session = _unexpired(account, session_id)
    card = CARDS.get(digits_of(number))
    if card is None:
        raise invalid(
            "The sandbox accepts only Stripe's test cards, such as 4242424242424242.",
            "card",
            "incorrect_number",
        )
    if session.status != "open":
        return Outcome(session)
    payment = _with_card(account, session, digits_of(number), email, name)
    if card.authenticates:
        return _ask_for_authentication(account, session, payment)
    if card.settling != "at_once":
        return _debit(account, session, payment, card)
    return _charge(account, session, payment, card)


def authenticate(account: Account, session_id: str, succeeded: bool) -> Outcome:
    """End the authentication that a session's card needs: the card is charged, or the attempt has failed.

    Raises ApiError for an unknown session (404), an expired session (410), or where none is asked for (400).
    A complete session stays as it is.
    """
    session = _unexpired(account, session_id)
    if session.status != "open":
        return Outcome(session)
    payment = account.payment(session.payment) if session.payment else None
    if payment is None or payment.status != "requires_action":
        raise invalid(
            "This session's payment asks for no authentication.", code="payment_intent_unexpected_state"
        )
    payment = payment._replace(status="requires_payment_method")
    if not succeeded:
        return _fail(account, session, payment, NOT_AUTHENTICATED)
    return _charge(account, session, payment, CARDS[payment.card])


def _unexpired(account: Account, session_id: str) -> Session:
    session = account.session(session_id)
    if session.status == "open" and session.expires_at <= account.clock():
        end_unpaid(account, session)
        session = session._replace(status="expired")
    if session.status == "expired":
        message = "This checkout session has expired."
        error = {"type": "invalid_request_error", "code": "checkout_session_expired", "message": message}
        raise ApiError(410, error)
    return session


def _charge(account: Account, session: Session, payment: Payment, card: Card) -> Outcome:
    if card.decline_code:
        return _decline(account, session, payment, card)
    return _capture(account, session, payment, card)


def _ask_for_authentication(account: Account, session: Session, payment: Payment) -> Outcome:
    """The session stays open until the donor has authenticated, or has used another card."""
    payment = payment._replace(status="requires_action")
    session = _write(account, session, payment)
    shown = payment_intent_object(payment, authentication_url(account, session))
    account.events.emit("payment_intent.requires_action", Subject.of(payment), shown)
    return Outcome(session, authenticates=True)


def authentication_url(account: Account, session: Session) -> str:
    """The page on which the donor authenticates."""
    return f"{account.base_url}/c/pay/{session.id}/authenticate"


def _debit(account: Account, session: Session, payment: Payment, card: Card) -> Outcome:
    """Begin a bank debit: the session completes unpaid."""
    payment = payment._replace(status="processing")
    session = _complete(account, _write(account, session, payment), payment, "settling")
    subject = Subject.of(payment)
    account.events.emit("payment_intent.processing", subject, payment_intent_object(payment))
    account.events.emit("checkout.session.completed", subject, session_object(session, account.base_url))
    action = "settle_debit" if card.settling == "succeeds_later" else "fail_debit"
    account.schedule(action, payment.id, SETTLES_AFTER_S)
    return Outcome(session)


def settle_debit(account: Account, payment_id: str) -> None:
    """A bank debit succeeds."""
    payment = account.payment(payment_id)
    if payment.status != "processing":
        return
    session = account.session(payment.session)
    payment = payment._replace(status="succeeded", fee=fee(payment.amount, payment.currency))
    _write(account, session, payment)
    charge_captured(account, payment)
    session = _complete(account, session, payment, "complete")
    _end_debit(account, session, payment, "succeeded")


def fail_debit(account: Account, payment_id: str) -> None:
    """A bank debit fails; its session stays complete and unpaid."""
    payment = account.payment(payment_id)
    if payment.status != "processing":
        return
    session = account.session(payment.session)
    payment = payment._replace(status="requires_payment_method", failure=DEBIT_FAILED)
    _write(account, session, payment)
    session = _complete(account, session, payment, "unsettled")
    _end_debit(account, session, payment, "failed")


def _end_debit(account: Account, session: Session, payment: Payment, outcome: str) -> None:
    subject = Subject.of(payment)
    intent_event = "succeeded" if outcome == "succeeded" else "payment_failed"
    account.events.emit(f"payment_intent.{intent_event}", subject, payment_intent_object(payment))
    shown = session_object(session, account.base_url)
    account.events.emit(f"checkout.session.async_payment_{outcome}", subject, shown)


def _complete(account: Account, session: Session, payment: Payment, status: str) -> Session:
    """Complete a session: as paid (`complete`), or as one of the other stored `COMPLETE` states."""
    account.journal.write(
        "UPDATE sessions SET status = ?, payment = ?, donor = ? WHERE n = ?",
        (status, payment.id, to_json(payment.donor), session.n),
    )
    return session._replace(status=status, payment=payment.id, donor=payment.donor)


def _with_card(
    account: Account, session: Session, number: str, email: str | None, name: str | None
) -> Payment:
    """The session's payment intent with this card, existing or new; not yet written."""
    requested = session.requested
    donor = {"email": email or requested["customer_email"], "name": name}
    if session.payment is not None:
        return account.payment(session.payment)._replace(
            status="requires_payment_method", card=number, donor=donor, failure=None
        )
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
    session = _write(account, session, payment)
    charge_captured(account, payment)
    paid = _complete(account, session, payment, "complete")
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
    return _fail(account, session, payment, decline)


def _fail(account: Account, session: Session, payment: Payment, decline: Json) -> Outcome:
    payment = payment._replace(failure=decline)
    session = _write(account, session, payment)
    account.events.emit("payment_intent.payment_failed", Subject.of(payment), payment_intent_object(payment))
    return Outcome(session, decline)


def _write(account: Account, session: Session, payment: Payment) -> Session:
    """Store a payment intent, and its id in its session; returns the session."""
    metadata, donor = to_json(payment.metadata), to_json(payment.donor)
    failure = to_json(payment.failure) if payment.failure else None
    if session.payment is None:
        account.journal.write(INSERT, (*payment[1:9], metadata, payment.card, donor, failure))
        account.journal.write("UPDATE sessions SET payment = ? WHERE n = ?", (payment.id, session.n))
        return session._replace(payment=payment.id)
    account.journal.write(
        "UPDATE payments SET status = ?, fee = ?, card = ?, donor = ?, failure = ? WHERE id = ?",
        (payment.status, payment.fee, payment.card, donor, failure, payment.id),
    )
    return session


def retrieve_payment_intent(account: Account, call: ApiCall) -> Json:
    """Retrieve a payment intent by id. Raises ApiError (404)."""
    return payment_intent_object(account.payment(call.target))


def list_payment_intents(account: Account, call: ApiCall) -> Json:
    """List payment intents, newest first."""
    rows, more = page_of(account, "payments", call.params, [])
    data: list[Any] = [payment_intent_object(Payment.from_row(row)) for row in rows]
    return page_object(data, more, "/v1/payment_intents")
