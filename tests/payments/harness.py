"""Harness: payments on real SQLite, bus and Stripe sandbox, with a fake of pledges' internal API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
from fastapi import FastAPI
from pydantic import SecretStr

from backbone import ids
from backbone.bus.sqlite import SqliteBus
from backbone.clock import Clock
from backbone.contracts import (
    DriveChanged,
    DriveState,
    Event,
    PaymentChanged,
    PledgeMade,
    PledgeStatus,
    decode,
)
from backbone.contracts.pledges import Source
from backbone.http.caller import InternalDep, Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.ids import CreatorId, DonorId, DriveId, PledgeId
from backbone.messaging.lossy import message_of
from backbone.money import Money
from backbone.service import Service, listen, new_app, run_workers, server
from sandbox.server import Options, Sandbox
from services.payments.app import compose
from services.payments.settings import PaymentsSettings
from tests.migrated import place
from tests.waiting import until

SECRET = "internal-secret"
STRIPE_KEY = "sk_test_stage"
STRIPE_SECRET = "whsec_stage"


def a_drive(currency: str = "USD", **other: Any) -> DriveChanged:
    """A live drive."""
    given: dict[str, Any] = {
        "drive_id": DriveId(ids.new("drv")),
        "version": 1,
        "state": DriveState.LIVE,
        "slug": "winter",
        "title": "Winter",
        "currency": currency,
        "goal": Money(1_000_000, currency),
        "milestones": [],
        "test": False,
        "changed_at": datetime.now(UTC),
    }
    return DriveChanged(**given | other)


def a_pledge(drive: DriveChanged, units: int = 2_500, **other: Any) -> PledgeMade:
    """An open pledge of `units` minor units for `drive`."""
    given: dict[str, Any] = {
        "pledge_id": PledgeId(ids.new("plg")),
        "drive_id": drive.drive_id,
        "version": 1,
        "status": PledgeStatus.OPEN,
        "amount": Money(units, drive.currency),
        "donor_id": DonorId(ids.new("dnr")),
        "creator_id": CreatorId(ids.new("crt")),
        "source": Source(platform="twitch"),
        "partner": "default",
        "checkout_mode": "hosted",
        "locale": None,
        "test": False,
        "made_at": datetime.now(UTC),
    }
    return PledgeMade(**given | other)


class Pledges:
    """The part of pledges' API that payments uses: `details` by pledge, `owners` and `drives` by drive.

    `creators` are ids by `<drive id>/<slug or id>`, or by slug for every drive.
    """

    def __init__(self) -> None:
        self.details: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, str] = {}
        self.drives: dict[str, dict[str, Any]] = {}
        self.creators: dict[str, str] = {}
        self.drives_asked = 0
        self.app: FastAPI = new_app("pledges", SECRET)

        @self.app.post("/internal/checkout-details")
        async def checkout_details(body: dict[str, list[str]], _: InternalDep) -> dict[str, Any]:
            plain = {
                "return_url": None, "name": None, "email": None, "locale": None, "title": "Winter",
                "slug": "winter", "drive_state": "live",
            }  # fmt: skip
            return {"data": {each: plain | self.details.get(each, {}) for each in body["ids"]}}

        @self.app.post("/internal/drives")
        async def drives(body: dict[str, list[str]], _: InternalDep) -> dict[str, Any]:
            self.drives_asked += 1
            plain = {"slug": "winter", "currency": "USD", "state": "live", "test": False}
            found = {
                each: plain | {"id": each, "partner": self.owners[each]}
                for each in body["refs"]
                if each in self.owners
            }
            return {"data": found | {each: self.drives[each] for each in body["refs"] if each in self.drives}}

        @self.app.post("/internal/creators")
        async def creators(body: dict[str, list[str]], _: InternalDep) -> dict[str, Any]:
            found = {}
            for each in body["refs"]:
                slug = each.partition("/")[2]
                if creator := self.creators.get(each) or self.creators.get(slug):
                    found[each] = {"id": creator, "slug": slug}
            return {"data": found}


@dataclass
class Harness:
    """A running payments service, its bus, fake pledges and sandbox."""

    service: Service
    bus: SqliteBus
    pledges: Pledges
    http: aiohttp.ClientSession
    url: str
    sandbox: str
    published: list[PaymentChanged] = field(default_factory=list)

    async def publish_events(self, *events: Event) -> None:
        """Publish events of pledges."""
        await self.bus.publish([message_of(event) for event in events])

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> ServiceResponse:
        """An internal request, or (with a partner's `Ataa-Caller`) one from the gateway."""
        known = sign_caller(SECRET, partner="ataa", scopes=("internal",))
        return await InProcessServiceClient(self.service.app).request(
            method,
            path,
            headers={"content-type": "application/json", **known, **headers},
            body=b"" if body is None else json.dumps(body).encode(),
        )

    async def get(self, path: str, query: str, caller: Mapping[str, str]) -> ServiceResponse:
        """Read as the gateway forwards it."""
        return await InProcessServiceClient(self.service.app).request(
            "GET", path, headers=caller, query=query
        )

    async def refund(
        self,
        pledge: str,
        key: str,
        body: Mapping[str, Any] | None = None,
        partner: str = "default",
        mode: Mode = "live",
        scopes: tuple[str, ...] = ("refunds",),
    ) -> ServiceResponse:
        """Request a refund as the gateway forwards it."""
        caller = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode)
        return await self.ask(
            "POST", f"/v1/pledges/{pledge}/refunds", dict(body or {}), **caller, **{"idempotency-key": key}
        )

    async def checkout(self, pledge: str) -> dict[str, Any]:
        """A pledge's checkout by `/internal/checkouts`; empty where payments does not know the pledge."""
        reply = await self.ask("POST", "/internal/checkouts", {"ids": [pledge]})
        found: dict[str, Any] = reply.json()["data"].get(pledge, {})
        return found

    async def opened(self, pledge: str) -> str:
        """The checkout's URL, once it is open."""

        async def there() -> str | None:
            checkout = (await self.checkout(pledge)).get("checkout")
            return checkout["url"] if checkout else None

        return await until(there)

    async def pay(self, url: str, card: str = "4242424242424242") -> dict[str, Any]:
        """Pay a checkout through the sandbox's API."""
        async with self.http.post(f"{url}/pay", json={"card": card}) as answer:
            found: dict[str, Any] = await answer.json()
        return found

    async def donate(
        self, drive: DriveChanged, units: int = 2_500, card: str = "4242424242424242", **other: Any
    ) -> str:
        """Pledge and pay; returns the pledge's id."""
        pledge = a_pledge(drive, units, **other)
        await self.publish_events(drive, pledge)
        await self.pay(await self.opened(pledge.pledge_id), card)
        return pledge.pledge_id

    async def status(self, pledge: str, wanted: str) -> dict[str, Any]:
        """A pledge by `/internal/checkouts`, once its status is `wanted`."""

        async def there() -> dict[str, Any] | None:
            found = await self.checkout(pledge)
            return found if found.get("status") == wanted else None

        return await until(there)

    async def books(self) -> dict[str, str]:
        return (await self.ask("GET", "/internal/books")).json()  # type: ignore[no-any-return]

    async def sandbox_books(self) -> dict[str, str]:
        """The sandbox's balances, without fees."""
        async with self.http.get(f"{self.sandbox}/_sandbox/books") as answer:
            books = await answer.json()
        return {currency: _net(each) for currency, each in books.items()}

    async def agreed_books(self) -> dict[str, str]:
        """The books, once they equal the sandbox's and payments is drained; fails if they never do."""

        async def agree() -> dict[str, str] | None:
            before = await self.sandbox_books()
            return before if await self._is_drained() and before == await self.books() else None

        try:
            found: dict[str, str] = await until(agree)
        except TimeoutError as error:
            raise AssertionError(f"{await self.books()} is not {await self.sandbox_books()}") from error
        return found

    async def faults(self, **faults: Any) -> None:
        async with self.http.post(f"{self.sandbox}/_sandbox/faults", json=faults) as answer:
            assert answer.status == 200, await answer.text()

    async def drained(self) -> None:
        """Wait until payments is drained."""

        await until(self._is_drained)

    async def _is_drained(self) -> bool:
        return not any((await self.ask("GET", "/internal/quiet")).json().values())


