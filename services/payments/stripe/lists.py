"""Objects of Stripe's lists read as observations of facts, and which of them are ours.

An account may be shared with other business. An object is ours where its payment intent carries our
metadata, or where the intent is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from services.payments.domain import FactKind, Observation
from services.payments.processor import ListedFact, ListedFacts
from services.payments.stripe.events import READERS
from services.payments.stripe.marks import is_marked
from services.payments.stripe.objects import Unreadable, clean, intent_capture, moment_of

PATHS: Final[Mapping[FactKind, str]] = {
    FactKind.CAPTURE: "/v1/payment_intents",
    FactKind.REFUND: "/v1/refunds",
    FactKind.DISPUTE: "/v1/disputes",
}
EXPANDED: Final[Mapping[FactKind, Mapping[str, Any]]] = {
    FactKind.CAPTURE: {},
    FactKind.REFUND: {"expand": ["data.payment_intent"]},
    FactKind.DISPUTE: {"expand": ["data.payment_intent"]},
}
"""Refunds and disputes carry only the id of their intent; the intent's metadata shows whether it is ours."""

EVENT_TYPES: Final[Mapping[FactKind, tuple[str, ...]]] = {
    FactKind.CAPTURE: (
        "payment_intent.succeeded",
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
    ),
    FactKind.REFUND: tuple(name for name in READERS if "refund" in name),
    FactKind.DISPUTE: tuple(name for name in READERS if "dispute" in name),
}
"""The event types that report each kind of fact: named in the log where an endpoint lacks them."""


def listed(
    kind: FactKind, items: Iterable[Mapping[str, Any]], after: str | None, told_at: datetime
) -> ListedFacts:
    """Read a page of objects, returned by Stripe at `told_at` by its own clock.

    Objects of ours that cannot be read are named in `unreadable`; others are left out.
    """
    facts: list[ListedFact] = []
    unreadable: list[str] = []
    for item in items:
        try:
            if (fact := read_listed(kind, item, told_at)) is not None:
                facts.append(fact)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if _may_be_ours(kind, item):
                unreadable.append(clean(f"{item.get('id')}: {type(error).__name__}: {error}"[:300]) or "")
    return ListedFacts(facts, unreadable, after)


def read_listed(kind: FactKind, item: Mapping[str, Any], told_at: datetime) -> ListedFact | None:
    """Read one object; None where it reports no fact (an unpaid intent, a charge without an intent).

    Raises `Unreadable` or `ValueError` where it cannot be read.
    """
    if kind is FactKind.CAPTURE:
        if item["status"] != "succeeded":
            return None
        return ListedFact(intent_capture(item, moment_of(item["created"])), None, ours=is_marked(item))
    intent = item.get("payment_intent")
    expanded = intent if isinstance(intent, Mapping) else None
    collapsed = {**item, "payment_intent": expanded["id"]} if expanded else item
    observation = _observation(kind, collapsed, told_at)
    if observation is None:
        return None
    ours = expanded is not None and is_marked(expanded)
    capture = None
    if expanded is not None and expanded["status"] == "succeeded":
        capture = intent_capture(expanded, moment_of(expanded["created"]))
    return ListedFact(observation, capture, ours=ours)


def _observation(kind: FactKind, item: Mapping[str, Any], told_at: datetime) -> Observation | None:
    """The observation that an event about this object would report now."""
    name = "refund.updated" if kind is FactKind.REFUND else "charge.dispute.updated"
    try:
        return READERS[name](item, told_at).observation
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _may_be_ours(kind: FactKind, item: Mapping[str, Any]) -> bool:
    intent = item if kind is FactKind.CAPTURE else item.get("payment_intent")
    return isinstance(intent, Mapping) and is_marked(intent)
