"""Stripe's balance transactions and payouts, read (docs.stripe.com/api/balance_transactions/object).

Their amounts are in Stripe's minor units of the settlement currency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backbone.stripe_amounts import from_stripe
from services.payments.processor import Movement, MovementPage, PayoutState
from services.payments.stripe.objects import clean, currency_of, intent_of, moment_of

PATH: Final = "/v1/balance_transactions"
EXPANDED: Final[Mapping[str, Any]] = {"expand": ["data.source"]}
"""A transaction names its charge, refund or dispute; only the object itself names the payment intent."""

LINES_COMPLETE: Final[Mapping[str, bool | None]] = {
    "completed": True,
    "in_progress": False,
    "not_applicable": None,
}
"""By `payout.reconciliation_status` (docs.stripe.com/api/payouts/object)."""


def movement_page(items: Iterable[Mapping[str, Any]], after: str | None) -> MovementPage:
    """Read a page of balance transactions; those that cannot be read are named in `unreadable`."""
    movements: list[Movement] = []
    unreadable: list[str] = []
    for item in items:
        try:
            movements.append(_movement(item))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            unreadable.append(clean(f"{item.get('id')}: {type(error).__name__}: {error}"[:300]) or "")
    return MovementPage(movements, unreadable, after)


def _movement(item: Mapping[str, Any]) -> Movement:
    currency = currency_of(item)
    source = item.get("source")
    expanded = source if isinstance(source, Mapping) else {}
    rate = item.get("exchange_rate")
    return Movement(
        id=item["id"],
        type=item["type"],
        source=clean(expanded["id"] if expanded else source),
        intent=clean(intent_of(expanded)),
        amount=from_stripe(item["amount"], currency),
        fee=from_stripe(item["fee"], currency),
        currency=currency,
        exchange_rate=None if rate is None else str(rate),
        created_at=moment_of(item["created"]),
        available_on=moment_of(item["available_on"]),
    )


def payout_state(payout: Mapping[str, Any]) -> PayoutState:
    """Read a payout. Raises `KeyError` or `ValueError` where it cannot be read."""
    currency = currency_of(payout)
    return PayoutState(
        id=payout["id"],
        amount=from_stripe(payout["amount"], currency),
        currency=currency,
        status=payout["status"],
        arrival_at=moment_of(payout["arrival_date"]),
        created_at=moment_of(payout["created"]),
        lines=LINES_COMPLETE[payout["reconciliation_status"]],
    )
