"""Personal details are removed from every event, wherever they are in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from services.payments.tables import IGNORED, WEBHOOKS
from services.payments.webhooks.redaction import without_details
from tests.payments.books import open_books
from tests.payments.stripe_events import a_thin_event, an_event, session_completed

DETAILS = {"email": "donor@example.org", "name": "A Donor"}


@pytest.mark.parametrize(
    "event",
    [
        an_event("checkout.session.completed", {"id": "cs_1", "customer_details": DETAILS}),
        an_event("charge.refunded", {"id": "ch_1", "refunds": [{"charge": {"billing_details": DETAILS}}]}),
        an_event("x", {"id": "x", "shipping": DETAILS}) | {"data": {"object": [{"shipping": DETAILS}]}},
        an_event("x", {}) | {"data": None, "customer_details": DETAILS},
        a_thin_event(changes={"before": {"receipt_email": "donor@example.org"}}),
    ],
)
def test_personal_details_are_removed(event: dict[str, Any]) -> None:
    bare = without_details(json.dumps(event).encode(), event)
    assert bare is not None
    assert b"donor" not in bare.lower()
    assert json.loads(bare)["id"] == event["id"]


def test_an_event_without_personal_details_is_unchanged() -> None:
    for event in (a_thin_event(), an_event("x", {"id": "x", "shipping": None})):
        assert without_details(json.dumps(event).encode(), event) is None


async def test_personal_details_are_removed_from_ignored_webhooks_too(tmp_path: Any) -> None:
    async with open_books(tmp_path) as books:
        await books.apply([session_completed("cs_shop", "pi_shop", 100, {})])
        async with books.database.reading() as session:
            (row,) = (await session.execute(select(WEBHOOKS))).all()
        assert row.state == IGNORED
        assert b"donor@example.org" not in row.body
