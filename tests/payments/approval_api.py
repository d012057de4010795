"""Payments' routes of everything that two keys decide, on a database without workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from backbone import ids
from backbone.contracts import DriveChanged, PaymentChanged, decode
from backbone.http.caller import Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.creator_lookup import CreatorLookup
from services.payments.disbursements import api as disbursement_api
from services.payments.disbursements.commands import Disbursements
from services.payments.drive_lookup import DriveLookup
from services.payments.offline import api as offline_api
from services.payments.offline import contribution_api
from services.payments.offline.contributions import Contributions
from services.payments.offline.gifts import OfflineGifts
from services.payments.tables import MESSAGING_TABLES, POSTINGS
from tests.engines import fresh_postgres
from tests.payments.books import Books, open_books
from tests.payments.harness import SECRET, Pledges, a_drive

ALL_SCOPES = ("offline", "ledger")
STAR = "crt_01frtz5n00000000000000000b"


@dataclass
class ApprovalApi:
    """The routes, a live drive `winter` of the partner `charity`, and a creator `star`."""

    books: Books
    drive: DriveChanged
    client: InProcessServiceClient
    pledges: Pledges = field(default_factory=Pledges)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "key_a",
        partner: str = "charity",
        scopes: tuple[str, ...] = ALL_SCOPES,
        mode: Mode = "live",
        once: str | None = None,
        query: str = "",
    ) -> ServiceResponse:
        """A request as the gateway forwards it; `once` is its idempotency key."""
        headers = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode, key_id=key)
        headers |= {"content-type": "application/json", "idempotency-key": once or ids.new("evt")}
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.request(method, path, headers=headers, body=raw, query=query)

    async def balances(self) -> dict[str, int]:
        """The ledger by account: debits less credits."""
        found: dict[str, int] = {}
        async with self.books.database.reading() as session:
            for row in await session.execute(select(POSTINGS)):
                found[row.debit] = found.get(row.debit, 0) + row.units
                found[row.credit] = found.get(row.credit, 0) - row.units
        return {account: units for account, units in found.items() if units}

    async def announced(self) -> list[PaymentChanged]:
        """Every state of a payment in the outbox, in order."""
        outbox = MESSAGING_TABLES.outbox
        async with self.books.database.reading() as session:
            rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
        events = [decode(row.name, row.value) for row in rows]
        return [each for each in events if isinstance(each, PaymentChanged)]


@asynccontextmanager
async def open_api(store: str, folder: Path, **drive: Any) -> AsyncIterator[ApprovalApi]:
    """The routes on an empty database of this store, with its drive known to payments."""
    if store == "postgresql":
        async with fresh_postgres("services.payments") as url, open_books(folder, url) as books:
            yield await _composed(books, drive)
    else:
        async with open_books(folder) as books:
            yield await _composed(books, drive)


async def _composed(books: Books, drive: Mapping[str, Any]) -> ApprovalApi:
    known = a_drive(**{"partner": "charity", **drive})
    await books.consume(known)
    pledges = Pledges()
    pledges.creators["star"] = STAR
    asked = InProcessServiceClient(pledges.app)
    drives, creators = DriveLookup(books.database, asked, SECRET), CreatorLookup(asked, SECRET)
    app = new_app("payments", SECRET)
    app.include_router(offline_api.routes(OfflineGifts(books.database, drives, creators, books.clock)))
    contributions = Contributions(books.database, drives, creators, books.clock)
    app.include_router(contribution_api.routes(contributions))
    app.include_router(disbursement_api.routes(Disbursements(books.database, drives, books.clock)))
    return ApprovalApi(books, known, InProcessServiceClient(app), pledges)
