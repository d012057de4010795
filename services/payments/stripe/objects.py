"""Stripe's API objects read as observations of facts; `backbone.stripe_amounts` converts the amounts.

A refund or dispute is never quarantined because of a value that this version does not know. An unknown
status, case type or currency is read as one that may have withdrawn the money, and the amount is marked
as an estimate (domain.EstimateReason).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

from backbone.money import MoneyError, digits
from backbone.stripe_amounts import from_stripe, rounded_up
from services.payments.domain import (
    MIXED,
    CaptureRank,
    DisputeRank,
    FactKind,
    LinkCapture,
    Observation,
    RefundRank,
)
from services.payments.stripe.marks import LINK

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

AWAITS_EVIDENCE: Final = frozenset(("warning_needs_response", "needs_response"))
"""Statuses in which a dispute waits for our evidence."""

PREVENTED_RANKS: Final[Mapping[str, DisputeRank]] = {
    "block": DisputeRank.INQUIRY,
    "inquiry": DisputeRank.INQUIRY,
    "resolution": DisputeRank.LOST,
}
"""A prevented dispute by `payment_method_details.card.case_type`: a resolution returns the money to the
cardholder, a block stops the dispute before any money moves
(docs.stripe.com/changelog/basil/2025-08-27/add-preventions-to-dispute)."""


NOT_REPORTED: Final = -1
"""Stands for a sum of refunds that cannot be read. It equals no stored sum, so the refunds are listed."""


class Unreadable(ValueError):
    """A Stripe object that lacks a required field, or has a value that cannot be read."""


def moment_of(seconds: int) -> datetime:
    """The aware UTC time of Stripe's Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def intent_capture(intent: Mapping[str, Any], at: datetime) -> Observation:
    """The capture that a succeeded PaymentIntent reports."""
    currency = currency_of(intent)
    units = from_stripe(intent["amount_received"], currency)
    return _capture(intent, intent["id"], units, currency, CaptureRank.BY_INTENT, at)


def _capture(
    thing: Mapping[str, Any], intent: str, units: int, currency: str, rank: CaptureRank, at: datetime
) -> Observation:
    """The capture that an intent or a session reports; one through a link of ours is a `LinkCapture`."""
    known, link = ours(thing), link_of(thing)
    if link is None:
        return Observation(intent, FactKind.CAPTURE, intent, units, currency, rank, at, **known)
    by_session = rank is CaptureRank.BY_SESSION
    return LinkCapture(
        intent, FactKind.CAPTURE, intent, units, currency, rank, at, drive_id=known["drive_id"], link=link,
        reference=clean(thing.get("client_reference_id")) if by_session else None, by_session=by_session,
    )  # fmt: skip


def link_of(thing: Mapping[str, Any]) -> str | None:
    """The key of the Payment Link of ours through which an intent or a session was made; None for others.

    Stripe copies a link's metadata to its sessions, and `payment_intent_data.metadata` to their intents
    (https://docs.stripe.com/api/payment-link/create).
    """
    return clean((thing.get("metadata") or {}).get(LINK))


def session_capture(session: Mapping[str, Any], at: datetime) -> Observation | None:
    """The capture that a paid Checkout Session reports; None while it is unpaid (a pending bank debit).

    Also None without an intent or a total, which Stripe leaves null in the modes `setup` and
    `subscription`; the payment intent's own event then reports the capture.
    """
    intent = intent_of(session)
    if session["payment_status"] != "paid" or intent is None or session.get("amount_total") is None:
        return None
    currency = currency_of(session)
    units = from_stripe(session["amount_total"], currency)
    return _capture(session, intent, units, currency, CaptureRank.BY_SESSION, at)


def refund_observation(refund: Mapping[str, Any]) -> Observation | None:
    """Read a Refund; None for one of a charge without a PaymentIntent, which cannot be ours."""
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
    """Read a Dispute; None for one of a charge without a PaymentIntent, which cannot be ours.

    `told_at` orders the observations of a dispute: the event's `created`, or for a dispute read from
    the API the time of the response by Stripe's clock (its `Date` header).
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
        due_at=_evidence_due_at(dispute),
    )


def _dispute_rank(dispute: Mapping[str, Any]) -> DisputeRank:
    status = dispute["status"]
    if status != "prevented":
        return DISPUTE_RANKS.get(status, DisputeRank.UNKNOWN)
    card = (dispute.get("payment_method_details") or {}).get("card") or {}
    return PREVENTED_RANKS.get(card.get("case_type") or "", DisputeRank.UNKNOWN)


def _evidence_due_at(dispute: Mapping[str, Any]) -> datetime | None:
    """Until when evidence may be submitted; None where it was, and where the dispute waits for none.

    `evidence_details.due_by` is null where a dispute cannot be contested
    (docs.stripe.com/api/disputes/object#dispute_object-evidence_details-due_by).
    """
    details = dispute.get("evidence_details")
    if dispute["status"] not in AWAITS_EVIDENCE or not isinstance(details, Mapping):
        return None
    due_by = details.get("due_by")
    if details.get("submission_count") or not isinstance(due_by, int):
        return None
    with suppress(ValueError, OverflowError, OSError):
        return moment_of(due_by)
    return None


def _at_stake(thing: Mapping[str, Any]) -> tuple[int, str]:
    """Amount and currency of a refund or dispute. A fraction of an ISO minor unit is rounded up.

    A currency unknown to this version keeps Stripe's units; it cannot be the capture's currency.
    """
    currency: str = thing["currency"].upper()
    try:
        return rounded_up(thing["amount"], currency), currency
    except MoneyError:
        return int(thing["amount"]), currency


def _balance(dispute: Mapping[str, Any]) -> tuple[int | None, int | None, str | None]:
    """What a dispute's balance transactions withdrew and returned, and in which currency.

    `amount` is the gross of a balance transaction, without the dispute's fee, in the account's
    settlement currency (docs.stripe.com/api/balance_transactions/object). The currency is `MIXED` where
    the amounts cannot be added up. All None without balance transactions; Stripe lists at most two.
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
    """The id of an object's PaymentIntent, expanded or not; None where it has none."""
    intent = thing.get("payment_intent")
    found: str | None = intent["id"] if isinstance(intent, Mapping) else intent
    return found or None


class Ours(TypedDict):
    """The ids of ours in a Stripe object's metadata."""

    payment_id: str | None
    pledge_id: str | None
    drive_id: str | None


def ours(thing: Mapping[str, Any]) -> Ours:
    """Our ids in an object's metadata; the pledge's also from `client_reference_id`."""
    metadata = thing.get("metadata") or {}
    return {
        "payment_id": clean(metadata.get("ataa_payment")),
        "pledge_id": clean(metadata.get("ataa_pledge") or thing.get("client_reference_id")),
        "drive_id": clean(metadata.get("ataa_drive")),
    }


def currency_of(thing: Mapping[str, Any]) -> str:
    """The currency's ISO 4217 code. Raises `MoneyError` for one this version does not know."""
    currency: str = thing["currency"].upper()
    digits(currency)
    return currency


def clean(text: str | None) -> str | None:
    """Text that PostgreSQL and SQLite can store: NUL and lone surrogates are written as escapes."""
    if text is None:
        return None
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\u0000")
