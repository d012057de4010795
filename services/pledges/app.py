"""Where pledges is put together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from backbone import idempotency, inbox
from backbone.bus import EventBus
from backbone.clock import Clock, SystemClock
from backbone.consumer import Consumer
from backbone.database import Database
from backbone.outbox import Relay
from backbone.periodic import pruning
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
SYSTEM_CLOCK: Final = SystemClock()


def compose(settings: PledgesSettings, bus: EventBus, *, clock: Clock = SYSTEM_CLOCK) -> Service:
    """Pledges on its database and `bus`. Raises ValueError without `ATAA_TOKEN_SECRET`."""
    secret = settings.token_secret.get_secret_value()
    if not secret:
        raise ValueError("ATAA_TOKEN_SECRET: must be set")
    database = Database(settings.database_url(), DOORS, synchronous=settings.database_synchronous)
    secrets = Secrets(secret)
    reader = Reader(database, secrets)
    intake = Intake(database, secrets, clock, moves_real_money=settings.moves_real_money)
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
            pruning(
                "pledges",
                {
                    "inbox": partial(inbox.forget_old, database),
                    "idempotency": partial(idempotency.forget_old, database),
                },
            ),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=database.close,
    )
