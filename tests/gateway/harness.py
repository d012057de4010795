"""The gateway on a free local port, in front of fake services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from starlette.types import ASGIApp

from backbone import ids
from backbone.bus.protocol import key_of_partition
from backbone.bus.sqlite import SqliteBus
from backbone.clock import Clock, SystemClock
from backbone.contracts import DriveLogged, Heartbeat, SnapshotTaken
from backbone.http.caller import Caller, verify_caller
from backbone.http.service_client import InProcessServiceClient
from backbone.messaging.lossy import message_of
from backbone.money import Money
from backbone.service import Server, Service, listen, run_workers, server
from gateway.app import compose
from gateway.live.hub import Hub
from gateway.overload.readings import Source
from gateway.settings import GatewaySettings
from tests.migrated import place
from tests.waiting import until

SECRET = "internal-secret-of-tests"
ADMIN = "ak_admin_" + "A1b2C3d4E5" * 3
DRIVE = "drv_01frtz5n00000000000000000a"  # fixed: test ids contain it and must be equal on all workers
REFUSED_CLIENTS = "/internal/refused-clients"
PLEDGE = "plg_01frtz5n00000000000000000c"


@dataclass
class ReceivedRequest:
    """A request as a service received it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def caller(self) -> Caller:
        return verify_caller(SECRET, self.headers["ataa-caller"])


@dataclass
class FakeService:
    """An ASGI application that records its requests and returns configured responses.

    The gateway's polls of refused clients are answered with none and not recorded. `answers` maps `METHOD
    path` to (status, JSON), the longest prefix first; responses wait while `gate` is cleared.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    received: list[ReceivedRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        received = ReceivedRequest(
            scope["method"], scope["path"], scope["query_string"].decode(), headers, body
        )
        if received.path != REFUSED_CLIENTS:
            self.received.append(received)
        await self.gate.wait()
        status, answer = self._answer(received)
        more = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/json"), *more],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _answer(self, received: ReceivedRequest) -> tuple[int, Any]:
        line = f"{received.method} {received.path}"
        for prefix in sorted(self.answers, key=len, reverse=True):
            if line.startswith(prefix):
                answer = self.answers[prefix]
                found: tuple[int, Any] = answer(received) if callable(answer) else answer
                return found
        if received.path == REFUSED_CLIENTS:
            return 200, []
        return 404, {"type": "/problems/not-found", "title": "Not found", "status": 404}

    def lines(self) -> list[str]:
        """Method and path of each request."""
        return [f"{received.method} {received.path}" for received in self.received]


def pledge(pledge_id: str = PLEDGE, status: str = "open") -> dict[str, Any]:
    """A pledge as pledges shows it."""
    return {
        "id": pledge_id,
        "drive": DRIVE,
        "creator": None,
        "amount": {"currency": "USD", "value": "25.00"},
        "status": status,
        "token": f"token-of-{pledge_id}",
        "created_at": "2022-01-07T12:00:00.000Z",
    }


def fresh_pledge() -> dict[str, Any]:
    """The same in the response to the POST that created it."""
    return {**pledge(), "checkout": None, "queue": None}


def drive(drive_id: str = DRIVE, slug: str = "winter") -> dict[str, Any]:
    """A drive as pledges shows it."""
    return {
        "id": drive_id,
        "slug": slug,
        "title": {"en": "Winter", "ar": "شتاء"},
        "currency": "USD",
        "goal": {"currency": "USD", "value": "10000000.00"},
        "state": "live",
        "milestones": [{"title": "First", "amount": {"currency": "USD", "value": "100.00"}}],
    }


@dataclass
class Harness:
    """A running gateway and everything around it."""

    url: str
    port: int
    session: aiohttp.ClientSession
    bus: SqliteBus
    service: Service
    pledges: FakeService
    payments: FakeService
    leaderboard: FakeService
    checkouts: dict[str, Any]
    entries: dict[str, Any]
    clock: Clock
    server: Server

    async def key(self, **request: Any) -> str:
        """Create an API key."""
        async with self.session.post("/v1/keys", json=request, headers=bearer(ADMIN)) as reply:
            assert reply.status == 201, await reply.text()
            return str((await reply.json())["key"])

    async def get(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, JSON."""
        async with self.session.get(path, headers=headers) as reply:
            text = await reply.text()
            return reply.status, reply.headers, json.loads(text) if text else None

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, JSON; `body` is sent as JSON."""
        async with self.session.post(path, json=body, headers=headers) as reply:
            text = await reply.text()
            return reply.status, reply.headers, json.loads(text) if text else None

    async def snapshot(self, sequence: int, raised: str = "25.00", **other: Any) -> None:
        """Publish a snapshot of a drive."""
        await self.publish(self.snapshot_taken(sequence, raised, **other), lossy=True)

    def snapshot_taken(
        self,
        sequence: int,
        raised: str = "25.00",
        *,
        drive_id: str = DRIVE,
        slug: str = "winter",
        revision: int = 0,
        epoch: int = 1,
        milestones: Sequence[Any] = (),
    ) -> SnapshotTaken:
        """A snapshot of a drive, as of now."""
        zero = {"currency": "USD", "value": raised}
        totals = {
            "drive": drive_id,
            "slug": slug,
            "title": {"en": "Winter"},
            "currency": "USD",
            "raised": zero,
            "goal": zero,
            "percent": 1.0,
            "donations": sequence,
            "donors": sequence,
            "by_state": {},
            "per_minute": {"donations": 1, "raised": zero},
            "leaders": [{"rank": 1}],
            "recent": [{"id": "don_1", "name": "أمل"}],
            "milestones": list(milestones),
        }
        return SnapshotTaken(
            drive_id=drive_id,
            slug=slug,
            epoch=epoch,
            sequence=sequence,
            revision=revision,
            as_of=self.clock.now(),
            totals=totals,
        )

    async def heartbeat(self) -> None:
        """Publish a heartbeat of every partition with the present moment."""
        for partition in range(12):
            await self.publish(
                Heartbeat(slot=key_of_partition(partition), partition=partition, as_of=self.clock.now()),
                lossy=True,
            )

    async def log(
        self, sequence: int, kind: str = "donation.counted", *, drive_id: str = DRIVE
    ) -> DriveLogged:
        """Publish a row of a drive's log."""
        event = log_row(sequence, kind, drive_id)
        await self.publish(event)
        return event

    async def publish(self, event: Any, *, lossy: bool = False) -> None:
        """Publish an event as its service would."""
        message = message_of(event)
        await self.bus.publish([message], lossy=lossy)


