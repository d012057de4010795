"""Composition root of leaderboard."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from backbone import inbox
from backbone.bus import EventBus
from backbone.clock import Clock, SystemClock
from backbone.consumer import Consumer
from backbone.database import Database
from backbone.outbox import Relay
from backbone.peer import Peer
from backbone.periodic import pruning
from backbone.service import Service, Worker, add_health, new_app
from services.leaderboard import api
from services.leaderboard.handlers import HANDLERS
from services.leaderboard.settings import LeaderboardSettings
from services.leaderboard.snapshots import INPUTS, Changed, Freshness, Snapshots
from services.leaderboard.tables import DOORS
from services.leaderboard.words import ASK_S, Words

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def compose(
    settings: LeaderboardSettings,
    bus: EventBus,
    pledges: Peer,
    *,
    clock: Clock | None = None,
    ask_s: float = ASK_S,
) -> Service:
    """Leaderboard, wired to `bus` and to pledges' door; nothing runs before `Service.start`.

    `ask_s` is the deadline of a request to pledges for donors' texts.
    """
    clock = clock or SystemClock()
    database = Database(settings.database_url(), DOORS, synchronous=settings.database_synchronous)
    secret = settings.internal_secret.get_secret_value()
    changed = Changed()
    words = Words(database, pledges, secret, ask_s=ask_s)
    handlers = words.requested_by(changed.after(HANDLERS))
    consumer = Consumer("leaderboard", bus, INPUTS, handlers, database, taken=changed.news)
    freshness = Freshness(consumer.watermarks, consumer.owned)
    snapshots = Snapshots(database, bus, changed, freshness, words, clock)
    relay = Relay("leaderboard", database, bus, topics=["drive-log"])

    app = new_app("leaderboard", secret)
    add_health(app, database.answers)
    app.include_router(api.routes(api.Door(database, words, freshness, consumer.behind)))

    async def start() -> None:
        await database.migrate(MIGRATIONS)

    workers = [
        Worker("leaderboard.outbox", relay.run),
        Worker("leaderboard.consumer", consumer.run),
        Worker("leaderboard.snapshots", snapshots.run),
        pruning("leaderboard", {"inbox": partial(inbox.forget_old, database)}),
        Worker("leaderboard.words", words.run),
    ]
    return Service("leaderboard", app, workers, start, database.close)
