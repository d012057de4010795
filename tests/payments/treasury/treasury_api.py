"""The routes about payments and ledgers on the database of `Books`, without workers and processor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from backbone.contracts import DriveChanged
from backbone.http.caller import Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup
from services.payments.holding import api as holding
from services.payments.holding.release import Releases
from services.payments.refunds import RefundService
from services.payments.treasury import api as treasury
from services.payments.treasury import ledger_api
from services.payments.treasury.ledger_api import LedgerReads
from tests.payments.books import Books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import SECRET, Pledges, a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata

OWNER = "charity"


def owned_drive(currency: str = "USD", **other: Any) -> DriveChanged:
    """A live drive of `OWNER`."""
    return a_drive(currency, **{"partner": OWNER} | other)


@dataclass
class TreasuryApi:
    """Requests as the gateway forwards them, by default with a key of `OWNER`."""

    books: Books
    pledges: Pledges = field(default_factory=Pledges)

    def __post_init__(self) -> None:
        database, clock = self.books.database, self.books.clock
        pledges = InProcessServiceClient(self.pledges.app)
        drives = DriveLookup(database, pledges, SECRET)
        self.refunds = refunds = RefundService(database, FakeProcessor(), clock, 1.0, drives.owner_of)
        app = new_app("payments", SECRET)
        app.include_router(treasury.routes(database, drives))
        app.include_router(
            holding.routes(Releases(database, drives, CreatorLookup(pledges, SECRET), clock), refunds)
        )
        app.include_router(ledger_api.routes(LedgerReads(database, drives, clock)))
        self._client = InProcessServiceClient(app)

    async def get(self, path: str, query: str = "", **caller: Any) -> ServiceResponse:
        return await self._client.request("GET", path, headers=_headers(**caller), query=query)

    async def accept_csv(self, path: str, query: str = "") -> ServiceResponse:
        headers = _headers() | {"accept": "text/csv"}
        return await self._client.request("GET", path, headers=headers, query=query)

    async def post(self, path: str, body: Any, key: str | None = None, **caller: Any) -> ServiceResponse:
        headers = _headers(**caller) | {"content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        return await self._client.request("POST", path, headers=headers, body=json.dumps(body).encode())

    async def release(
        self, payment: str, key: str | None = None, caller: dict[str, Any] | None = None, **body: Any
    ) -> ServiceResponse:
        body = {"note": "checked with the donor"} | body
        return await self.post(f"/v1/payments/{payment}/release", body, key, **caller or {})

    async def payment(self, payment: str) -> dict[str, Any]:
        """A payment as an admin reads it."""
        reply = await self.get(f"/v1/payments/{payment}", **ADMIN)
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found

    async def paid(
        self,
        drive: DriveChanged,
        units: int = 2_500,
        pledged: int = 2_500,
        intent: str = "pi_1",
        **other: Any,
    ) -> tuple[str, str]:
        """Pledge to a drive and pay `units`; the ids of payment and pledge."""
        pledge = a_pledge(drive, pledged, **other)
        await self.books.consume(drive, pledge)
        ours = metadata(None, pledge.pledge_id, drive.drive_id)
        await self.books.apply([intent_succeeded(intent, units, ours)])
        return (await self.books.payments(pledge.pledge_id))[-1].id, pledge.pledge_id


ADMIN: dict[str, Any] = {"partner": "default", "scopes": ("admin",)}


def _headers(
    partner: str = OWNER, scopes: tuple[str, ...] = ("ledger", "refunds"), mode: Mode = "live"
) -> dict[str, str]:
    return sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode, key_id="key_of_a_person")
