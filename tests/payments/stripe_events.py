"""Stripe's events in Stripe's format, for tests without the sandbox."""

from __future__ import annotations

import hmac
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

from services.payments.processor import ProcessorEvent
from services.payments.stripe.events import stored

_numbers = itertools.count(1)

OURS = {"ataa_drive": "drv_00000000000000000000000001"}
"""Metadata that marks money as ours and names an unknown drive."""


def an_event(kind: str, thing: dict[str, Any], **other: Any) -> dict[str, Any]:
    """An event of `kind` about `thing`."""
    return {
        "id": f"evt_{next(_numbers)}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": thing},
    } | other


def metadata(payment: str | None, pledge: str | None, drive: str | None) -> dict[str, str]:
    """Our ids as metadata of Stripe's objects."""
    given = {"ataa_payment": payment, "ataa_pledge": pledge, "ataa_drive": drive}
    return {name: value for name, value in given.items() if value is not None}


def intent_succeeded(intent: str, units: int, ours: dict[str, str], currency: str = "usd") -> dict[str, Any]:
    thing = {"id": intent, "amount_received": units, "currency": currency, "metadata": ours}
    return an_event("payment_intent.succeeded", thing)


def session_completed(
    session: str, intent: str, units: int, ours: dict[str, str], currency: str = "usd"
) -> dict[str, Any]:
    thing = {
        "id": session, "payment_intent": intent, "payment_status": "paid", "amount_total": units,
        "currency": currency, "metadata": ours, "client_reference_id": ours.get("ataa_pledge"),
        "customer_details": {"email": "donor@example.org", "name": "A Donor"},
    }  # fmt: skip
    return an_event("checkout.session.completed", thing)


def session_expired(session: str, ours: dict[str, str]) -> dict[str, Any]:
    return an_event("checkout.session.expired", {"id": session, "currency": "usd", "metadata": ours})


def refund(
    kind: str, refund_id: str, intent: str, units: int, status: str | None, ours: str | None = None,
    currency: str = "usd",
) -> dict[str, Any]:  # fmt: skip
    thing = {
        "id": refund_id, "payment_intent": intent, "amount": units, "currency": currency, "status": status,
        "created": 1_700_000_000, "metadata": {"ataa_refund": ours} if ours else {},
    }  # fmt: skip
    return an_event(f"refund.{kind}", thing)


def dispute(
    kind: str, dispute_id: str, intent: str, units: int, status: str, *,
    currency: str = "usd", moves: Sequence[int] | None = None, settled_in: str = "usd",
    case_type: str | None = None, at: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`moves` are the amounts of its balance transactions (None: the object has no such list); `at`
    is the event's second, this one without it.
    """
    thing: dict[str, Any] = {
        "id": dispute_id, "payment_intent": intent, "amount": units, "currency": currency, "status": status,
        "created": 1_700_000_000,
    }  # fmt: skip
    if moves is not None:
        thing["balance_transactions"] = [moved(amount, settled_in) for amount in moves]
    if case_type is not None:
        card = {"brand": "visa", "case_type": case_type, "network": "visa"}
        thing["payment_method_details"] = {"type": "card", "card": card}
    return an_event(f"charge.dispute.{kind}", thing, **({} if at is None else {"created": at}))


def moved(amount: int, currency: str = "usd") -> dict[str, Any]:
    """A balance transaction of a dispute; the fee of a withdrawal is no part of its amount."""
    fee = 1_500 if amount < 0 else 0
    return {
        "object": "balance_transaction", "amount": amount, "currency": currency, "fee": fee,
        "net": amount - fee, "type": "adjustment",
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
    }  # fmt: skip


def a_thin_event(kind: str = "v1.payment_intent.succeeded", **other: Any) -> dict[str, Any]:
    """An event of Stripe's v2 API (https://docs.stripe.com/api/v2/core/events/object)."""
    return {
        "id": f"evt_test_thin{next(_numbers)}",
        "object": "v2.core.event",
        "type": kind,
        "created": "2026-11-26T14:12:43.246Z",
        "livemode": False,
        "related_object": {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"},
        "reason": None,
        "context": None,
    } | other


def as_stored(event: dict[str, Any]) -> ProcessorEvent:
    return stored(event, json.dumps(event).encode())


def signed(body: bytes, secret: str, at: float | None = None) -> dict[str, str]:
    """The signature header of `body`."""
    stamp = int(time.time() if at is None else at)
    digest = hmac.digest(secret.encode(), b"%d.%b" % (stamp, body), "sha256").hex()
    return {"stripe-signature": f"t={stamp},v1={digest}"}


def a_charge_refunded(intent: str, refunded: int) -> dict[str, Any]:
    """`charge.refunded`, which says what the refunds of an intent add up to, and names none of them."""
    thing = {"id": "ch_1", "payment_intent": intent, "amount_refunded": refunded, "currency": "usd"}
    return an_event("charge.refunded", thing)
