"""An unreadable response of Stripe affects one refund and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backbone.idempotency import ScopedKey
from services.payments.processor import Unknown
from services.payments.refunds import RefundRequest, RefundService
from services.payments.stripe.client import StripeProcessor
from tests.payments.books import open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata


class NewerStripe(StripeProcessor):
    """Stripe is unavailable at first; then `first` is the refund of `pi_0`, and the others succeed."""

    def __init__(self, first: Mapping[str, Any]) -> None:
        super().__init__("sk_test", base="", timeout_s=1.0, expires_s=3600, donor_url="", in_flight=1)
        self.down = True
        self.first = first

    async def _call(self, method: str, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self.down:
            raise Unknown("no answer")
        intent = parameters["payment_intent"]
        refund = {
            "id": f"re_{intent}", "payment_intent": intent, "amount": parameters["amount"], "currency": "usd",
            "status": "succeeded", "created": 1_700_000_000, "metadata": parameters["metadata"],
        }  # fmt: skip
        return refund | dict(self.first if intent == "pi_0" else {})


@pytest.mark.parametrize(
    ("first", "counted"),
    [({"status": "in_transit"}, 2_500), ({"status": None}, 2_500), ({"currency": None}, 0)],
)
async def test_an_unreadable_refund_does_not_block_the_others_and_one_of_unknown_status_counts(
    tmp_path: Path, first: dict[str, Any], counted: int
) -> None:
    stripe, drive = NewerStripe(first), a_drive()
    async with open_books(tmp_path) as books:
        refunds = RefundService(books.database, stripe, books.clock, 1.0)
        pledges = [a_pledge(drive) for _ in range(3)]
        await books.consume(drive, *pledges)
        for n, pledge in enumerate(pledges):
            told = metadata(None, pledge.pledge_id, drive.drive_id)
            await books.apply([intent_succeeded(f"pi_{n}", 2_500, told)])
            await refunds.make(
                RefundRequest(pledge.pledge_id, None, None, None, ScopedKey("refunds", f"k{n}"), "hash")
            )
            books.clock.move(1)
        stripe.down = False
        books.clock.move(60)
        await refunds.send_due()
        refunded = [(await books.payments(pledge.pledge_id))[0].refunded for pledge in pledges]
    assert refunded == [counted, 2_500, 2_500]
