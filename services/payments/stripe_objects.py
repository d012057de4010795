"""Stripe's objects and events as facts; amounts are converted by `backbone.stripe_amounts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from backbone.money import digits
from backbone.stripe_amounts import from_stripe
from services.payments.domain import CaptureRank, DisputeRank, FactKind, Finding, RefundRank
from services.payments.processor import StoredEvent

REFUND_RANKS: Final[Mapping[str, RefundRank]] = {
    "pending": RefundRank.PENDING,
    "requires_action": RefundRank.PENDING,
    "succeeded": RefundRank.SUCCEEDED,
    "failed": RefundRank.FAILED,
    "canceled": RefundRank.FAILED,
}
DISPUTE_RANKS: Final[Mapping[str, DisputeRank]] = {
    "warning_needs_response": DisputeRank.INQUIRY,
    "warning_under_review": DisputeRank.INQUIRY,
    "warning_closed": DisputeRank.INQUIRY,
    "prevented": DisputeRank.INQUIRY,
    "needs_response": DisputeRank.OPEN,
    "under_review": DisputeRank.OPEN,
    "lost": DisputeRank.LOST,
    "won": DisputeRank.WON,
}


class Unreadable(ValueError):
    """A Stripe object without a field it must have, or with one that is not known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an event tells: at most one fact; or that the refunds of an intent are to be read."""

    finding: Finding | None = None
    refunds_of: str | None = None
    refunded: int = 0


def read_event(event: Mapping[str, Any]) -> Reading:
    """What a Stripe event means here; most mean nothing. Raises `Unreadable` or `MoneyError`."""
    read = READERS.get(event["type"])
    if read is None:
        return Reading()
    try:
        return read(event["data"]["object"], moment_of(event["created"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def stored(event: Mapping[str, Any], body: bytes) -> StoredEvent:
    """An event to keep; raises `Unreadable` where it has no id, type and moment."""
    try:
        event_id, kind = clean(event["id"]), clean(event["type"])
        created_at = moment_of(event["created"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise Unreadable("no event of Stripe's") from error
    if not event_id or not kind:
        raise Unreadable("an event without id or type")
    return StoredEvent(event_id, kind, created_at, body)


def moment_of(seconds: int) -> datetime:
    """Stripe's Unix time."""
    return datetime.fromtimestamp(seconds, UTC)


def intent_capture(intent: Mapping[str, Any], at: datetime) -> Finding:
    """The capture a succeeded PaymentIntent is."""
    currency = currency_of(intent)
    return Finding(
        id=intent["id"],
        kind=FactKind.CAPTURE,
        intent=intent["id"],
        units=from_stripe(intent["amount_received"], currency),
        currency=currency,
        rank=CaptureRank.BY_INTENT,
        at=at,
        **ours(intent),
    )


def session_capture(session: Mapping[str, Any], at: datetime) -> Finding | None:
    """The capture a paid Checkout Session tells of; None while it is unpaid (a bank debit on its way)."""
    if session["payment_status"] != "paid" or not session.get("payment_intent"):
        return None
    currency = currency_of(session)
    return Finding(
        id=session["payment_intent"],
        kind=FactKind.CAPTURE,
        intent=session["payment_intent"],
        units=from_stripe(session["amount_total"], currency),
        currency=currency,
        rank=CaptureRank.BY_SESSION,
        at=at,
        **ours(session),
    )


def refund_finding(refund: Mapping[str, Any]) -> Finding | None:
    """A Refund as a fact; None for one of a charge without a PaymentIntent, which is none of ours."""
    if not refund.get("payment_intent"):
        return None
    currency = currency_of(refund)
    return Finding(
        id=refund["id"],
        kind=FactKind.REFUND,
        intent=refund["payment_intent"],
        units=from_stripe(refund["amount"], currency),
        currency=currency,
        rank=REFUND_RANKS[refund["status"]],
        at=moment_of(refund["created"]),
        refund_id=clean((refund.get("metadata") or {}).get("ataa_refund")),
    )


def ours(thing: Mapping[str, Any]) -> dict[str, str | None]:
    """Our ids in an object's metadata."""
    metadata = thing.get("metadata") or {}
    return {
        "payment_id": clean(metadata.get("ataa_payment")),
        "pledge_id": clean(metadata.get("ataa_pledge") or thing.get("client_reference_id")),
        "drive_id": clean(metadata.get("ataa_drive")),
    }


def currency_of(thing: Mapping[str, Any]) -> str:
    """ISO code in upper case."""
    currency: str = thing["currency"].upper()
    digits(currency)
    return currency


def clean(text: str | None) -> str | None:
    """Text that every store takes: NUL and lone surrogates are written as escapes."""
    if text is None:
        return None
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\u0000")


def _intent_succeeded(thing: Mapping[str, Any], at: datetime) -> Reading:
    return Reading(intent_capture(thing, at))


def _session_paid(thing: Mapping[str, Any], at: datetime) -> Reading:
    return Reading(session_capture(thing, at))


def _session_ended(thing: Mapping[str, Any], at: datetime) -> Reading:
    return Reading(Finding(thing["id"], FactKind.ENDED, None, 0, currency_of(thing), 0, at, **ours(thing)))


def _refund(thing: Mapping[str, Any], _at: datetime) -> Reading:
    return Reading(refund_finding(thing))


def _charge_refunded(thing: Mapping[str, Any], _at: datetime) -> Reading:
    refunded = from_stripe(thing["amount_refunded"], currency_of(thing))
    return Reading(refunds_of=thing.get("payment_intent"), refunded=refunded)


def _dispute(thing: Mapping[str, Any], _at: datetime) -> Reading:
    if not thing.get("payment_intent"):
        return Reading()
    currency = currency_of(thing)
    return Reading(
        Finding(
            id=thing["id"],
            kind=FactKind.DISPUTE,
            intent=thing["payment_intent"],
            units=from_stripe(thing["amount"], currency),
            currency=currency,
            rank=DISPUTE_RANKS[thing["status"]],
            at=moment_of(thing["created"]),
        )
    )


READERS: Final[Mapping[str, Callable[[Mapping[str, Any], datetime], Reading]]] = {
    "payment_intent.succeeded": _intent_succeeded,
    "checkout.session.completed": _session_paid,
    "checkout.session.async_payment_succeeded": _session_paid,
    "checkout.session.async_payment_failed": _session_ended,
    "checkout.session.expired": _session_ended,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.refunded": _charge_refunded,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
}
"""Events that mean something here; all others are stored and mean nothing."""
