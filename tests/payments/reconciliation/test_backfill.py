"""The backfill finds every lost event, and counts only complete listings as runs without news."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from services.payments.processor import ProcessorError, ProcessorEvent, Refused, Unknown
from services.payments.reconciliation.backfill import Backfill
from services.payments.tables import WEBHOOKS
from tests.payments.books import Books, open_books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.stripe_events import an_event

PAGE = 100


class Lost(FakeProcessor):
    """A processor with lost events, listed as Stripe does: newest first, `starting_after` an id."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        self.events: list[ProcessorEvent] = []  # newest last
        self.places: dict[str, int] = {}
        self.pages_until_failure: int | None = None
        self.forgotten: set[str] = set()
        self.pages = 0

    def lose(self, many: int) -> None:
        created_at = self.books.clock.now()
        body = json.dumps(an_event("customer.created", {"id": "cus_1"})).encode()
        have = len(self.events)
        for place in range(have, have + many):
            self.events.append(ProcessorEvent(f"evt_lost_{place}", "customer.created", created_at, body))
            self.places[self.events[-1].id] = place

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        self.pages += 1
        if self.pages_until_failure is not None:
            self.pages_until_failure -= 1
            if self.pages_until_failure < 0:
                raise Unknown("no answer")
        if after in self.forgotten:
            raise Refused("No such event", "starting_after")
        end = len(self.events) if after is None else self.places[after]
        page = [each for each in self.events[max(0, end - PAGE) : end][::-1] if each.created_at >= since]
        more = len(page) == PAGE and end > PAGE and self.events[end - PAGE - 1].created_at >= since
        return page, page[-1].id if more else None


def a_backfill(books: Books, processor: Any, max_pages: int = 20) -> Backfill:
    """A backfill whose runs end after 2,000 events, a tenth of the real bound."""
    return Backfill(books.database, processor, books.store, books.clock, 60.0, max_pages)


async def stored(books: Books) -> int:
    async with books.database.reading() as session:
        return (await session.execute(select(func.count()).select_from(WEBHOOKS))).scalar_one()


async def test_more_lost_events_than_one_run_reads_are_all_found_before_a_run_is_without_news(
    books: Books,
) -> None:
    lost = Lost(books)
    lost.lose(3_000)
    backfill = a_backfill(books, lost)
    assert await backfill.run_once() == 2_000
    assert await backfill.runs_without_news() == 0
    assert await backfill.run_once() == 1_000
    assert await backfill.runs_without_news() == 0
    assert await stored(books) == 3_000
    books.clock.move(120)  # the next listing begins a minute before the last and is truncated again
    assert [await backfill.run_once() for _ in range(4)] == [0, 0, 0, 0]
    assert await backfill.runs_without_news() == 2


async def test_a_truncated_listing_resumes_in_another_process(books: Books) -> None:
    lost = Lost(books)
    lost.lose(4_500)
    found = [await a_backfill(books, lost).run_once() for _ in range(3)]
    assert found == [2_000, 2_000, 500]


async def test_events_lost_during_a_long_listing_are_found_by_the_next(books: Books) -> None:
    lost = Lost(books)
    lost.lose(2_500)
    backfill = a_backfill(books, lost)
    assert await backfill.run_once() == 2_000
    books.clock.move(30)
    lost.lose(50)
    assert await backfill.run_once() == 500
    books.clock.move(3_600)
    assert await backfill.run_once() == 50


async def test_pages_read_before_a_failure_are_not_read_again(books: Books) -> None:
    lost = Lost(books)
    lost.lose(1_500)
    backfill = a_backfill(books, lost)
    lost.pages_until_failure = 5
    with pytest.raises(ProcessorError):
        await backfill.run_once()
    lost.pages_until_failure = None
    lost.pages = 0
    assert await backfill.run_once() == 1_000
    assert lost.pages == 10
    assert await backfill.runs_without_news() == 0


async def test_a_listing_whose_position_stripe_no_longer_knows_restarts(books: Books) -> None:
    lost = Lost(books)
    lost.lose(2_500)
    backfill = a_backfill(books, lost)
    await backfill.run_once()
    lost.forgotten = {event.id for event in lost.events}
    with pytest.raises(Refused):
        await backfill.run_once()
    lost.forgotten = set()
    while await stored(books) < 2_500:
        await backfill.run_once()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.one_of(st.none(), st.integers(0, 6))), max_size=6))
async def test_nothing_is_missing_after_two_runs_without_news(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int | None]]
) -> None:
    """Losses and failures at any time; `/internal/quiet` relies on `runs_without_news() >= 2`."""
    async with open_books(tmp_path_factory.mktemp("books")) as books:
        lost = Lost(books)
        backfill = a_backfill(books, lost, max_pages=3)
        for many, failing in [*steps, *[(0, None)] * 30]:
            lost.lose(many)
            lost.pages_until_failure = failing
            with suppress(ProcessorError):
                await backfill.run_once()
            if await backfill.runs_without_news() >= 2 and not many:
                assert await stored(books) == len(lost.events)
            books.clock.move(60)
        assert await backfill.runs_without_news() >= 2
        assert await stored(books) == len(lost.events)
