"""Which of Stripe's events are for this installation; other business may use the same account.

An event is ignored, and counted, where it
- is a "thin" event of Stripe's v2 API: it names an object but does not carry it
  (https://docs.stripe.com/event-destinations);
- belongs to the other mode (live or test), or names another account: an endpoint of Stripe Connect receives
  both (https://docs.stripe.com/connect/webhooks). Events of our own account carry no `account`;
- is about a foreign object, unless `hold_foreign` is set.

An object is foreign where it is not marked (`stripe/marks.py`) and concerns no PaymentIntent known here:
- A PaymentIntent or Checkout Session without a mark is foreign at once. We create both with all our
  metadata (`StripeProcessor.checkout_parameters`), so their order does not matter: one that has lost its
  mark is recognised by the other.
- A refund, dispute or charge seldom carries a mark. It is ours where its PaymentIntent is. One of an unknown
  intent is stored until Stripe was asked for the intent and its session (`reconciliation/lookups.py`); where
  neither is marked, the stored facts are dropped and counted (`drop_foreign_facts`).
- An early fraud warning of an unknown PaymentIntent is foreign. It is kept all the same until Stripe was
  asked for the intent: the capture may have been lost (`recording/warnings.py`).
- A refund, dispute or charge without a PaymentIntent is foreign: our checkouts always create one.
- A marked object is never dropped: money for an unknown pledge or drive is posted to the suspense account.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import delete, select

from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.statements import lock_intents
from services.payments.stripe.marks import is_marked
from services.payments.tables import FACTS, LOOKUPS, PAYMENTS

_CAPTURES: Final = ("payment_intent.", "checkout.session.", "radar.")
_FOLLOWERS: Final = ("refund.", "charge.")
"""Prefixes of the event types that follow a capture."""

_IGNORED: Final = Counter(
    "ataa_webhooks_ignored_total",
    "Stripe's events that are not for this installation and are not applied.",
    ["type", "why"],
)


class IgnoreReason(StrEnum):
    """Why an event is ignored."""

    THIN = "thin"
    OTHER_MODE = "other_mode"
    OTHER_ACCOUNT = "other_account"
    FOREIGN = "foreign"


def count_ignored(kind: str, why: IgnoreReason, many: int = 1) -> None:
    """Count `many` ignored events; `kind` becomes a label, so it must be one of a bounded set."""
    _IGNORED.labels(kind, why).inc(many)


def is_thin(event: Mapping[str, Any]) -> bool:
    """Whether this is an event of Stripe's v2 API (https://docs.stripe.com/api/v2/core/events/object)."""
    return event.get("object") == "v2.core.event"


@dataclass(frozen=True, slots=True)
class OurAccount:
    """Our account at Stripe: the mode of our key, and the account's id ("" where it is not configured).

    With `hold_foreign`, no other business uses the account: money without a mark is not ignored but posted
    to the suspense account.
    """

    livemode: bool = False
    id: str = ""
    hold_foreign: bool = False

    def ignore_reason(self, event: Mapping[str, Any]) -> IgnoreReason | None:
        """Why an event cannot be for us, by its own fields; None where it can be."""
        if is_thin(event):
            return IgnoreReason.THIN
        livemode, account = event.get("livemode"), event.get("account")
        if isinstance(livemode, bool) and livemode is not self.livemode:
            return IgnoreReason.OTHER_MODE
        if account and account != self.id:
            return IgnoreReason.OTHER_ACCOUNT
        return None

    def may_be_foreign(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is foreign unless its PaymentIntent is known; see the module's docstring."""
        kind, thing = event["type"], _object_of(event)
        if self.hold_foreign or thing is None or is_marked(thing):
            return False
        return kind.startswith(_CAPTURES) or (kind.startswith(_FOLLOWERS) and _intent_of(event) is None)


async def ignore_reasons(
    database: Database, events: Sequence[Mapping[str, Any]], ours: OurAccount
) -> list[IgnoreReason | None]:
    """Why each of `events` is ignored, None for those to be applied; reads the database only where needed."""
    found = [ours.ignore_reason(event) for event in events]
    applied = [(place, event) for place, event in enumerate(events) if found[place] is None]
    unsure = {place: _intent_of(event) for place, event in applied if ours.may_be_foreign(event)}
    if not unsure:
        return found
    known = {_intent_of(event) for place, event in applied if place not in unsure and _is_about_marked(event)}
    async with database.reading() as session:
        known |= await _known_intents(session, {each for each in unsure.values() if each is not None})
    for place, intent in unsure.items():
        if intent is None or intent not in known:
            found[place] = IgnoreReason.FOREIGN
    return found


async def drop_foreign_facts(session: Transaction, intent: str) -> bool:
    """Delete the refunds and disputes stored for a foreign PaymentIntent, and its pending lookups.

    Returns False and deletes nothing where the intent is ours after all: it has a payment, or one of its
    refunds was requested through our API.
    """
    await lock_intents(session, [intent])  # no other transaction records its facts meanwhile
    if await _known_intents(session, {intent}):
        return False
    rows = (await session.execute(select(FACTS).where(FACTS.c.intent == intent))).all()
    if any(row.payment_id is not None or row.refund_id is not None for row in rows):
        return False
    await session.execute(delete(FACTS).where(FACTS.c.id.in_([row.id for row in rows])))
    await session.execute(delete(LOOKUPS).where(LOOKUPS.c.intent == intent))
    for row in rows:
        count_ignored(row.kind, IgnoreReason.FOREIGN)
    return True


async def _known_intents(session: Transaction, intents: Collection[str]) -> set[str | None]:
    if not intents:
        return set()
    return {intent for (intent,) in await session.execute(_KNOWN, {"intents": intents})}


_KNOWN: Final = select(PAYMENTS.c.intent).where(one_of(PAYMENTS.c.intent, "intents"))


def _is_about_marked(event: Mapping[str, Any]) -> bool:
    thing = _object_of(event)
    return thing is not None and is_marked(thing)


def _object_of(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The Stripe object in an event; None where it carries none."""
    data = event.get("data")
    thing = data.get("object") if isinstance(data, dict) else None
    return thing if isinstance(thing, dict) else None


def _intent_of(event: Mapping[str, Any]) -> str | None:
    """The PaymentIntent an event is about."""
    thing = _object_of(event) or {}
    intent = thing.get("id" if event["type"].startswith("payment_intent.") else "payment_intent")
    return intent if isinstance(intent, str) else None
