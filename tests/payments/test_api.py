"""The internal routes of payments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backbone.database.transaction import Result, SyncTransaction
from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient
from backbone.service import new_app
from services.payments.api import Dependencies, routes
from services.payments.queries import read_books
from tests.payments.books import Books
from tests.payments.harness import SECRET, a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata


class NotingDatabase:
    """A database that notes what reads whole tables."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.whole: list[object] = []

    async def read_whole(self, read: Callable[[SyncTransaction], Result]) -> Result:
        self.whole.append(read)
        return await self._books.database.read_whole(read)


async def test_books_are_summed_as_a_read_of_whole_tables(books: Books) -> None:
    """They sum the whole ledger, which takes longer than an ordinary query may."""
    drive = a_drive()
    pledge = a_pledge(drive)
    await books.consume(drive, pledge)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    database, unused = NotingDatabase(books), None
    given: dict[str, Any] = dict.fromkeys(("store", "refunds", "backfill", "outbox_empty", "behind"), unused)
    app = new_app("payments", SECRET)
    dependencies = Dependencies(database=database, publishable_key="", clock=books.clock, **given)  # type: ignore[arg-type]
    app.include_router(routes(dependencies))
    headers = sign_caller(SECRET, partner="ataa", scopes=("internal",))
    reply = await InProcessServiceClient(app).request("GET", "/internal/books", headers=headers)
    assert (reply.status, reply.json()) == (200, {"USD": "25.00"})
    assert database.whole == [read_books]
