"""Where pledges is put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from backbone import idempotency, inbox
from backbone.bus import EventBus
from backbone.clock import Clock, SystemClock
from backbone.consumer import Consumer
from backbone.database import Database
from backbone.outbox import Relay
from backbone.service import Service, Worker, add_health, new_app
from services.pledges import api
from services.pledges.commands import Drives, Pledges
from services.pledges.domain import Secrets
from services.pledges.handlers import HANDLERS
from services.pledges.intake import Intake
from services.pledges.queries import Reader
from services.pledges.settings import PledgesSettings
from services.pledges.tables import DOORS

MIGRATIONS: Final = Path(__file__).parent / "migrations"
PRUNE_EVERY_S: Final = 3600.0
SYSTEM_CLOCK: Final = SystemClock()


def compose(settings: PledgesSettings, bus: EventBus, *, clock: Clock = SYSTEM_CLOCK) -> Service:
    """Pledges on its database and `bus`. Raises ValueError without `ATAA_TOKEN_SECRET`."""
    secret = settings.token_secret.get_secret_value()
    if not secret:
        raise ValueError("ATAA_TOKEN_SECRET: must be set")
    database = Database(settings.database_url(), DOORS, synchronous=settings.database_synchronous)
    secrets = Secrets(secret)
    reader = Reader(database, secrets)
    intake = Intake(database, secrets, clock)
    consumer = Consumer("pledges", bus, ["payments"], HANDLERS, database)
    app = new_app("pledges", settings.internal_secret.get_secret_value())
    api.install(app, api.Door(intake, Drives(database, clock), Pledges(database, secrets), reader))
    api.install_internal(app, reader, consumer.behind)
    add_health(app, database.answers)
    return Service(
        "pledges",
        app,
        workers=[
            Worker("pledges.relay", Relay("pledges", database, bus, topics=["pledges"]).run),
            Worker("pledges.consumer", consumer.run),
            Worker("pledges.pruning", _pruning(database)),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=database.close,
    )


def _pruning(database: Database) -> Callable[[asyncio.Event], Awaitable[None]]:
    """Forget, hour by hour, what no repeat can still ask for."""

    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set():
            more = await inbox.forget_old(database) + await idempotency.forget_old(database)
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0 if more else PRUNE_EVERY_S):
                    await stop.wait()

    return run
