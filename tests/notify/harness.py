"""Notify on a real bus and database, with a pledges that knows whom to thank."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from backbone import ids
from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus
from backbone.clock import FrozenClock
from backbone.contracts.leaderboard import DriveLogged, LogType
from backbone.database.database import Database
from backbone.http.service_client import ServiceResponse, ServiceUnavailable
from backbone.ids import DriveId, PaymentId, PledgeId
from backbone.money import Money
from backbone.service import Service, run_workers
from services.notify.app import compose
from services.notify.receipts import ReceiptSender
from services.notify.settings import NotifySettings
from services.notify.tables import MESSAGING_TABLES, RECEIPTS
from services.notify.transport import FolderTransport, SmtpTransport, parse_sender
from tests.migrated import place
from tests.waiting import until

DRIVE = DriveId(ids.new("drv"))
AT = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)


@dataclass
class FakePledges:
    """A pledges that answers `/internal/receipts`, and notes how often it was asked."""

    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: bool = False
    calls: int = 0

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        assert (method, path) == ("POST", "/internal/receipts")
        self.calls += 1
        if self.unavailable:
            raise ServiceUnavailable("away")
        wanted = json.loads(body)["ids"]
        found = {one: self.people[one] for one in wanted if one in self.people}
        return ServiceResponse(200, {}, json.dumps({"data": found}).encode())


def counted(
    payment: str, *, pledge: str | None, amount: Money | None = None, kind: LogType = "donation.counted"
) -> DriveLogged:
    """A row of the drive's log."""
    return DriveLogged(
        drive_id=DRIVE,
        epoch=1,
        sequence=1,
        type=kind,
        at=AT,
        payment_id=PaymentId(payment),
        pledge_id=None if pledge is None else PledgeId(pledge),
        creator_id=None,
        amount=amount or Money(2500, "USD"),
        raised_after=Money(2500, "USD"),
        hash="0" * 64,
    )


class Harness:
    """Notify in `folder`; `settings` are its own (`smtp_url` decides where letters go)."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.pledges = FakePledges()
        self.clock = FrozenClock(AT)
        self._settings = settings
        self.bus: SqliteBus
        self.service: Service

    @asynccontextmanager
    async def running(self, *, without: tuple[str, ...] = ()) -> AsyncIterator[Harness]:
        """Notify up and working, on the data of `folder`."""
        settings = NotifySettings(
            data_dir=self.folder,
            database_synchronous="OFF",
            internal_secret=SecretStr("s" * 20),
            receipt_from="Winter <receipts@winter.example>",
            **{"receipts_per_s": 100.0, **self._settings},
        )
        place("services.notify", self.folder, self._settings)
        self.bus = SqliteBus(self.folder / "bus.db", synchronous="OFF")
        self.service = compose(settings, self.bus, self.pledges, clock=self.clock)
        self.service.workers = [worker for worker in self.service.workers if worker.name not in without]
        await self.service.start()
        stop = asyncio.Event()
        working = asyncio.create_task(run_workers([self.service], stop))
        try:
            yield self
        finally:
            stop.set()
            await self.bus.publish_watermarks("drive-log", AT, [0])  # wakes who waits in fetch
            await working
            await self.service.close()
            await self.bus.close()

    @asynccontextmanager
    async def manual_sender(self) -> AsyncIterator[ReceiptSender]:
        """A sender whose ticks are the test's own, on the data that `running` left."""
        database = Database(f"sqlite:///{self.folder / 'notify.db'}", MESSAGING_TABLES)
        settings = NotifySettings(data_dir=self.folder, **self._settings)
        server = settings.mail_server()
        transport = FolderTransport(self.folder / "receipts") if server is None else SmtpTransport(server)
        sender = parse_sender("Winter <receipts@winter.example>")
        try:
            yield ReceiptSender(database, self.pledges, "s" * 20, transport, sender, 10.0, self.clock, UTC)
        finally:
            await database.close()

    async def queue(self, *events: DriveLogged) -> None:
        """Let notify consume `events` without sending anything yet."""
        async with self.running(without=("notify.receipts",)):
            await self.say(*events)
            last = events[-1].payment_id or ""
            await self.settled(last, "due")

    async def say(self, *events: DriveLogged, id: str | None = None) -> None:
        """Put events on the bus; a given `id` makes a repeat."""
        await self.bus.publish(
            [
                Message(event.topic, event.key, id or ids.new("evt"), event.wire_name, event.to_bytes())
                for event in events
            ]
        )

    def donor(self, **fields: Any) -> str:
        """A pledge whose donor is known thus; its id."""
        pledge = ids.new("plg")
        person = {"email": "sara@example.org", "name": "Sara", "locale": "en", "title": "Winter"}
        self.pledges.people[pledge] = person | fields
        return pledge

    async def receipts(self) -> dict[str, Any]:
        """Every receipt's row, by payment."""
        database = Database(f"sqlite:///{self.folder / 'notify.db'}", MESSAGING_TABLES)
        try:
            async with database.reading() as session:
                return {row.payment_id: row for row in await session.execute(select(RECEIPTS))}
        finally:
            await database.close()

    async def settled(self, payment: str, status: str, *, tries: int | None = None) -> Any:
        """The receipt's row once it stands at `status` (after `tries` tries)."""

        async def row_in_status() -> Any:
            row = (await self.receipts()).get(payment)
            return row if row and row.status == status and tries in (None, row.tries) else None

        return await until(row_in_status)

    def files(self) -> dict[str, bytes]:
        """The letters written, by payment."""
        return {path.stem: path.read_bytes() for path in (self.folder / "receipts").glob("*.eml")}

    def database_bytes(self) -> bytes:
        """All that notify's database holds, as bytes."""
        return b"".join(path.read_bytes() for path in self.folder.glob("notify.db*"))
