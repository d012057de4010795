"""The gateway's composition root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from backbone import idempotency
from backbone.bus import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database import Database
from backbone.peer import InProcessPeer, Peer
from backbone.periodic import pruning
from backbone.service import Service, Worker
from gateway.asgi import Answer, Request
from gateway.docs import docs_routes
from gateway.door import Door
from gateway.events_page import events_routes
from gateway.keys import KeyRing, bearer
from gateway.keys_api import Keys, keys_app
from gateway.limits import Lane, Limit
from gateway.live import Hub
from gateway.openapi import Description
from gateway.proxy import Limits, Proxy
from gateway.router import Route, Router
from gateway.settings import GatewaySettings
from gateway.site import Site
from gateway.tables import DOORS
from gateway.totals import LiveReads
from gateway.waits import Question, Waits

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_SYSTEM_CLOCK: Final = SystemClock()


def compose(
    settings: GatewaySettings, bus: EventBus, peers: Mapping[str, Peer], *, clock: Clock = _SYSTEM_CLOCK
) -> Service:
    """The public door in front of `peers` (pledges, payments, leaderboard), fed by `bus`."""
    secret = settings.internal_secret.get_secret_value()
    database = Database(settings.database_url(), DOORS, synchronous=settings.database_synchronous)
    ring = KeyRing(database, secret, settings.admin_key.get_secret_value(), clock)
    every_peer = {**peers, "keys": InProcessPeer(keys_app(Keys(database, ring, clock), secret))}
    lanes = {
        "pledges": Lane("pledges", settings.pledges_in_flight),
        "webhooks": Lane("webhooks", settings.webhooks_in_flight),
        "reads": Lane("reads", settings.reads_in_flight),
        "changes": Lane("changes", settings.changes_in_flight),
    }
    limits = Limits(
        Limit("key", settings.limit_key_per_s, settings.limit_burst_s, time.monotonic),
        Limit("address", settings.limit_address_per_s, settings.limit_burst_s, time.monotonic),
    )
    pledges, leaderboard = peers["pledges"], peers["leaderboard"]
    waits = Waits(
        Question(pledges, secret, "/internal/pledges"),
        Question(peers["payments"], secret, "/internal/checkouts"),
        settings.waits_in_flight,
    )
    hub = Hub(bus, pledges, leaderboard, secret, clock, settings.live_sends_per_s)
    live = LiveReads(hub, leaderboard, ring.public, limits, lanes["reads"], settings.live_clients)
    reader = bearer(secret, "secret", partner="default", scopes=frozenset({"drives"}))
    description = Description(every_peer, ring.public.signed)
    router = Router(
        [
            *Proxy(
                every_peer, ring, limits, lanes, waits, clock, secret, settings.public_url, hub.known_as_of
            ).routes(),
            *live.routes(),
            *Site(pledges, secret, reader, ring.public, limits, lanes["reads"], clock).routes(),
            *docs_routes(description.document),
            *events_routes(),
            *_health(ring),
        ]
    )
    description.routes = router.routes
    service = Service("gateway", _behind(settings.trusted_proxies, Door(router)), close=database.close)

    async def start() -> None:
        await database.migrate(MIGRATIONS)
        await ring.refresh()

    async def drain(stop: asyncio.Event) -> None:
        await _first(service.drain, stop)
        live.draining = True
        hub.drain()
        waits.drain()
        await stop.wait()

    service.start = start
    service.workers = [
        Worker("gateway.keys", ring.keep_fresh),
        Worker("gateway.snapshots", hub.follow_snapshots),
        Worker("gateway.log", hub.follow_log),
        Worker("gateway.pulse", hub.pulse),
        Worker("gateway.drain", drain),
        pruning("gateway", {"idempotency": partial(idempotency.forget_old, database)}),
    ]
    return service


def _behind(proxies: str, door: Door) -> ASGIApp:
    """`door`, which sees the clients behind these proxies, not the proxies."""
    trusted = [one for one in map(str.strip, proxies.split(",")) if one]
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, door), trusted)) if trusted else door


def _health(ring: KeyRing) -> list[Route]:
    """Ready once the keys are known: never waits for lag, the bus or another service."""

    async def alive(request: Request) -> Answer:
        return Answer(200, [(b"content-type", b"text/plain")], b"ok\n")

    async def ready(request: Request) -> Answer:
        if ring.loaded:
            return await alive(request)
        return Answer(503, [(b"content-type", b"text/plain")], b"not ready\n")

    return [Route("GET", "/livez", alive), Route("GET", "/startupz", ready), Route("GET", "/readyz", ready)]


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
