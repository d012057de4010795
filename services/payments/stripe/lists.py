"""Objects of Stripe's lists as facts, and which of them are ours.

An account may be shared with other business: an object is ours where its payment intent carries our
metadata, or where we know the intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from services.payments.domain import FactKind, Observation
from services.payments.processor import ListedFact, ListedFacts
from services.payments.stripe.objects import READERS, Unreadable, clean, intent_capture, moment_of
from services.payments.webhooks.foreign import is_marked

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
"""Refunds and disputes name their intent only; its metadata says whose they are."""

EVENT_TYPES: Final[Mapping[FactKind, tuple[str, ...]]] = {
    FactKind.CAPTURE: (
        "payment_intent.succeeded",
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
    ),
    FactKind.REFUND: tuple(name for name in READERS if "refund" in name),
    FactKind.DISPUTE: tuple(name for name in READERS if "dispute" in name),
}
"""The event types that tell of each kind of fact, for whoever has to select them."""


def listed(
    kind: FactKind, things: Iterable[Mapping[str, Any]], after: str | None, told_at: datetime
) -> ListedFacts:
    """A page of objects as facts, as Stripe told of them at `told_at` by its own clock.

    Those that cannot be read and are ours are named in `unreadable`, the others left out.
    """
    facts: list[ListedFact] = []
    unreadable: list[str] = []
    for thing in things:
        try:
            if (fact := read_listed(kind, thing, told_at)) is not None:
                facts.append(fact)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if _may_be_ours(kind, thing):
                unreadable.append(clean(f"{thing.get('id')}: {type(error).__name__}: {error}"[:300]) or "")
    return ListedFacts(facts, unreadable, after)


def read_listed(kind: FactKind, thing: Mapping[str, Any], told_at: datetime) -> ListedFact | None:
    """What one object says; None where it says nothing (an intent not paid, a charge without an intent).

    Raises `Unreadable` or `ValueError` where it cannot be read.
    """
    if kind is FactKind.CAPTURE:
        if thing["status"] != "succeeded":
            return None
        return ListedFact(intent_capture(thing, moment_of(thing["created"])), None, ours=is_marked(thing))
    intent = thing.get("payment_intent")
    whole = intent if isinstance(intent, Mapping) else None
    plain = {**thing, "payment_intent": whole["id"]} if whole else thing
    observation = _observation(kind, plain, told_at)
    if observation is None:
        return None
    ours = whole is not None and is_marked(whole)
    capture = None
    if whole is not None and whole["status"] == "succeeded":
        capture = intent_capture(whole, moment_of(whole["created"]))
    return ListedFact(observation, capture, ours=ours)


def _observation(kind: FactKind, thing: Mapping[str, Any], told_at: datetime) -> Observation | None:
    """The fact that an event about this object would tell now."""
    name = "refund.updated" if kind is FactKind.REFUND else "charge.dispute.updated"
    try:
        return READERS[name](thing, told_at).observation
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def _may_be_ours(kind: FactKind, thing: Mapping[str, Any]) -> bool:
    intent = thing if kind is FactKind.CAPTURE else thing.get("payment_intent")
    return isinstance(intent, Mapping) and is_marked(intent)
