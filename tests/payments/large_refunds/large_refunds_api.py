"""Payments' routes of refunds on a database without workers, with a processor that refunds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbone import ids
from backbone.contracts import DriveChanged
from backbone.http.caller import Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.money import Money
from backbone.service import new_app
from services.payments.creator_lookup import CreatorLookup
from services.payments.domain import FactKind, Observation, RefundRank
from services.payments.drive_lookup import DriveLookup
from services.payments.holding import api as holding
from services.payments.holding.release import Releases
from services.payments.large_refunds import api as large_refunds_api
from services.payments.large_refunds.commands import LargeRefunds
from services.payments.large_refunds.threshold import Threshold
from services.payments.processor import Refused, Unknown
from services.payments.refunds import RefundService
from services.payments.treasury import api as treasury
from tests.engines import fresh_postgres
from tests.payments.books import Books, open_books
from tests.payments.fake_processor import FakeProcessor
from tests.payments.harness import SECRET, Pledges, a_drive, a_pledge
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund

OWNER, MAKER = "charity", "shop"
ABOVE = 100
"""The threshold of these tests, in whole units."""


@dataclass
class Sent:
    """A refund that reached Stripe: its idempotency key and its amount."""

    key: str
    intent: str
    units: int
    ours: str


class Stripe(FakeProcessor):
    """Refunds what is left of a payment, once for each key; `down`: it is not reached."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self.books = books
        self.captured: dict[str, int] = {}
        self.elsewhere: dict[str, int] = {}
        """What was refunded in Stripe's dashboard."""
        self.sent: dict[str, Sent] = {}
        self.calls: list[str] = []
        self.down = False

    def given_back(self, intent: str) -> int:
        own = sum(each.units for each in self.sent.values() if each.intent == intent)
        return own + self.elsewhere.get(intent, 0)

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        return {"intent": intent, "units": amount.minor_units, "currency": amount.currency, "ours": refund_id}

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        self.calls.append(key)
        if self.down:
            raise Unknown("no connection")
        intent, units = parameters["intent"], parameters["units"]
        if key not in self.sent:
            if units > self.captured[intent] - self.given_back(intent):
                raise Refused("charge already refunded")
            self.sent[key] = Sent(key, intent, units, parameters["ours"])
        return Observation(
            f"re_{key}", FactKind.REFUND, intent, units, parameters["currency"], RefundRank.SUCCEEDED,
            self.books.clock.now(), refund_id=parameters["ours"],
        )  # fmt: skip


@dataclass
class RefundApi:
    """The routes, by default asked with the key `key_a` of the drive's owner."""

    books: Books
    stripe: Stripe
    refunds: RefundService
    client: InProcessServiceClient
    drive: DriveChanged = field(default_factory=lambda: a_drive(partner=OWNER))

    async def paid(
        self, units: int = 50_000, intent: str = "pi_1", drive: DriveChanged | None = None, **other: Any
    ) -> str:
        """A payment of `units`; its id."""
        drive = drive or self.drive
        pledge = a_pledge(drive, units, **{"partner": MAKER} | other)
        await self.books.consume(drive, pledge)
        ours = metadata(None, pledge.pledge_id, drive.drive_id)
        currency = pledge.amount.currency.lower()
        await self.books.apply([intent_succeeded(intent, units, ours, currency)])
        self.stripe.captured[intent] = units
        return str((await self.books.payments(pledge.pledge_id))[-1].id)

    async def refund_elsewhere(self, intent: str, units: int) -> None:
        """Refund in Stripe's dashboard, and receive the webhook."""
        number = len(self.stripe.elsewhere)
        self.stripe.elsewhere[intent] = self.stripe.elsewhere.get(intent, 0) + units
        name = f"re_elsewhere_{number}_{self.stripe.elsewhere[intent]}"
        await self.books.apply([refund("created", name, intent, units, "succeeded")])

    async def disputed(self, intent: str, units: int, status: str = "needs_response") -> None:
        """The webhook of a dispute whose money is withdrawn."""
        kind = "created" if status == "needs_response" else "closed"
        moves = [-units] if status != "won" else [-units, units]
        await self.books.apply([dispute(kind, "dp_1", intent, units, status, moves=moves)])

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "key_a",
        partner: str = OWNER,
        scopes: tuple[str, ...] = ("refunds", "ledger"),
        mode: Mode = "live",
        once: str | None = None,
        query: str = "",
    ) -> ServiceResponse:
        """A request as the gateway forwards it; `once` is its idempotency key."""
        headers = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode, key_id=key)
        headers |= {"content-type": "application/json", "idempotency-key": once or ids.new("evt")}
        raw = b"" if body is None else json.dumps(body).encode()
        return await self.client.request(method, path, headers=headers, body=raw, query=query)

    async def ask_refund(
        self, payment: str, value: str | None = None, currency: str = "USD", **caller: Any
    ) -> ServiceResponse:
        body = {} if value is None else {"amount": {"currency": currency, "value": value}}
        return await self.ask("POST", f"/v1/payments/{payment}/refunds", body, **caller)

    async def waiting(self, payment: str, value: str | None = None, **caller: Any) -> str:
        """Ask for a refund that needs a second key; its id."""
        reply = await self.ask_refund(payment, value, **caller)
        assert (reply.status, reply.json()["approval"]["state"]) == (201, "needed"), reply.body
        return str(reply.json()["id"])

    async def decided(
        self, refund_id: str, action: str, key: str = "key_b", **caller: Any
    ) -> tuple[int, str, str]:
        """The reply's status, and the refund's status and approval, or the problem's type."""
        body = {"reason": "checked"}
        reply = await self.ask("POST", f"/v1/refunds/{refund_id}/{action}", body, key=key, **caller)
        found = reply.json()
        if reply.status != 200:
            return reply.status, found["type"], ""
        return reply.status, found["status"], found["approval"]["state"]

    async def listed(self, query: str = "", **caller: Any) -> list[dict[str, Any]]:
        reply = await self.ask("GET", "/v1/refunds", query=query, **caller)
        assert reply.status == 200, reply.body
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    async def payment(self, payment: str) -> dict[str, Any]:
        reply = await self.ask("GET", f"/v1/payments/{payment}")
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found


@asynccontextmanager
async def open_refunds(store: str, folder: Path, above: int | None = ABOVE) -> AsyncIterator[RefundApi]:
    """The routes on an empty database of this store."""
    if store == "postgresql":
        async with fresh_postgres() as url, open_books(folder, url) as books:
            yield compose(books, above)
    else:
        async with open_books(folder) as books:
            yield compose(books, above)


def compose(books: Books, above: int | None) -> RefundApi:
    """The routes on the database of `books`, as after a start of the process."""
    pledges = InProcessServiceClient(Pledges().app)
    drives = DriveLookup(books.database, pledges, SECRET)
    stripe = Stripe(books)
    refunds = RefundService(books.database, stripe, books.clock, 1.0, drives.owner_of, Threshold(above))
    app = new_app("payments", SECRET)
    releases = Releases(books.database, drives, CreatorLookup(pledges, SECRET), books.clock)
    app.include_router(holding.routes(releases, refunds))
    app.include_router(treasury.routes(books.database, drives))
    app.include_router(large_refunds_api.routes(LargeRefunds(books.database, drives, refunds, books.clock)))
    return RefundApi(books, stripe, refunds, InProcessServiceClient(app))
