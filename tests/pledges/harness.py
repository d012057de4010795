"""A harness that runs pledges on a real database and bus, and calls it as the gateway does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import func, select

from backbone import ids
from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus
from backbone.clock import FrozenClock
from backbone.contracts.event import Event, decode
from backbone.database.database import Database
from backbone.http.caller import Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse, post_internal
from backbone.service import Service, run_workers
from services.pledges.app import compose
from services.pledges.settings import PledgesSettings
from services.pledges.tables import MESSAGING_TABLES, Table
from tests.migrated import place

SECRET = "s" * 20


def usd(value: str) -> dict[str, str]:
    """An amount in US dollars, in the format of the API."""
    return {"currency": "USD", "value": value}


def a_drive(slug: str = "winter", **fields: Any) -> dict[str, Any]:
    """A request body for a drive."""
    return {"slug": slug, "title": {"en": "Winter"}, "currency": "USD", "goal": usd("1000.00")} | fields


def a_pledge(value: str = "25.00", **fields: Any) -> dict[str, Any]:
    """A request body for a pledge."""
    return {"amount": usd(value)} | fields


class Harness:
    """A pledges service, with the requests of its callers."""

    def __init__(self, folder: Path, bus: SqliteBus, service: Service) -> None:
        self.folder = folder
        self.bus = bus
        self.service = service
        self._client = InProcessServiceClient(service.app)

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        scopes: tuple[str, ...] = ("admin",),
        partner: str = "default",
        mode: Mode = "live",
        publishable: bool = False,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> ServiceResponse:
        """POST a body (bytes unchanged, anything else as JSON) as a caller with these scopes."""
        caller = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode, publishable=publishable)
        sent = {"content-type": "application/json", **caller, **(headers or {})}
        if key is not None:
            sent["idempotency-key"] = key
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await self._client.request("POST", path, headers=sent, body=raw, query=query)

    async def patch(
        self,
        path: str,
        body: Any,
        *,
        scopes: tuple[str, ...] = ("admin",),
        partner: str = "default",
        mode: Mode = "live",
    ) -> ServiceResponse:
        """PATCH as a partner with these scopes."""
        caller = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode)
        headers = {"content-type": "application/json", **caller}
        return await self._client.request("PATCH", path, headers=headers, body=json.dumps(body).encode())

    async def read(
        self,
        path: str,
        query: str = "",
        *,
        scopes: tuple[str, ...] = ("admin",),
        partner: str = "default",
        mode: Mode = "live",
    ) -> ServiceResponse:
        """GET as a partner with these scopes."""
        caller = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode)
        return await self._client.request("GET", path, headers=caller, query=query)

    async def get(self, path: str, query: str = "") -> ServiceResponse:
        """GET as an internal caller."""
        caller = sign_caller(SECRET, partner="ataa", scopes=("internal",))
        return await self._client.request("GET", path, headers=caller, query=query)

    async def post_internal(self, path: str, **body: Any) -> Any:
        """Call an internal endpoint; return its `data`."""
        return (await post_internal(self._client, SECRET, path, body))["data"]

    async def drive(self, slug: str = "winter", *, state: str = "live", **fields: Any) -> str:
        """Create a drive in `state`; return its id."""
        made = await self.post("/v1/drives", a_drive(slug, **fields))
        assert made.status == 201, made.body
        moves: dict[str, list[str]] = {
            "draft": [],
            "live": ["open"],
            "paused": ["open", "pause"],
            "closed": ["open", "close"],
        }
        for move in moves[state]:
            assert (await self.post(f"/v1/drives/{slug}/{move}")).status == 200
        return str(made.json()["id"])

    async def pledge(
        self, body: Any = None, *, key: str | None = None, drive: str = "winter", **who: Any
    ) -> ServiceResponse:
        """POST a pledge, with a new idempotency key unless one is given."""
        sent = a_pledge() if body is None else body
        return await self.post(f"/v1/drives/{drive}/pledges", sent, key=key or ids.new("evt"), **who)

    async def rows(self) -> dict[str, int]:
        """The number of rows of each table."""
        database = Database(f"sqlite:///{self.folder / 'pledges.db'}", MESSAGING_TABLES)
        try:
            async with database.reading() as session:
                return {
                    name: int((await session.execute(select(func.count()).select_from(table))).scalar_one())
                    for name, table in Table.metadata.tables.items()
                }
        finally:
            await database.close()

    async def announced(self) -> list[Event]:
        """Every event announced and not yet published, in order."""
        database = Database(f"sqlite:///{self.folder / 'pledges.db'}", MESSAGING_TABLES)
        try:
            async with database.reading() as session:
                rows = await session.execute(
                    select(MESSAGING_TABLES.outbox).order_by(MESSAGING_TABLES.outbox.c.number)
                )
                return [event for row in rows if (event := decode(row.name, row.value)) is not None]
        finally:
            await database.close()

    async def publish(self, *events: Event) -> None:
        """Publish events of another service on the bus."""
        await self.bus.publish(
            [Message(one.topic, one.key, ids.new("evt"), one.wire_name, one.to_bytes()) for one in events]
        )

    @asynccontextmanager
    async def running_workers(self, *only: str) -> AsyncIterator[None]:
        """Run the service's workers, or `only` those."""
        self.service.workers = [one for one in self.service.workers if not only or one.name in only]
        stop = asyncio.Event()
        work = asyncio.create_task(run_workers([self.service], stop))
        try:
            yield
        finally:
            stop.set()
            await self.bus.publish_watermarks("payments", datetime.now(UTC), [0])  # wakes a waiting fetch
            await work


@asynccontextmanager
async def pledges_harness(
    folder: Path, clock: FrozenClock | None = None, **given: Any
) -> AsyncIterator[Harness]:
    """Pledges, started on the data in `folder`, without its workers."""
    place("services.pledges", folder, given)
    bus = SqliteBus(folder / "bus.db", synchronous="OFF")
    settings = PledgesSettings(
        data_dir=folder,
        database_synchronous="OFF",
        internal_secret=SecretStr(SECRET),
        token_secret=SecretStr("t" * 20),
        **given,
    )
    service = compose(settings, bus, **({"clock": clock} if clock else {}))
    await service.start()
    try:
        yield Harness(folder, bus, service)
    finally:
        await service.close()
        await bus.close()
