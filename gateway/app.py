"""Composition root of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from backbone import idempotency
from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient, ServiceClient
from backbone.periodic import pruning_worker
from backbone.service import Service, Worker
from gateway.access.keys import KeyRing, bearer
from gateway.access.keys_api import Keys, keys_app
from gateway.access.limits import ConcurrencyLimit, RateLimit, RateLimits
from gateway.access.sessions import Sessions
from gateway.console.client import ServiceCalls
from gateway.console.login import Login
from gateway.console.root import Root
from gateway.console.site import Console
from gateway.desk.alerts import AlertDesk
from gateway.desk.presence import Presence
from gateway.desk.routes import ModerationDesk
from gateway.docs import docs_routes
from gateway.events_page import events_routes
from gateway.http.application import Gateway
from gateway.http.asgi import Header, Request, Response
from gateway.http.router import Route, Router
from gateway.live.early_totals import EarlyTotals
from gateway.live.hub import Hub
from gateway.live.totals import LiveReads
from gateway.openapi.document import Description
from gateway.overload.proof_limit import ProofLimit
from gateway.overload.readings import ProcessLoad, Reading, Source
from gateway.overload.refusal import Refusal
from gateway.overload.shedding import Shedding
from gateway.pages.badge import Badges
from gateway.pages.site import Site
from gateway.proxy.audits import Audits
from gateway.proxy.forwarding import Forwarder
from gateway.proxy.leaderboards import Leaderboards
from gateway.proxy.pledges import PledgeRoutes
from gateway.proxy.public_reads import PublicReads
from gateway.proxy.waits import BatchLookup, Waits
from gateway.reach.composition import Reach
from gateway.screening.pledge_screening import PledgeScreening, screen_pledges
from gateway.settings import GatewaySettings
from gateway.tables import MESSAGING_TABLES
from gateway.transparency.heads import Heads
from gateway.transparency.log_client import LogClient
from gateway.transparency.routes import Transparency

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_SYSTEM_CLOCK: Final = SystemClock()


def compose(
    settings: GatewaySettings,
    bus: EventBus,
    service_clients: Mapping[str, ServiceClient],
    *,
    clock: Clock = _SYSTEM_CLOCK,
    load: Source | None = None,
) -> Service:
    """The gateway in front of pledges, payments and leaderboard, wired to `bus`.

    Nothing runs before `Service.start`. Readings of the load come from `load`, by default this process.
    """
    secret = settings.internal_secret.get_secret_value()
    database = Database(settings.database_url(), MESSAGING_TABLES, synchronous=settings.database_synchronous)
    key_ring = KeyRing(database, secret, settings.admin_key.get_secret_value(), clock)
    keys = InProcessServiceClient(keys_app(Keys(database, key_ring, clock), secret))
    clients = {**service_clients, "keys": keys}
    pledges, leaderboard = clients["pledges"], clients["leaderboard"]
    limits, concurrency_limits = _rate_limits(settings), _concurrency_limits(settings)
    lookups, intake = concurrency_limits["lookups"], concurrency_limits["pledges"]
    waits = _waits(clients, secret, settings.waits_in_flight)
    public = key_ring.public
    hub = Hub(bus, pledges, leaderboard, secret, public.signed, clock, settings.live_sends_per_s)
    shedding = Shedding(intake, _full_load(settings), load or ProcessLoad(intake), hub.freshness.give_way)
    live = LiveReads(hub, public, limits, lookups, settings.live_clients, shedding)
    forwarder = Forwarder(clients, key_ring, limits, concurrency_limits)
    sessions, presence = _sessions(settings, database, key_ring, clock), Presence(database, clock)
    calls = ServiceCalls(clients, secret, concurrency_limits["reads"], concurrency_limits["changes"])
    reach = Reach(settings.public_url, database, clock, clients, secret, forwarder, live, hub)
    screening = screen_pledges(database, clients["payments"], secret, limits, clock)
    pledge_routes = PledgeRoutes(forwarder, waits, clock, secret, settings.public_url, screening)
    logs, proofs = LogClient(leaderboard, secret), ProofLimit(concurrency_limits["proofs"], shedding)
    heads = Heads(database, logs, settings.log_signer(), clock)
    description = Description(clients, public.signed)
    router = Router(
        [
            *forwarder.routes(),
            *pledge_routes.routes(),
            *Transparency(heads, logs, key_ring, limits, proofs, pledge_routes.read_with_token).routes(),
            *Leaderboards(forwarder, hub.known_as_of, shedding).routes(),
            *Audits(forwarder, proofs).routes(),
            *PublicReads(forwarder).routes(),
            *live.routes(),
            *Login(sessions).routes(),
            *Console(sessions, calls, waits.checkouts, hub, reach.funnel, clock).routes(),
            *Root(hub, pledges, secret, lookups).routes(),
            *_pages(settings, pledges, secret, key_ring, limits, lookups, clock, waits),
            *reach.routes(),
            *_desk(pledges, sessions, presence, concurrency_limits).routes(),
            *AlertDesk(pledges, sessions, concurrency_limits["changes"]).routes(),
            *docs_routes(description.document),
            *events_routes(),
            *_health(key_ring),
        ]
    )
    description.routes = router.routes
    app = _application(settings.trusted_proxies, router, hub, Refusal(intake))
    service = Service("gateway", app, close=database.close)

    service.start = partial(_start, database, key_ring, screening)
    service.workers = [
        *_access_workers(key_ring, screening),
        *_live_workers(hub),
        Worker("gateway.overload", shedding.run),
        Worker("gateway.drain", _drainer(service, live, hub, waits)),
        *reach.workers(),
        presence.pruning(),
        _pruning(database, sessions),
    ]
    return service


def _access_workers(key_ring: KeyRing, screening: PledgeScreening) -> list[Worker]:
    return [Worker("gateway.keys", key_ring.keep_fresh), *screening.workers()]


def _live_workers(hub: Hub) -> list[Worker]:
    return [
        Worker("gateway.snapshots", hub.follow_snapshots),
        Worker("gateway.log", hub.follow_log),
        Worker("gateway.pulse", hub.fan_out.pulse),
    ]


def _drainer(
    service: Service, live: LiveReads, hub: Hub, waits: Waits
) -> Callable[[asyncio.Event], Awaitable[None]]:
    async def drain(stop: asyncio.Event) -> None:
        await _first(service.drain, stop)
        live.draining = True
        hub.fan_out.drain()
        waits.drain()
        await stop.wait()

    return drain


def _sessions(settings: GatewaySettings, database: Database, key_ring: KeyRing, clock: Clock) -> Sessions:
    secret = settings.internal_secret.get_secret_value()
    logins = RateLimit("login", 1 / 6, 60.0, time.monotonic)  # ten at once, then one in six seconds
    return Sessions(database, key_ring, secret, settings.public_url, logins, clock)


def _desk(
    pledges: ServiceClient, sessions: Sessions, presence: Presence, limits: Mapping[str, ConcurrencyLimit]
) -> ModerationDesk:
    return ModerationDesk(pledges, sessions, presence, limits["reads"], limits["changes"])


def _pruning(database: Database, sessions: Sessions) -> Worker:
    replies = partial(idempotency.delete_expired, database)
    return pruning_worker("gateway", {"idempotency": replies, "sessions": sessions.delete_expired})


async def _start(database: Database, key_ring: KeyRing, screening: PledgeScreening) -> None:
    await database.migrate(MIGRATIONS)
    await key_ring.refresh()
    await screening.groups.refresh()


def _pages(
    settings: GatewaySettings,
    pledges: ServiceClient,
    secret: str,
    key_ring: KeyRing,
    limits: RateLimits,
    lookups: ConcurrencyLimit,
    clock: Clock,
    waits: Waits,
) -> list[Route]:
    """The HTML pages and the badge."""
    reader = bearer(secret, "secret", partner="default", scopes=frozenset({"drives"}))
    embedded, fee = bool(settings.stripe_publishable_key), settings.fee_rule()
    public = settings.public_url
    site = Site(pledges, secret, reader, key_ring, limits, lookups, clock, fee, embedded, public)
    return [*site.routes(), *Badges(pledges, secret, key_ring, limits, lookups, waits).routes()]


def _waits(clients: Mapping[str, ServiceClient], secret: str, most: int) -> Waits:
    return Waits(
        BatchLookup(clients["pledges"], secret, "/internal/pledges"),
        BatchLookup(clients["payments"], secret, "/internal/checkouts"),
        most,
    )


def _full_load(settings: GatewaySettings) -> Reading:
    return Reading(0.0, settings.overload_lag_s, settings.pledges_wait_s)


def _rate_limits(settings: GatewaySettings) -> RateLimits:
    burst_s = settings.limit_burst_s
    return RateLimits(
        RateLimit("key", settings.limit_key_per_s, burst_s, time.monotonic),
        RateLimit("address", settings.limit_address_per_s, burst_s, time.monotonic),
        RateLimit("pledges", settings.limit_pledges_address_per_min / 60, 60.0, time.monotonic),
        RateLimit("pledges-key", settings.limit_pledges_key_per_min / 60, 60.0, time.monotonic),
    )


def _concurrency_limits(settings: GatewaySettings) -> dict[str, ConcurrencyLimit]:
    limits = {
        "pledges": settings.pledges_in_flight,
        "webhooks": settings.webhooks_in_flight,
        "reads": settings.reads_in_flight,
        "lookups": settings.lookups_in_flight,
        "proofs": settings.proofs_in_flight,
        "changes": settings.changes_in_flight,
    }
    return {name: ConcurrencyLimit(name, limit) for name, limit in limits.items()}


def _application(proxies: str, router: Router, hub: Hub, refusal: Refusal) -> ASGIApp:
    """The gateway as an application that reads client addresses as the trusted `proxies` report them."""
    totals = EarlyTotals(hub)

    def early_answer(method: bytes, target: bytes, headers: Sequence[Header]) -> tuple[bytes, bytes] | None:
        if method == b"GET":
            return totals.answer(target, headers)
        return refusal.answer(target, headers) if method == b"POST" else None

    gateway = Gateway(router, early_answer, refusal.send)
    trusted = [one for one in map(str.strip, proxies.split(",")) if one]
    return _BehindProxies(gateway, trusted) if trusted else gateway


class _BehindProxies:
    """The gateway, with client addresses from `X-Forwarded-For` of these proxies."""

    def __init__(self, gateway: Gateway, trusted: list[str]) -> None:
        self.early_answer = gateway.early_answer  # it does not depend on the client's address
        self._app = cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, gateway), trusted))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _health(key_ring: KeyRing) -> list[Route]:
    """The health routes. Ready once the keys are loaded, whatever the bus and the services do."""

    async def alive(request: Request) -> Response:
        return Response(200, [(b"content-type", b"text/plain")], b"ok\n")

    async def ready(request: Request) -> Response:
        if key_ring.loaded:
            return await alive(request)
        return Response(503, [(b"content-type", b"text/plain")], b"not ready\n")

    return [Route("GET", "/livez", alive), Route("GET", "/startupz", ready), Route("GET", "/readyz", ready)]


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
