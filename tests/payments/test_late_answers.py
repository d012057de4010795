"""Answers of Stripe's that come late: after a key has grown too old, after the question was asked anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backbone.idempotency import Key
from backbone.money import Money
from services.payments.domain import FactKind, Observation, RefundRank
from services.payments.processor import Unknown
from services.payments.reconciliation.lookups import Reconciler
from services.payments.refunds import RefundRequest, RefundService
from services.payments.tables import REFUNDS
from tests.payments.books import Books, open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.reconciliation.test_lookups import FakeProcessor, a_charge_refunded
from tests.payments.stripe_events import intent_succeeded, metadata

HOUR_S = 3600.0


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with open_books(tmp_path) as books:
        yield books


async def a_paid_pledge(books: Books) -> str:
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.hear(drive, pledge)
    await books.take([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    return pledge.pledge_id


class DownForADay(FakeProcessor):
    """A processor that does not answer refunds until it is back; `keys` are those it was sent."""

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


async def test_a_refund_whose_key_grew_too_old_is_sent_under_another(books: Books) -> None:
    pledge = await a_paid_pledge(books)
    stripe = DownForADay(books)
    desk = RefundService(books.database, stripe, books.clock, timeout_s=1.0)
    wish = RefundRequest(pledge, None, Money(700, "USD"), None, Key("default:refunds", "k"), "hash")
    await desk.make(wish)
    (first,) = stripe.keys
    stripe.back = True
    books.clock.move(24 * HOUR_S)
    for _ in range(5):
        await desk.send_due()
        books.clock.move(60.0)
    assert stripe.keys == [first, f"{first}.2"]
    assert (await books.payments(pledge))[0].refunded == 700


class OneUnstorable(DownForADay):
    """Answers for the first refund with an id that no store takes, for every other one properly."""

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        found = await super().refund(key, parameters)
        bad = parameters["refund"] == self.keys[0]
        return replace(found, id="re_\ud800" if bad else f"re_{parameters['refund']}")


async def test_a_refund_whose_answer_cannot_be_stored_does_not_hold_up_the_others(books: Books) -> None:
    pledge = await a_paid_pledge(books)
    stripe = OneUnstorable(books)
    desk = RefundService(books.database, stripe, books.clock, timeout_s=1.0)
    for key in ("first", "second"):
        wish = RefundRequest(pledge, None, Money(700, "USD"), None, Key("default:refunds", key), "hash")
        await desk.make(wish)
    stripe.back = True
    for _ in range(5):
        books.clock.move(60.0)
        await desk.send_due()
    assert (await books.payments(pledge))[0].refunded == 700
    async with books.database.reading() as session:
        rows = (await session.execute(select(REFUNDS).order_by(REFUNDS.c.made_at))).all()
    assert [row.state for row in rows] == ["unsent", "sent"]
    assert "surrogates" in rows[0].reason


class AskedMeanwhile(FakeProcessor):
    """A processor during whose first answer a second refund is made."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books

    async def list_refunds(self, intent: str) -> list[Observation]:
        found = list(await super().list_refunds(intent))
        if len(self.asked) == 1:
            self.refunds[intent].append(
                Observation(
                    "re_2", FactKind.REFUND, intent, 300, "USD", RefundRank.SUCCEEDED, self.books.clock.now()
                )
            )
            await self.books.take([{**a_charge_refunded(intent, 1_000), "id": "evt_second"}])
        return found


async def test_a_question_asked_anew_during_its_answer_is_asked_again(books: Books) -> None:
    pledge = await a_paid_pledge(books)
    oracle = AskedMeanwhile(books)
    oracle.refunds["pi_1"] = [
        Observation("re_1", FactKind.REFUND, "pi_1", 700, "USD", RefundRank.SUCCEEDED, books.clock.now())
    ]
    asker = Reconciler(books.database, oracle, books.clock)
    await books.take([a_charge_refunded("pi_1", 700)])
    for _ in range(3):
        books.clock.move(3)
        await asker.run_due()
    assert (await books.payments(pledge))[0].refunded == 1_000
