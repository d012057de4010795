"""Early fraud warnings are counted for payments of ours, and move no money."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.payments.tables import APPLIED, IGNORED
from tests.payments.books import Books
from tests.payments.stripe_events import an_event
from tests.payments.webhooks.test_foreign import states


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


async def test_warned_payment_is_marked_and_its_money_counts_as_before(books: Books) -> None:
    pledge = await books.paid_pledge()
    (payment,) = await books.payments(pledge)
    before, balances, events = counted(), await books.balances(payment.id), await books.published(pledge)
    await books.apply([a_warning("pi_1")])
    assert counted() == before + 1
    (warned,) = await books.payments(pledge)
    assert dict(warned._mapping) | {"warned_at": None} == dict(payment._mapping)
    assert warned.warned_at == books.clock.now()
    assert (await books.balances(payment.id), await books.published(pledge)) == (balances, events)
    assert (await states(books))[-1] == (APPLIED, None)


async def test_further_warning_keeps_the_time_of_the_first(books: Books) -> None:
    pledge = await books.paid_pledge()
    await books.apply([a_warning("pi_1")])
    first = books.clock.now()
    books.clock.move(3_600)
    await books.apply([a_warning("pi_1")])
    (payment,) = await books.payments(pledge)
    assert payment.warned_at == first


@pytest.mark.parametrize("intent", ["pi_shop", None])
async def test_warning_of_another_payment_is_ignored(books: Books, intent: str | None) -> None:
    await books.paid_pledge()
    before = counted()
    await books.apply([a_warning(intent)])
    assert counted() == before
    assert (await states(books))[-1] == (IGNORED, "foreign")
