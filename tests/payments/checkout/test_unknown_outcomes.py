"""An attempt whose key replays a stored error: a listing decides, and only then a new attempt is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from services.payments.processor import CheckoutRequest, ListedCheckout, OpenedCheckout, Unknown
from services.payments.tables import ATTEMPTS
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import a_drive, a_pledge
from tests.waiting import until


class StoredError(FakeProcessor):
    """A processor whose first key replays a stored 500; `made` says whether the session was created."""

    def __init__(self, made: bool, clock: Any) -> None:
        super().__init__()
        self.made = made
        self.clock = clock
        self.keys: list[str] = []
        self.listings = 0

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        return {"payment": request.payment_id}

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        self.keys.append(key)
        if key.endswith(".1"):
            raise Unknown("a stored 500", replayed=len(self.keys) > 1)
        return self._session("cs_second")

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        self.listings += 1
        payment = self.keys[0].removesuffix(".1")
        made = [ListedCheckout(payment, self._session("cs_first"), self.clock.now())] if self.made else []
        return made, None

    def _session(self, session_id: str) -> OpenedCheckout:
        return OpenedCheckout(session_id, "https://stripe/", None, self.clock.now() + timedelta(days=1))


async def opened_by(books: Books, processor: StoredError) -> tuple[list[str], str]:
    """The states of a pledge's attempts and its final session."""
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)

    async def session() -> str | None:
        if processor.listings:
            books.clock.move(11)  # a session not listed by now was never created
        found: str | None = (await books.payments(pledge.pledge_id))[0].session_id
        return found

    async with books.opening_checkouts(processor):
        session_id = await until(session)
    async with books.database.reading() as reading:
        rows = await reading.execute(select(ATTEMPTS.c.state).order_by(ATTEMPTS.c.n))
        return [row.state for row in rows], session_id


async def test_a_session_created_behind_a_stored_error_is_adopted(books: Books) -> None:
    processor = StoredError(made=True, clock=books.clock)
    assert await opened_by(books, processor) == (["opened"], "cs_first")
    assert {key.rsplit(".")[-1] for key in processor.keys} == {"1"}


async def test_only_an_unlisted_session_is_attempted_again_under_a_new_key(books: Books) -> None:
    processor = StoredError(made=False, clock=books.clock)
    assert await opened_by(books, processor) == (["failed", "opened"], "cs_second")
    assert processor.keys[-1].endswith(".2")
    assert processor.listings >= 1


class LongListing(StoredError):
    """The session was created and is on the last of many pages."""

    PAGES = 25

    def __init__(self, clock: Any) -> None:
        super().__init__(made=True, clock=clock)
        self.pages: list[str | None] = []

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        self.pages.append(after)
        here = int(after or 0) + 1
        if here < self.PAGES:
            other = ListedCheckout(f"pay_{here}", self._session(f"cs_{here}"), self.clock.now())
            return [other], str(here)
        return await super().list_checkouts(since, after)


async def test_a_listing_of_many_pages_resumes(books: Books) -> None:
    processor = LongListing(books.clock)
    assert await opened_by(books, processor) == (["opened"], "cs_first")
    assert processor.pages == [None, *(str(page) for page in range(1, LongListing.PAGES))]


class Surprising(StoredError):
    """Its first call raises an unexpected error."""

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        self.keys.append(key)
        if len(self.keys) == 1:
            raise ZeroDivisionError
        return self._session("cs_first")


async def test_an_unexpected_error_is_retried_under_the_same_key(books: Books) -> None:
    processor = Surprising(made=True, clock=books.clock)
    assert await opened_by(books, processor) == (["opened"], "cs_first")
    assert len(processor.keys) == 2
    assert len(set(processor.keys)) == 1
