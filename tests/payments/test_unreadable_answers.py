"""An answer of Stripe's that cannot be read is one refund's trouble and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbone.idempotency import Key
from services.payments.processor import Unknown
from services.payments.refunds import RefundDesk, RefundWish
from services.payments.stripe_processor import StripeProcessor
from tests.payments.books import open_books
from tests.payments.stage import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata


class NewerStripe(StripeProcessor):
    """Stripe, down at first; then `pi_0` is refunded in a status that nobody here knows."""

    def __init__(self) -> None:
        super().__init__("sk_test", base="", timeout_s=1.0, expires_s=3600, donor_url="", in_flight=1)
        self.down = True

    async def _call(self, method: str, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self.down:
            raise Unknown("no answer")
        intent = parameters["payment_intent"]
        status = "in_transit" if intent == "pi_0" else "succeeded"
        return {
            "id": f"re_{intent}", "payment_intent": intent, "amount": parameters["amount"], "currency": "usd",
            "status": status, "created": 1_700_000_000, "metadata": parameters["metadata"],
        }  # fmt: skip


async def test_a_refund_in_an_unknown_status_does_not_stop_the_others(tmp_path: Path) -> None:
    stripe, drive = NewerStripe(), a_drive()
    async with open_books(tmp_path) as books:
        desk = RefundDesk(books.database, stripe, books.clock, 1.0)
        pledges = [a_pledge(drive) for _ in range(3)]
        await books.hear(drive, *pledges)
        for n, pledge in enumerate(pledges):
            told = metadata(None, pledge.pledge_id, drive.drive_id)
            await books.take([intent_succeeded(f"pi_{n}", 2_500, told)])
            await desk.make(RefundWish(pledge.pledge_id, None, None, None, Key("refunds", f"k{n}"), "hash"))
            books.clock.move(1)
        stripe.down = False
        books.clock.move(60)
        await desk.send_due()
        refunded = [(await books.payments(pledge.pledge_id))[0].refunded for pledge in pledges]
    assert refunded == [0, 2_500, 2_500]
