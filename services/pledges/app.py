"""Composition of the pledges service."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from backbone import idempotency
from backbone.amount_list import amounts_by_currency
from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import Database
from backbone.messaging import inbox
from backbone.messaging.consumer import Consumer
from backbone.messaging.dead_letter_routes import dead_letter_routes
from backbone.messaging.dead_letters import DeadLetters
from backbone.messaging.outbox import Relay
from backbone.periodic import pruning_worker
from backbone.service import Service, Worker, add_health, add_routes, new_app
from services.pledges import api, internal_api, problems
from services.pledges.commands import DriveCommands, PledgeCommands
from services.pledges.domain import PledgeSecrets
from services.pledges.handlers import HANDLERS
from services.pledges.intake import Intake
from services.pledges.moderation.alerts import AlertControls
from services.pledges.moderation.alerts_api import AlertRoutes, alert_routes
from services.pledges.moderation.api import ModerationRoutes, moderation_routes
from services.pledges.moderation.decisions import Decisions
from services.pledges.queries import Queries
from services.pledges.settings import PledgesSettings
from services.pledges.tables import MESSAGING_TABLES
from services.pledges.tracing import trace_routes

MIGRATIONS: Final = Path(__file__).parent / "migrations"
SYSTEM_CLOCK: Final = SystemClock()


def compose(settings: PledgesSettings, bus: EventBus, *, clock: Clock = SYSTEM_CLOCK) -> Service:
    """The pledges service on its database and `bus`. Raises ValueError without `ATAA_TOKEN_SECRET`."""
    secret = settings.token_secret.get_secret_value()
    if not secret:
        raise ValueError("ATAA_TOKEN_SECRET: must be set")
    database = Database(settings.database_url(), MESSAGING_TABLES, synchronous=settings.database_synchronous)
    secrets = PledgeSecrets(secret)
    queries = Queries(database, secrets, clock)
    intake = Intake(
        database,
        secrets,
        clock,
        moves_real_money=settings.moves_real_money,
        minimums=amounts_by_currency(settings.minimum_amount),
    )
    consumer = Consumer("pledges", bus, ["payments"], HANDLERS, database)
    app = new_app("pledges", settings.internal_secret.get_secret_value())
    problems.install(app)
    drives, pledges = DriveCommands(database, clock), PledgeCommands(database, secrets)
    add_routes(app, api.routes(api.Dependencies(intake, drives, pledges, queries)))
    moderation = ModerationRoutes(database, queries, Decisions(database, clock))
    add_routes(app, moderation_routes(moderation))
    add_routes(app, alert_routes(AlertRoutes(AlertControls(database, clock))))
    add_routes(app, internal_api.routes(queries, consumer.behind))
    add_routes(app, dead_letter_routes(DeadLetters("pledges", bus, database)))
    add_routes(app, trace_routes(database))
    add_health(app, database.is_responding)
    return Service(
        "pledges",
        app,
        workers=[
            Worker("pledges.relay", Relay("pledges", database, bus, topics=["pledges"]).run),
            Worker("pledges.consumer", consumer.run),
            pruning_worker(
                "pledges",
                {
                    "inbox": partial(inbox.delete_expired, database),
                    "idempotency": partial(idempotency.delete_expired, database),
                },
            ),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=database.close,
    )
