"""An outcome that cannot be stored is quarantined after a few tries; the others are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from backbone.contracts import PledgeMade
from services.payments.checkout import outcomes
from services.payments.processor import CheckoutRequest, OpenedCheckout
from services.payments.tables import ATTEMPTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata
from tests.waiting import until

UNSTORABLE = "https://stripe/\ud800"
"""A lone surrogate: JSON can carry it, no store accepts it."""


class Poisoned(FakeProcessor):
    """A processor whose checkouts for `poison` have a URL that no store accepts."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        self.poison: set[str] = set()
        self.malformed: set[str] = set()

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        if request.pledge_id in self.malformed:
            raise KeyError("a field nobody thought of")
        return {"pledge": request.pledge_id}

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        pledge = parameters["pledge"]
        url = UNSTORABLE if pledge in self.poison else "https://stripe/"
        return OpenedCheckout(f"cs_{pledge}", url, None, self.books.clock.now() + timedelta(days=1))


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def attempts(books: Books) -> dict[str, Any]:
    """All attempts, by payment."""
    async with books.database.reading() as session:
        return {row.payment_id: row for row in await session.execute(select(ATTEMPTS))}


def several_pledges(count: int) -> tuple[Any, list[PledgeMade]]:
    drive = a_drive()
    return drive, [a_pledge(drive) for _ in range(count)]


async def checkout_of(books: Books, pledge: str) -> str:
    return str((await books.payments(pledge))[0].checkout)


def all_open(books: Books, pledges: Sequence[PledgeMade]) -> Callable[[], Any]:
    async def opened() -> bool:
        return all([await checkout_of(books, each.pledge_id) == "open" for each in pledges])

    return opened


def quarantined() -> float:
    return REGISTRY.get_sample_value("ataa_checkouts_total", {"outcome": "quarantined"}) or 0.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "RETRY_S", 0.01)


async def test_outcomes_in_the_batch_of_an_unstorable_one_are_recorded(books: Books) -> None:
    drive, pledges = several_pledges(7)
    processor = Poisoned(books)
    processor.poison = {pledges[3].pledge_id}
    await books.consume(drive, *pledges)
    before = quarantined()
    async with books.opening_checkouts(processor):
        await until(all_open(books, pledges[:3] + pledges[4:]))
        await until(lambda: quarantined() == before + 1)
        await until(lambda: checkout_fails(books, pledges[3].pledge_id))
    poisoned = (await attempts(books))[(await books.payments(pledges[3].pledge_id))[0].id]
    assert poisoned.state == "quarantined"
    assert "surrogates" in poisoned.reason
    assert poisoned.done_at is not None


async def checkout_fails(books: Books, pledge: str) -> bool:
    return await checkout_of(books, pledge) == "failed"


async def test_the_pledge_of_an_unstorable_outcome_lapses_and_its_money_still_counts(books: Books) -> None:
    drive, (pledge,) = several_pledges(1)
    processor = Poisoned(books)
    processor.poison = {pledge.pledge_id}
    await books.consume(drive, pledge)
    async with books.opening_checkouts(processor):
        await until(lambda: checkout_fails(books, pledge.pledge_id))
    (row,) = await books.payments(pledge.pledge_id)
    assert row.status == "lapsed"
    ours = metadata(row.id, pledge.pledge_id, drive.drive_id)
    await books.apply([intent_succeeded("pi_1", 2_500, ours)])
    (row,) = await books.payments(pledge.pledge_id)
    assert (row.status, row.captured) == ("captured", 2_500)
    assert set((await books.drift()).values()) <= {0}


async def test_a_ticket_without_valid_parameters_does_not_block_the_queue(books: Books) -> None:
    drive, pledges = several_pledges(4)
    processor = Poisoned(books)
    processor.malformed = {pledges[0].pledge_id}
    await books.consume(drive, *pledges)
    async with books.opening_checkouts(processor):
        await until(all_open(books, pledges[1:]))
    assert await checkout_of(books, pledges[0].pledge_id) == "failed"


async def test_a_restarted_worker_does_not_retry_quarantined_attempts(books: Books) -> None:
    drive, pledges = several_pledges(2)
    processor = Poisoned(books)
    processor.poison = {pledges[0].pledge_id}
    await books.consume(drive, *pledges)
    async with books.opening_checkouts(processor):
        await until(lambda: checkout_fails(books, pledges[0].pledge_id))
    before = quarantined()
    async with books.opening_checkouts(processor):
        await until(all_open(books, pledges[1:]))
    assert quarantined() == before
