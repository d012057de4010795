"""Early fraud warnings are counted for payments of ours, and move no money."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.payments.tables import APPLIED, IGNORED
from tests.payments.books import Books
from tests.payments.stripe_events import an_event
from tests.payments.webhooks.test_foreign import money_rows, states


def a_warning(intent: str | None) -> dict[str, Any]:
    thing = {
        "id": "issfr_1",
        "object": "radar.early_fraud_warning",
        "charge": "ch_1",
        "payment_intent": intent,
    }
    return an_event("radar.early_fraud_warning.created", thing)


def counted() -> float:
    return REGISTRY.get_sample_value("ataa_early_fraud_warnings_total") or 0.0


async def test_warning_of_our_payment_is_counted_and_moves_no_money(books: Books) -> None:
    await books.paid_pledge()
    before, rows = counted(), await money_rows(books)
    await books.apply([a_warning("pi_1")])
    assert counted() == before + 1
    assert await money_rows(books) == rows
    assert (await states(books))[-1] == (APPLIED, None)


@pytest.mark.parametrize("intent", ["pi_shop", None])
async def test_warning_of_another_payment_is_ignored(books: Books, intent: str | None) -> None:
    await books.paid_pledge()
    before = counted()
    await books.apply([a_warning(intent)])
    assert counted() == before
    assert (await states(books))[-1] == (IGNORED, "foreign")
