"""Composition root of leaderboard."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import Database
from backbone.http.service_client import ServiceClient
from backbone.messaging import inbox
from backbone.messaging.consumer import Consumer
from backbone.messaging.dead_letter_routes import dead_letter_routes
from backbone.messaging.dead_letters import DeadLetters
from backbone.messaging.outbox import Relay
from backbone.periodic import pruning_worker
from backbone.service import Service, Worker, add_health, add_routes, new_app
from services.leaderboard import api
from services.leaderboard.audit_api import audit_routes
from services.leaderboard.board_api import BoardReads
from services.leaderboard.display_texts import REQUEST_TIMEOUT_S, DisplayTexts
from services.leaderboard.freshness import INPUTS, ChangedDrives, Freshness
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.rebuild_api import rebuild_routes
from services.leaderboard.settings import LeaderboardSettings
from services.leaderboard.snapshots import Snapshots
from services.leaderboard.summing import Summing
from services.leaderboard.tables import MESSAGING_TABLES
from services.leaderboard.tracing import trace_routes
from services.leaderboard.transparency.tiling import Tiling

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def compose(
    settings: LeaderboardSettings,
    bus: EventBus,
    pledges: ServiceClient,
    *,
    clock: Clock | None = None,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
) -> Service:
    """Leaderboard, wired to `bus` and to pledges' API; nothing runs before `Service.start`.

    `request_timeout_s` is the deadline of a request to pledges for donors' texts.
    """
    clock = clock or SystemClock()
    database = Database(settings.database_url(), MESSAGING_TABLES, synchronous=settings.database_synchronous)
    secret = settings.internal_secret.get_secret_value()
    changed = ChangedDrives()
    display_texts = DisplayTexts(database, pledges, secret, request_timeout_s=request_timeout_s)
    tiling = Tiling(database, are_events_waiting=lambda: consumer.is_behind)
    handlers = tiling.after(display_texts.requested_by(changed.after(HANDLERS)))
    consumer = Consumer("leaderboard", bus, INPUTS, handlers, database, assigned=changed.news)
    freshness = Freshness(consumer.watermarks, consumer.owned_partitions)
    summing = Summing(database, freshness, clock, are_events_waiting=lambda: consumer.is_behind)
    snapshots = Snapshots(database, bus, changed, freshness, display_texts, clock)
    relay = Relay("leaderboard", database, bus, topics=["drive-log"])

    app = new_app("leaderboard", secret)
    add_health(app, database.is_responding)
    reads = BoardReads(database, display_texts, freshness, summing)
    add_routes(app, audit_routes(database, freshness, consumer.behind))
    add_routes(app, rebuild_routes(database))
    add_routes(app, dead_letter_routes(DeadLetters("leaderboard", bus, database)))
    add_routes(app, trace_routes(database))
    dependencies = api.Dependencies(database, display_texts, reads, consumer.behind, summing, tiling)
    add_routes(app, api.routes(dependencies))

    async def start() -> None:
        await database.migrate(MIGRATIONS)

    workers = [
        Worker("leaderboard.outbox", relay.run),
        Worker("leaderboard.consumer", consumer.run),
        Worker("leaderboard.snapshots", snapshots.run),
        pruning_worker("leaderboard", {"inbox": partial(inbox.delete_expired, database)}),
        Worker("leaderboard.words", display_texts.run),
        Worker("leaderboard.boards", summing.run),
        Worker("leaderboard.log_tiles", tiling.run),
    ]
    return Service("leaderboard", app, workers, start, database.close)
