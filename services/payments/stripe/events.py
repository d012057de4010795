"""Stripe's events: which types are read, and the fact or hint that each reports.

API objects are read in `objects.py`; this module picks the object out of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from backbone.money import MoneyError
from backbone.stripe_amounts import from_stripe
from services.payments.domain import FactKind, Observation
from services.payments.processor import ProcessorEvent
from services.payments.stripe.objects import (
    NOT_REPORTED,
    Unreadable,
    clean,
    currency_of,
    dispute_observation,
    intent_capture,
    intent_of,
    moment_of,
    ours,
    refund_observation,
    session_capture,
)

DECLINED: Final = "payment_intent.payment_failed"
"""A declined card: it is a try (screening/), but no fact."""


@dataclass(frozen=True, slots=True)
class ReportedTry:
    """A card that was tried for a payment of ours; `card` is the fingerprint of a declined one.

    `reason` is Stripe's code of why it was declined, as sent.
    """

    event_id: str
    at: datetime
    payment_id: str
    card: str | None
    declined: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """What an event reports: at most one fact, or that the refunds of an intent have to be read.

    `refunded` is the refunded sum of `refunds_of` in minor units, or `NOT_REPORTED`. `warned` is the payment
    intent of an early fraud warning, which moves no money.
    """

    observation: Observation | None = None
    refunds_of: str | None = None
    refunded: int = 0
    warned: str | None = None


def read_event(event: Mapping[str, Any]) -> ParsedEvent:
    """Read an event; types outside `READERS` report nothing. Raises `Unreadable` or `MoneyError`."""
    read = READERS.get(event["type"])
    if read is None:
        return ParsedEvent()
    try:
        return read(event["data"]["object"], moment_of(event["created"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def read_try(event: Mapping[str, Any]) -> ReportedTry | None:
    """The try of a card that an event reports; None where it reports none, or one of no payment of ours.

    Never raises: an unreadable try must not stop the recording of money.
    """
    if event["type"] not in (DECLINED, "payment_intent.succeeded"):
        return None
    declined = event["type"] == DECLINED
    try:
        thing = event["data"]["object"]
        payment = ours(thing)["payment_id"]
        card, reason = _declined_card(thing) if declined else (None, None)
        at = moment_of(event["created"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError):
        return None
    return (
        None
        if payment is None
        else ReportedTry(clean(event["id"]) or "", at, payment, card, declined, reason)
    )


def _declined_card(intent: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The fingerprint of the card that was declined last, and why it was.

    The reason is the `decline_code`, or the `code` of an error without one
    (docs.stripe.com/api/payment_intents/object).
    """
    error = intent.get("last_payment_error") or {}
    card = (error.get("payment_method") or {}).get("card") or {}
    reason = error.get("decline_code") or error.get("code")
    return clean(card.get("fingerprint")), clean(reason) if isinstance(reason, str) else None


def stored(event: Mapping[str, Any], body: bytes) -> ProcessorEvent:
    """An event to store. Raises `Unreadable` where it lacks an id, a type or a creation time."""
    try:
        event_id, kind = clean(event["id"]), clean(event["type"])
        created_at = _created(event)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise Unreadable("not a Stripe event: no id, type or created") from error
    if not event_id or not kind:
        raise Unreadable("not a Stripe event: empty id or type")
    return ProcessorEvent(event_id, kind, created_at, body)


def _created(event: Mapping[str, Any]) -> datetime:
    """Unix time, or RFC 3339 in events of the v2 API (https://docs.stripe.com/api/v2/core/events/object)."""
    created = event["created"]
    if isinstance(created, str):
        moment = datetime.fromisoformat(created)
        if moment.tzinfo is None:
            raise ValueError("`created` has no time zone")
        return moment.astimezone(UTC)
    if isinstance(created, bool) or created != int(created):
        raise ValueError("`created` is not a whole number of seconds")
    return moment_of(created)


def _intent_succeeded(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(intent_capture(thing, at))


def _session_paid(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(session_capture(thing, at))


def _session_ended(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    """A session of a payment of ours that ended unpaid; other sessions report nothing.

    The currency is not used: Stripe leaves it null where nothing was due.
    """
    known = ours(thing)
    if known["payment_id"] is None:
        return ParsedEvent()
    currency = (thing.get("currency") or "").upper()
    return ParsedEvent(Observation(thing["id"], FactKind.ENDED, None, 0, currency, 0, at, **known))


def checkout_outcome(session: Mapping[str, Any], told_at: datetime) -> Observation | None:
    """What a Checkout Session read at `told_at` reports; its payment intent is expanded.

    A complete session is unpaid while a bank debit is processed. Once that has failed, the intent needs
    another payment method, which a complete session does not take
    (https://docs.stripe.com/payments/checkout/fulfill-orders).
    """
    if (capture := session_capture(session, told_at)) is not None:
        return capture
    intent = session.get("payment_intent")
    status = intent["status"] if isinstance(intent, Mapping) else None
    has_failed = session["status"] == "complete" and status in _FAILED_INTENTS
    return (
        _session_ended(session, told_at).observation if has_failed or session["status"] == "expired" else None
    )


_FAILED_INTENTS: Final = ("requires_payment_method", "canceled")


def _refund(thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    return ParsedEvent(refund_observation(thing))


def _charge_refunded(thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    try:
        refunded = from_stripe(thing["amount_refunded"], currency_of(thing))
    except MoneyError:
        refunded = NOT_REPORTED
    return ParsedEvent(refunds_of=intent_of(thing), refunded=refunded)


def _dispute(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(dispute_observation(thing, at))


def _declined(_thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    """A declined card moves no money; see `read_try`."""
    return ParsedEvent()


def _fraud_warning(thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    """A card issuer suspects fraud; a dispute may follow (docs.stripe.com/api/radar/early_fraud_warnings)."""
    return ParsedEvent(warned=intent_of(thing))


READERS: Final[Mapping[str, Callable[[Mapping[str, Any], datetime], ParsedEvent]]] = {
    "payment_intent.succeeded": _intent_succeeded,
    DECLINED: _declined,
    "checkout.session.completed": _session_paid,
    "checkout.session.async_payment_succeeded": _session_paid,
    "checkout.session.async_payment_failed": _session_ended,
    "checkout.session.expired": _session_ended,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.refund.updated": _refund,
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "radar.early_fraud_warning.created": _fraud_warning,
}
"""The event types that report something. Events of other types are stored and report nothing."""