def log_row(sequence: int, kind: str = "donation.counted", drive_id: str = DRIVE) -> DriveLogged:
    """A row of a drive's log."""
    return DriveLogged(
        drive_id=drive_id,
        epoch=1,
        sequence=sequence,
        type=kind,
        at=SystemClock().now(),
        payment_id=ids.new("pay"),
        pledge_id=ids.new("plg"),
        creator_id=None,
        amount=Money(2500, "USD"),
        raised_after=Money(2500 * sequence, "USD"),
        hash="00" * 32,
    )


def hub_of(harness: Harness) -> Hub:
    """The gateway's hub."""
    found: Hub = next(one.run.__self__ for one in harness.service.workers if one.name == "gateway.snapshots")  # type: ignore[attr-defined]
    return found


def bearer(key: str) -> dict[str, str]:
    """The Authorization header of a key."""
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def gateway(
    folder: Path,
    clock: Clock | None = None,
    load: Source | None = None,
    leaderboard_app: ASGIApp | None = None,
    **settings: Any,
) -> AsyncIterator[Harness]:
    """Run a gateway and close everything afterwards."""
    clock = clock or SystemClock()
    checkouts: dict[str, Any] = {}
    entries: dict[str, Any] = {PLEDGE: {"pledge": pledge(), "partner": "default", "test": False}}
    pledges, payments, leaderboard = FakeService(), FakeService(), FakeService()

    def known(found: dict[str, Any], field_name: str) -> Any:
        def answer(received: ReceivedRequest) -> tuple[int, Any]:
            requested = json.loads(received.body)[field_name]
            return 200, {"data": {one: found[one] for one in requested if one in found}}

        return answer

    drives = {"winter": drive(), DRIVE: drive(), "spring": drive("drv_" + "0" * 26, "spring")}
    pledges.answers |= {
        "POST /internal/pledges": known(entries, "ids"),
        "POST /internal/drives": known(drives, "refs"),
        "GET /v1/drives/winter": (200, drive()),
        f"GET /v1/drives/{DRIVE}/creators": (200, {"data": [], "next": None}),
        "POST /v1/drives": (201, drive()),
        "POST /v1/drives/winter/pledges": (201, fresh_pledge()),
        f"POST /v1/drives/{DRIVE}/pledges": (201, fresh_pledge()),
    }
    payments.answers |= {
        "POST /internal/checkouts": known(checkouts, "ids"),
        "POST /webhooks/stripe": (200, {"received": True}),
        "POST /v1/pledges": (201, {"id": "rfd_1", "status": "pending"}),
    }
    leaderboard.answers |= {
        "POST /internal/displays": lambda received: (
            200,
            {"data": {one: {"name": "أمل", "message": None} for one in json.loads(received.body)["ids"]}},
        ),
    }
    for fake in (pledges, payments, leaderboard):
        fake.answers["GET /openapi.json"] = (200, {"openapi": "3.1.0", "paths": {}})
    values: dict[str, Any] = {
        "data_dir": folder,
        "internal_secret": SecretStr(SECRET),
        "admin_key": SecretStr(ADMIN),
        "database_synchronous": "OFF",
    }
    place("gateway", folder, settings)
    bus = SqliteBus(folder / "bus.db", synchronous="OFF")
    service_clients = {
        "pledges": InProcessServiceClient(pledges),
        "payments": InProcessServiceClient(payments),
        "leaderboard": InProcessServiceClient(leaderboard_app or leaderboard),
    }
    service = compose(GatewaySettings(**values | settings), bus, service_clients, clock=clock, load=load)
    await service.start()
    sock = listen("127.0.0.1", 0, "the test's port")
    port = sock.getsockname()[1]
    one, stop = server(service.app), asyncio.Event()
    serving = asyncio.create_task(one.serve(sockets=[sock]))
    working = asyncio.create_task(run_workers([service], stop))
    url = f"http://127.0.0.1:{port}"
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    async with aiohttp.ClientSession(url, connector=connector, auto_decompress=True) as session:
        harness = Harness(
            url, port, session, bus, service, pledges, payments, leaderboard, checkouts, entries, clock, one
        )

        async def bootstrapped() -> bool:
            return (await harness.get("/v1/drives/winter/totals"))[0] != 503

        await until(lambda: one.started)
        await until(bootstrapped)
        try:
            yield harness
        finally:
            service.drain.set()
            stop.set()
            for topic in ("snapshots", "drive-log"):  # ends blocking reads
                await bus.publish_watermarks(topic, SystemClock().now(), [0])
            await working
            await _end(one, serving)
            await service.close()
            await bus.close()


async def _end(one: Server, serving: asyncio.Task[None]) -> None:
    """Close without uvicorn's own shutdown, which waits 0.2 s: longer than most tests take."""
    serving.cancel()
    for listening in one.servers:
        listening.close()
    await asyncio.gather(serving, *one.server_state.tasks, return_exceptions=True)
