"""Late responses of Stripe: after the key expired, or after the lookup was requested again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from backbone.idempotency import ScopedKey
from backbone.money import Money
from services.payments.domain import FactKind, Observation, RefundRank
from services.payments.processor import Unknown
from services.payments.reconciliation.lookups import Reconciler
from services.payments.refunds import RefundRequest, RefundService
from services.payments.tables import REFUNDS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.stripe_events import a_charge_refunded
from tests.rounds import run_lookups, run_round

HOUR_S = 3600.0


class DownForADay(FakeProcessor):
    """A processor that does not respond to refunds until it is back; `keys` are those it received."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        self.keys: list[str] = []
        self.back = False

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        return {"refund": refund_id}

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        self.keys.append(key)
        if not self.back:
            raise Unknown("no answer")
        return Observation(
            "re_1", FactKind.REFUND, "pi_1", 700, "USD", RefundRank.SUCCEEDED, self.books.clock.now(),
            refund_id=parameters["refund"],
        )  # fmt: skip


async def test_a_refund_whose_key_expired_is_sent_under_a_new_key(books: Books) -> None:
    pledge = await books.paid_pledge()
    stripe = DownForADay(books)
    refunds = RefundService(books.database, stripe, books.clock, timeout_s=1.0)
    request = RefundRequest(pledge, None, Money(700, "USD"), None, ScopedKey("default:refunds", "k"), "hash")
    await refunds.make(request)
    (first,) = stripe.keys
    stripe.back = True
    books.clock.move(24 * HOUR_S)
    for _ in range(5):
        await run_round(refunds)
        books.clock.move(60.0)
    assert stripe.keys == [first, f"{first}.2"]
    assert (await books.payments(pledge))[0].refunded == 700


class OneUnstorable(DownForADay):
    """Responds to the first refund with an id that no store accepts, to the others correctly."""

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        found = await super().refund(key, parameters)
        bad = parameters["refund"] == self.keys[0]
        return replace(found, id="re_\ud800" if bad else f"re_{parameters['refund']}")


async def test_a_refund_whose_response_cannot_be_stored_does_not_block_the_others(books: Books) -> None:
    pledge = await books.paid_pledge()
    stripe = OneUnstorable(books)
    refunds = RefundService(books.database, stripe, books.clock, timeout_s=1.0)
    for key in ("first", "second"):
        request = RefundRequest(
            pledge, None, Money(700, "USD"), None, ScopedKey("default:refunds", key), "hash"
        )
        await refunds.make(request)
    stripe.back = True
    for _ in range(5):
        books.clock.move(60.0)
        await run_round(refunds)
    assert (await books.payments(pledge))[0].refunded == 700
    async with books.database.reading() as session:
        rows = (await session.execute(select(REFUNDS).order_by(REFUNDS.c.made_at))).all()
    assert [row.state for row in rows] == ["unsent", "sent"]
    assert "surrogates" in rows[0].reason


class AskedMeanwhile(FakeProcessor):
    """A processor during whose first response a second refund is made."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books

    async def list_refunds(self, intent: str) -> list[Observation]:
        found = list(await super().list_refunds(intent))
        if len(self.looked_up) == 1:
            self.refunds[intent].append(
                Observation(
                    "re_2", FactKind.REFUND, intent, 300, "USD", RefundRank.SUCCEEDED, self.books.clock.now()
                )
            )
            await self.books.apply([{**a_charge_refunded(intent, 1_000), "id": "evt_second"}])
        return found


async def test_a_lookup_requested_again_while_it_runs_is_repeated(books: Books) -> None:
    pledge = await books.paid_pledge()
    processor = AskedMeanwhile(books)
    processor.refunds["pi_1"] = [
        Observation("re_1", FactKind.REFUND, "pi_1", 700, "USD", RefundRank.SUCCEEDED, books.clock.now())
    ]
    reconciler = Reconciler(books.database, processor, books.clock)
    await books.apply([a_charge_refunded("pi_1", 700)])
    for _ in range(3):
        books.clock.move(3)
        await run_lookups(reconciler)
    assert (await books.payments(pledge))[0].refunded == 1_000
