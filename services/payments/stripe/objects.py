"""Stripe's objects and events as facts; amounts are converted by `backbone.stripe_amounts`.

A refund or dispute is never set aside because of a value this version does not know: an unknown
status, case type or currency is read as what may have taken the money, and marked (domain.Doubt).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

from backbone.money import MoneyError, digits
from backbone.stripe_amounts import from_stripe, rounded_up
from services.payments.domain import MIXED, CaptureRank, DisputeRank, FactKind, Observation, RefundRank
from services.payments.processor import ProcessorEvent

REFUND_RANKS: Final[Mapping[str, RefundRank]] = {
    "pending": RefundRank.PENDING,
    "requires_action": RefundRank.PENDING,
    "succeeded": RefundRank.SUCCEEDED,
    "failed": RefundRank.FAILED,
    "canceled": RefundRank.FAILED,
}
"""By `refund.status`, a nullable string without a closed list (docs.stripe.com/api/refunds/object)."""

DISPUTE_RANKS: Final[Mapping[str, DisputeRank]] = {
    "warning_needs_response": DisputeRank.INQUIRY,
    "warning_under_review": DisputeRank.INQUIRY,
    "warning_closed": DisputeRank.INQUIRY,
    "needs_response": DisputeRank.OPEN,
    "under_review": DisputeRank.OPEN,
    "lost": DisputeRank.LOST,
    "won": DisputeRank.WON,
}
"""By `dispute.status`, except `prevented` (docs.stripe.com/api/disputes/object)."""

PREVENTED_RANKS: Final[Mapping[str, DisputeRank]] = {
    "block": DisputeRank.INQUIRY,
    "inquiry": DisputeRank.INQUIRY,
    "resolution": DisputeRank.LOST,
}
"""A prevented dispute by `payment_method_details.card.case_type`: a resolution gives the money back to
the cardholder, a block stops the dispute before any moves
(docs.stripe.com/changelog/basil/2025-08-27/add-preventions-to-dispute)."""


NOT_TOLD: Final = -1
"""Stands for a sum of refunds that cannot be read: it is no sum of ours, so the refunds are listed."""


class Unreadable(ValueError):
    """A Stripe object without a field it must have, or with one that is not known."""


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """What an event tells: at most one fact; or that the refunds of an intent are to be read."""

    observation: Observation | None = None
    refunds_of: str | None = None
    refunded: int = 0


def read_event(event: Mapping[str, Any]) -> ParsedEvent:
    """What a Stripe event means here; most mean nothing. Raises `Unreadable` or `MoneyError`."""
    read = READERS.get(event["type"])
    if read is None:
        return ParsedEvent()
    try:
        return read(event["data"]["object"], moment_of(event["created"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def stored(event: Mapping[str, Any], body: bytes) -> ProcessorEvent:
    """An event to keep; raises `Unreadable` where it has no id, type and moment."""
    try:
        event_id, kind = clean(event["id"]), clean(event["type"])
        created_at = _created(event)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        raise Unreadable("no event of Stripe's") from error
    if not event_id or not kind:
        raise Unreadable("an event without id or type")
    return ProcessorEvent(event_id, kind, created_at, body)


def _created(event: Mapping[str, Any]) -> datetime:
    """Unix time; in events of the v2 API RFC 3339 (https://docs.stripe.com/api/v2/core/events/object)."""
    if not isinstance(event["created"], str):
        return moment_of(event["created"])
    created = datetime.fromisoformat(event["created"])
    if created.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return created.astimezone(UTC)


def moment_of(seconds: int) -> datetime:
    """Stripe's Unix time."""
    return datetime.fromtimestamp(seconds, UTC)


def intent_capture(intent: Mapping[str, Any], at: datetime) -> Observation:
    """The capture a succeeded PaymentIntent is."""
    currency = currency_of(intent)
    return Observation(
        id=intent["id"],
        kind=FactKind.CAPTURE,
        intent=intent["id"],
        units=from_stripe(intent["amount_received"], currency),
        currency=currency,
        rank=CaptureRank.BY_INTENT,
        at=at,
        **ours(intent),
    )


def session_capture(session: Mapping[str, Any], at: datetime) -> Observation | None:
    """The capture a paid Checkout Session tells of; None while it is unpaid (a bank debit on its way).

    None too without an intent or a total, which Stripe may leave null (modes `setup` and
    `subscription`): the money's own event tells of it.
    """
    intent = intent_of(session)
    if session["payment_status"] != "paid" or intent is None or session.get("amount_total") is None:
        return None
    currency = currency_of(session)
    return Observation(
        id=intent,
        kind=FactKind.CAPTURE,
        intent=intent,
        units=from_stripe(session["amount_total"], currency),
        currency=currency,
        rank=CaptureRank.BY_SESSION,
        at=at,
        **ours(session),
    )


def refund_observation(refund: Mapping[str, Any]) -> Observation | None:
    """A Refund as a fact; None for one of a charge without a PaymentIntent, which is none of ours."""
    if (intent := intent_of(refund)) is None:
        return None
    units, currency = _at_stake(refund)
    return Observation(
        id=refund["id"],
        kind=FactKind.REFUND,
        intent=intent,
        units=units,
        currency=currency,
        rank=REFUND_RANKS.get(refund.get("status") or "", RefundRank.UNKNOWN),
        at=moment_of(refund["created"]),
        refund_id=clean((refund.get("metadata") or {}).get("ataa_refund")),
    )


def dispute_observation(dispute: Mapping[str, Any], told_at: datetime) -> Observation | None:
    """A Dispute as a fact; None for one of a charge without a PaymentIntent, which is none of ours.

    `told_at` orders the tellings of a dispute: the event's `created`, or for a dispute read from
    the API the time of asking, best by Stripe's own clock (the answer's `Date`).
    """
    if (intent := intent_of(dispute)) is None:
        return None
    units, currency = _at_stake(dispute)
    withdrawn, returned, settled_in = _balance(dispute)
    return Observation(
        id=dispute["id"],
        kind=FactKind.DISPUTE,
        intent=intent,
        units=units,
        currency=currency,
        rank=_dispute_rank(dispute),
        at=moment_of(dispute["created"]),
        told_at=told_at,
        withdrawn=withdrawn,
        returned=returned,
        settled_in=settled_in,
    )


def _dispute_rank(dispute: Mapping[str, Any]) -> DisputeRank:
    status = dispute["status"]
    if status != "prevented":
        return DISPUTE_RANKS.get(status, DisputeRank.UNKNOWN)
    card = (dispute.get("payment_method_details") or {}).get("card") or {}
    return PREVENTED_RANKS.get(card.get("case_type") or "", DisputeRank.UNKNOWN)


def _at_stake(thing: Mapping[str, Any]) -> tuple[int, str]:
    """Amount and currency of a refund or dispute, a fraction ISO does not know rounded up.

    A currency this version does not know keeps Stripe's units: it is another one than the capture's.
    """
    currency: str = thing["currency"].upper()
    try:
        return rounded_up(thing["amount"], currency), currency
    except MoneyError:
        return int(thing["amount"]), currency


def _balance(dispute: Mapping[str, Any]) -> tuple[int | None, int | None, str | None]:
    """What a dispute's balance transactions withdrew and returned, and in which currency.

    `amount` is the gross of a balance transaction, without the dispute's fee, in the account's
    settlement currency (docs.stripe.com/api/balance_transactions/object). `MIXED` where the amounts
    cannot be added up; all None where there are none: Stripe lists zero, one or two.
    """
    lines = [each for each in dispute.get("balance_transactions") or () if each["amount"]]
    if not lines:
        return None, None, None
    currencies = {each["currency"].upper() for each in lines}
    currency = currencies.pop() if len(currencies) == 1 else MIXED
    withdrawn = -sum(each["amount"] for each in lines if each["amount"] < 0)
    returned = sum(each["amount"] for each in lines if each["amount"] > 0)
    try:
        return from_stripe(withdrawn, currency), from_stripe(returned, currency), currency
    except MoneyError:
        return withdrawn, returned, MIXED


def intent_of(thing: Mapping[str, Any]) -> str | None:
    """The id of the PaymentIntent of an object, expanded or not; None where it has none."""
    intent = thing.get("payment_intent")
    found: str | None = intent["id"] if isinstance(intent, Mapping) else intent
    return found or None


class Ours(TypedDict):
    """The ids of ours that an object of Stripe's names."""

    payment_id: str | None
    pledge_id: str | None
    drive_id: str | None


def ours(thing: Mapping[str, Any]) -> Ours:
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


def _intent_succeeded(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(intent_capture(thing, at))


def _session_paid(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(session_capture(thing, at))


def _session_ended(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    """The end of a session opened for a payment of ours; of any other there is nothing to end.

    Its currency means nothing here, and Stripe leaves it null where nothing was to be paid.
    """
    known = ours(thing)
    if known["payment_id"] is None:
        return ParsedEvent()
    currency = (thing.get("currency") or "").upper()
    return ParsedEvent(Observation(thing["id"], FactKind.ENDED, None, 0, currency, 0, at, **known))


def _refund(thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    return ParsedEvent(refund_observation(thing))


def _charge_refunded(thing: Mapping[str, Any], _at: datetime) -> ParsedEvent:
    try:
        refunded = from_stripe(thing["amount_refunded"], currency_of(thing))
    except MoneyError:
        refunded = NOT_TOLD
    return ParsedEvent(refunds_of=intent_of(thing), refunded=refunded)


def _dispute(thing: Mapping[str, Any], at: datetime) -> ParsedEvent:
    return ParsedEvent(dispute_observation(thing, at))


READERS: Final[Mapping[str, Callable[[Mapping[str, Any], datetime], ParsedEvent]]] = {
    "payment_intent.succeeded": _intent_succeeded,
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
}
"""Events that mean something here; all others are stored and mean nothing."""
