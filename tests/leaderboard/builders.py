"""Events for leaderboard, and leaderboard itself on a real store and bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import delete, select

from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus
from backbone.clock import Clock, SystemClock
from backbone.contracts import (
    CreatorChanged,
    DriveChanged,
    DriveState,
    Event,
    MatchingPoolChanged,
    PaymentChanged,
    PaymentStatus,
    PledgeChanged,
    PledgeMade,
    PledgeStatus,
)
from backbone.contracts.pledges import Milestone
from backbone.database.database import Database
from backbone.http.caller import sign_caller
from backbone.http.service_client import (
    InProcessServiceClient,
    ServiceClient,
    ServiceResponse,
    ServiceUnavailable,
)
from backbone.messaging.lossy import message_of
from backbone.money import Money
from backbone.service import Service, run_workers
from services.leaderboard import boards, queries
from services.leaderboard.app import MIGRATIONS, compose
from services.leaderboard.display_texts import REQUEST_TIMEOUT_S
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.settings import LeaderboardSettings
from services.leaderboard.tables import MESSAGING_TABLES, Table, drives
from tests.engines import BUSY_TIMEOUT_S
from tests.migrated import place
from tests.waiting import PATIENCE_S

SECRET = "a secret of tests"
NOON = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)
DRIVE = "drv_01aaaaaaaaaaaaaaaaaaaaaaaa"


def usd(minor_units: int) -> Money:
    return Money(minor_units, "USD")


def drive(version: int = 1, state: DriveState = DriveState.LIVE, **other: Any) -> DriveChanged:
    fields: dict[str, Any] = {
        "drive_id": DRIVE,
        "slug": "winter",
        "title": {"en": "Winter"},
        "currency": "USD",
        "goal": usd(1_000_000),
        "milestones": [],
        "test": False,
        "changed_at": NOON + timedelta(seconds=version),
    }
    return DriveChanged(**fields | other | {"version": version, "state": state})


def milestone(amount: int, title: str = "half way") -> Milestone:
    return Milestone(title=title, amount=usd(amount))


def creator(creator_id: str, name: str = "Noor", **other: Any) -> CreatorChanged:
    fields = {"drive_id": DRIVE, "version": 1, "slug": name.lower(), "name": name, "team": None}
    return CreatorChanged(**fields | other | {"creator_id": creator_id})


def pledge(
    pledge_id: str,
    amount: int = 2500,
    status: PledgeStatus = PledgeStatus.OPEN,
    version: int = 1,
    **other: Any,
) -> PledgeMade | PledgeChanged:
    fields: dict[str, Any] = {
        "drive_id": DRIVE,
        "donor_id": "dnr_1",
        "creator_id": None,
        "source": None,
        "partner": "default",
        "checkout_mode": "hosted",
        "locale": "ar",
        "test": False,
        "made_at": NOON,
        "anonymous": False if version == 1 else None,
    }
    kind = PledgeMade if version == 1 else PledgeChanged
    return kind(
        **fields
        | other
        | {"pledge_id": pledge_id, "amount": usd(amount), "status": status, "version": version}
    )


def payment(
    payment_id: str,
    captured: int = 2500,
    refunded: int = 0,
    disputed: int = 0,
    version: int = 1,
    *,
    currency: str = "USD",
    **other: Any,
) -> PaymentChanged:
    fields: dict[str, Any] = {
        "drive_id": DRIVE,
        "pledge_id": None,
        "creator_id": None,
        "donor_id": None,
        "source": None,
        "status": PaymentStatus.CAPTURED,
        "held": False,
        "captured_at": None,
        "anonymous": False,
        "changed_at": NOON + timedelta(seconds=version),
    }
    return PaymentChanged(
        **fields
        | other
        | {
            "payment_id": payment_id,
            "version": version,
            "captured": Money(captured, currency),
            "refunded": Money(refunded, currency),
            "disputed": Money(disputed, currency),
        }
    )


def pool(pool_id: str, used: int = 0, version: int = 1, **other: Any) -> MatchingPoolChanged:
    fields: dict[str, Any] = {
        "drive_id": DRIVE,
        "sponsor": "Acme",
        "cap": usd(10_000),
        "ratio": "1.00",
        "creator_id": None,
        "starts_at": NOON,
        "ends_at": None,
        "ended_at": None,
        "changed_at": NOON + timedelta(seconds=version),
    }
    return MatchingPoolChanged(**fields | other | {"pool_id": pool_id, "used": usd(used), "version": version})


async def handle_events(database: Database, *events: Event) -> None:
    """Pass `events` to the handlers in one transaction, as the consumer does."""
    async with database.transaction() as session:
        for kind, handle in HANDLERS.items():
            if chosen := [event for event in events if type(event) is kind]:
                await handle(chosen, session)


def messages(events: Sequence[Event]) -> list[Message]:
    """`events` as messages on the bus, each with its own id."""
    return [message_of(event) for event in events]


@asynccontextmanager
async def open_database(folder: Path, url: str = "") -> AsyncIterator[Database]:
    """Leaderboard's migrated database in `folder` (without fsync, which no test here needs) or at `url`."""
    place("services.leaderboard", folder, {"database_url_leaderboard": url})
    database = Database(
        url or f"sqlite:///{folder / 'leaderboard.db'}",
        MESSAGING_TABLES,
        synchronous="OFF",
        timeout_s=BUSY_TIMEOUT_S,
    )
    await database.migrate(MIGRATIONS)
    try:
        yield database
    finally:
        await database.close()


