"""Quarantined webhooks are retried for ever with exponential backoff, and never before new webhooks."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update

from services.payments.tables import APPLIED, POSTINGS, QUARANTINED, WAITING, WEBHOOKS
from services.payments.webhooks.apply import LAST_RETRY, RETRIED_AT_START, RETRY_BATCH, Applier
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.watermark import HOLDS_WATERMARK_BACK, oldest_waiting
from tests.payments.books import Books
from tests.payments.stripe_events import OURS, an_event, as_stored, intent_succeeded
from tests.rounds import apply_waiting, retry_quarantined


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def poison(refund: str = "re_1") -> dict[str, Any]:
    """A refund without amount and currency: no version can read it."""
    return an_event("refund.created", {"id": refund, "payment_intent": "pi_1"})


async def rows(books: Books) -> list[Any]:
    async with books.database.reading() as session:
        return list((await session.execute(select(WEBHOOKS).order_by(WEBHOOKS.c.number))).all())


async def how_many(books: Books, state: int) -> int:
    counted = select(func.count()).select_from(WEBHOOKS).where(WEBHOOKS.c.state == state)
    async with books.database.reading() as session:
        return (await session.execute(counted)).scalar_one()


async def watermark_floor(books: Books) -> datetime | None:
    async with books.database.reading() as session:
        return await oldest_waiting(session, books.clock.now())


async def test_the_delay_between_retries_doubles_up_to_a_bound(books: Books) -> None:
    await books.apply([poison()])
    pauses = []
    for _ in range(16):
        (row,) = await rows(books)
        assert row.state == QUARANTINED
        pause = row.next_try_at - books.clock.now()
        pauses.append(pause)
        books.clock.move(pause.total_seconds() - 1)
        assert await retry_quarantined(books.applier) == 0
        books.clock.move(1)
        assert await retry_quarantined(books.applier) == 1
    assert pauses[0] == timedelta(minutes=1)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_RETRY
    assert (await rows(books))[0].tries == 17


async def test_new_webhooks_are_applied_before_a_thousand_quarantined_ones(books: Books) -> None:
    many = RETRY_BATCH * 3
    await books.apply([poison(f"re_{n}") for n in range(many)])
    assert await how_many(books, QUARANTINED) == many
    books.clock.move(3_600)
    await books.store.keep_all([as_stored(intent_succeeded("pi_1", 2_500, OURS))])
    await books.applier.make_retries_due()
    assert await apply_waiting(books.applier) == 1
    assert await how_many(books, APPLIED) == 1
    assert await retry_quarantined(books.applier) == RETRY_BATCH
    assert await how_many(books, WAITING) == 0


async def test_every_quarantined_webhook_is_retried_and_a_readable_one_is_applied(books: Books) -> None:
    await books.apply([poison(f"re_{n}") for n in range(RETRY_BATCH * 2)])
    mended = (await rows(books))[-1].event_id
    text = json.dumps(intent_succeeded("pi_1", 2_500, OURS)).encode()
    async with books.database.transaction() as session:
        this = update(WEBHOOKS).where(WEBHOOKS.c.event_id == mended)
        await session.execute(this.values(body=text, type="payment_intent.succeeded"))
    books.clock.move(60)
    assert [await retry_quarantined(books.applier) for _ in range(3)] == [RETRY_BATCH, RETRY_BATCH, 0]
    assert await how_many(books, APPLIED) == 1
    (row,) = [row for row in await rows(books) if row.state == APPLIED]
    assert (row.event_id, row.reason, row.next_try_at) == (mended, None, None)
    async with books.database.reading() as session:
        (posting,) = (await session.execute(select(POSTINGS))).all()
    assert posting.units == 2_500


async def test_a_start_retries_quarantined_webhooks_before_they_are_due(books: Books) -> None:
    await books.apply([poison()])
    for _ in range(12):
        books.clock.move(LAST_RETRY.total_seconds())
        await retry_quarantined(books.applier)
    assert await retry_quarantined(books.applier) == 0
    await books.applier.make_retries_due()
    assert await retry_quarantined(books.applier) == 1


async def test_a_webhook_quarantined_by_the_previous_version_is_due(books: Books) -> None:
    await books.apply([poison()])
    async with books.database.transaction() as session:
        await session.execute(update(WEBHOOKS).values(next_try_at=None))
    assert await retry_quarantined(books.applier) == 1
    assert (await rows(books))[0].next_try_at is not None


async def test_a_start_makes_a_bounded_number_of_retries_due(books: Books) -> None:
    await books.apply([poison(f"re_{n}") for n in range(10)])
    template = (await rows(books))[0]
    later = books.clock.now() + LAST_RETRY
    names = {column.name for column in WEBHOOKS.c} - {"number"}
    many = [
        {name: getattr(template, name) for name in names}
        | {"event_id": f"evt_many_{n}", "next_try_at": later}
        for n in range(RETRIED_AT_START + 50)
    ]  # fmt: skip
    async with books.database.transaction() as session:
        await session.execute(WEBHOOKS.insert(), many)
    await books.applier.make_retries_due()
    hastened = [row for row in await rows(books) if row.next_try_at <= books.clock.now()]
    assert len(hastened) == RETRIED_AT_START


async def test_a_quarantined_webhook_about_money_holds_the_watermark_back_for_a_bounded_time(
    books: Books,
) -> None:
    received = books.clock.now()
    await books.apply([poison()])
    assert await watermark_floor(books) == received
    books.clock.move(HOLDS_WATERMARK_BACK.total_seconds() - 1)
    assert await watermark_floor(books) == received
    books.clock.move(2)
    assert await watermark_floor(books) is None


async def test_a_waiting_webhook_holds_the_watermark_back_without_bound(
    books: Books,
) -> None:
    await books.store.keep_all([as_stored(intent_succeeded("pi_1", 2_500, OURS))])
    received = books.clock.now()
    books.clock.move(3_600)
    assert await watermark_floor(books) == received


async def test_a_quarantined_webhook_that_is_not_about_money_does_not_hold_the_watermark_back(
    books: Books,
) -> None:
    await books.apply([poison()])
    async with books.database.transaction() as session:
        await session.execute(update(WEBHOOKS).values(type="customer.created"))
    assert await watermark_floor(books) is None


async def test_the_gauge_counts_quarantined_webhooks(books: Books) -> None:
    await books.apply([poison("re_1"), poison("re_2")])
    await retry_quarantined(books.applier)
    assert REGISTRY.get_sample_value("ataa_webhooks_set_aside") == 2


async def test_a_failed_retry_is_not_counted_as_quarantined_again(books: Books) -> None:
    def counted(result: str) -> float:
        labels = {"type": "refund.created", "result": result}
        return REGISTRY.get_sample_value("ataa_webhooks_total", labels) or 0.0

    before = counted("set_aside"), counted("failed")
    await books.apply([poison()])
    books.clock.move(60)
    await retry_quarantined(books.applier)
    assert (counted("set_aside"), counted("failed")) == (before[0] + 1, before[1] + 1)


async def test_a_stored_reason_contains_no_values_of_the_failed_statement(books: Books) -> None:
    """The values may be personal details."""

    class Breaks(Applier):
        async def run_batch(self, batch: Any) -> Any:
            async with self._database.transaction() as session:
                await session.execute(
                    WEBHOOKS.insert(), [{"event_id": None, "type": "donor@example.org", "body": b""}]
                )

    applier = Breaks(books.database, books.store, books.clock, OurAccount())
    await books.store.keep_all([as_stored(intent_succeeded("pi_1", 100, OURS))])
    for _ in range(3):
        await apply_waiting(applier)
    (row,) = await rows(books)
    assert row.state == QUARANTINED
    assert "IntegrityError" in row.reason
    assert "donor@example.org" not in row.reason