def _net(books: Mapping[str, str]) -> str:
    return str(Decimal(books["captured"]) - Decimal(books["refunded"]) - Decimal(books["disputed"]))


@asynccontextmanager
async def running(
    folder: Path, *, port: int = 0, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Harness]:
    """Payments with its workers, its API on a free port, and a sandbox that sends webhooks there."""
    http_socket = listen("127.0.0.1", port, "a test's port")
    url = f"http://127.0.0.1:{http_socket.getsockname()[1]}"
    options = Options(0, f"{url}/webhooks/stripe", STRIPE_SECRET, STRIPE_KEY, folder / "sandbox.db")
    async with Sandbox(options) as sandbox, aiohttp.ClientSession() as http:
        given = {
            "data_dir": folder,
            "database_synchronous": "OFF",
            "internal_secret": SecretStr(SECRET),
            "stripe_api_key": SecretStr(STRIPE_KEY),
            "stripe_webhook_secrets": [STRIPE_SECRET],
            "stripe_api_base": sandbox.base_url,
            "stripe_timeout_s": 1.0,
            "stripe_backfill_s": 0.3,
        }
        place("services.payments", folder, settings)
        bus = SqliteBus(folder / "bus.db", synchronous="OFF")
        pledges = Pledges()
        service = compose(
            PaymentsSettings(**given | settings), bus, InProcessServiceClient(pledges.app), clock=clock
        )
        harness = Harness(service, bus, pledges, http, url, sandbox.base_url)
        await service.start()
        stop = asyncio.Event()
        http_server = server(service.app)
        working = asyncio.create_task(run_workers([service], stop))
        serving = asyncio.create_task(http_server.serve(sockets=[http_socket]))
        listening = asyncio.create_task(_collect_published(harness, stop))
        try:
            yield harness
        finally:
            stop.set()
            await bus.publish_watermarks("pledges", datetime.now(UTC), [0])  # wakes a waiting fetch
            http_server.should_exit = True
            await asyncio.gather(working, serving, listening)
            await service.close()
            await bus.close()


async def _collect_published(harness: Harness, stop: asyncio.Event) -> None:
    subscription = await harness.bus.follow(["payments"], "beginning")
    while (
        records := await subscription.fetch(500, 0.1)
    ) or not stop.is_set():  # drains what was published last
        for record in records:
            event = decode(record.name, record.value) if record.name else None
            if isinstance(event, PaymentChanged):
                harness.published.append(event)
    await subscription.close()