@dataclass
class FakePledges:
    """A fake of pledges' `/internal/words`, which can be made unavailable."""

    display_texts: dict[str, dict[str, str | None]] = field(default_factory=dict)
    unavailable: bool = False
    asked: list[list[str]] = field(default_factory=list)

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        if self.unavailable:
            raise ServiceUnavailable("away")
        assert (method, path) == ("POST", "/internal/words")
        wanted = json.loads(body)["ids"]
        self.asked.append(wanted)
        found = {one: self.display_texts[one] for one in wanted if one in self.display_texts}
        return ServiceResponse(200, {}, json.dumps({"data": found}).encode())


@dataclass
class Leaderboard:
    """A running leaderboard with its bus and its fake pledges service."""

    service: Service
    bus: SqliteBus
    pledges: FakePledges

    async def publish(self, *events: Event) -> None:
        await self.bus.publish(messages(events))

    async def get(self, path: str, query: str = "", *, internal: bool = False) -> ServiceResponse:
        scopes = ("internal",) if internal else ()
        headers = sign_caller(SECRET, partner="public", scopes=scopes)
        return await InProcessServiceClient(self.service.app).request(
            "GET", path, headers=headers, query=query
        )

    async def post(self, path: str, body: Any) -> ServiceResponse:
        headers = {
            "content-type": "application/json",
            **sign_caller(SECRET, partner="ataa", scopes=("internal",)),
        }
        return await InProcessServiceClient(self.service.app).request(
            "POST", path, headers=headers, body=json.dumps(body).encode()
        )

    async def is_drained(self) -> bool:
        found = (await self.get("/internal/quiet", internal=True)).json()
        return all(value == 0 for value in found.values())


@asynccontextmanager
async def running(
    folder: Path,
    *,
    pledges: FakePledges | None = None,
    peer: ServiceClient | None = None,
    clock: Clock | None = None,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    **given: Any,
) -> AsyncIterator[Leaderboard]:
    """A leaderboard with its workers and the embedded bus in `folder`, on SQLite there or as `given`.

    It asks `peer` for donors' texts where one is given, else `pledges`; `request_timeout_s` is the deadline.
    """
    place("services.leaderboard", folder, given)
    bus = SqliteBus(folder / "bus.db", synchronous="OFF")
    settings = LeaderboardSettings(
        data_dir=folder,
        internal_secret=SecretStr(SECRET),
        database_synchronous="OFF",
        **given,
    )
    fake_pledges = pledges or FakePledges()
    service = compose(
        settings, bus, peer or fake_pledges, clock=clock or SystemClock(), request_timeout_s=request_timeout_s
    )
    await service.start()
    stop = asyncio.Event()
    working = asyncio.create_task(run_workers([service], stop))
    try:
        yield Leaderboard(service, bus, fake_pledges)
    finally:
        stop.set()
        await bus.publish_watermarks("pledges", NOON, [0])  # ends a blocking fetch
        async with asyncio.timeout(PATIENCE_S):
            await working
        await service.close()
        await bus.close()


async def empty(database: Database) -> None:
    """Delete all rows of leaderboard's tables."""
    async with database.transaction() as session:
        for table in Table.metadata.sorted_tables:
            await session.execute(delete(table))


async def drive_row(database: Database, drive_id: str = DRIVE) -> Any:
    """The stored row of a drive."""
    async with database.reading() as session:
        return (await session.execute(select(drives).where(drives.c.drive_id == drive_id))).one()


async def log_rows(database: Database, drive_id: str = DRIVE) -> list[dict[str, Any]]:
    """A drive's whole log as the API shows it."""
    head = await head_of(database, drive_id)
    async with database.reading() as session:
        return (await queries.log_page(session, head, 0, 10_000))[0]


async def head_of(database: Database, drive_id: str = DRIVE) -> queries.DriveHead:
    """The identity and position of a drive."""
    row = await drive_row(database, drive_id)
    return queries.DriveHead(drive_id, row.currency, row.epoch, row.sequence)


async def ranks(database: Database) -> list[dict[str, Any]]:
    """The leaderboard of creators."""
    head = await head_of(database)
    async with database.reading() as session:
        return await session.run_sync(lambda inner: boards.top_creators(inner, DRIVE, head.currency, 10))


async def ranks_around(database: Database, creator_id: str, limit: int) -> list[dict[str, Any]] | None:
    """The ranks around a creator; None where the creator has none."""
    head = await head_of(database)
    async with database.reading() as session:
        found = await session.run_sync(
            lambda inner: boards.around(inner, DRIVE, "creators", "all", limit, creator_id)
        )
    return found and boards.places("creators", found, head.currency, lambda _pledge: None)
