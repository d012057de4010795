"""The composition root of notify."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from sqlalchemy import func, select

from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import Database
from backbone.http.caller import InternalDep
from backbone.http.service_client import ServiceClient
from backbone.messaging import inbox
from backbone.messaging.consumer import Consumer
from backbone.messaging.dead_letter_routes import dead_letter_routes
from backbone.messaging.dead_letters import DeadLetters
from backbone.messaging.outbox import Relay
from backbone.periodic import pruning_worker
from backbone.service import Service, Worker, add_health, add_routes, new_app
from services.notify.handlers import HANDLERS
from services.notify.receipts import ReceiptSender
from services.notify.settings import NotifySettings, parse_time_zone
from services.notify.tables import MESSAGING_TABLES
from services.notify.tracing import trace_routes
from services.notify.transport import FolderTransport, SmtpTransport, parse_sender

MIGRATIONS: Final = Path(__file__).parent / "migrations"
SYSTEM_CLOCK: Final = SystemClock()


def compose(
    settings: NotifySettings, bus: EventBus, pledges: ServiceClient, *, clock: Clock = SYSTEM_CLOCK
) -> Service:
    """Notify on its database and `bus`; it asks `pledges` for addresses."""
    database = Database(settings.database_url(), MESSAGING_TABLES, synchronous=settings.database_synchronous)
    secret = settings.internal_secret.get_secret_value()
    server = settings.mail_server()
    transport = FolderTransport(settings.data_dir / "receipts") if server is None else SmtpTransport(server)
    sender = parse_sender(settings.receipt_from)
    receipts = ReceiptSender(
        database,
        pledges,
        secret,
        transport,
        sender,
        settings.receipts_per_s,
        clock,
        parse_time_zone(settings.time_zone),
    )
    consumer = Consumer("notify", bus, ["drive-log"], HANDLERS, database)
    app = new_app("notify", secret)
    _install(app, database, consumer)
    add_routes(app, dead_letter_routes(DeadLetters("notify", bus, database)))
    add_routes(app, trace_routes(database))
    add_health(app, database.is_responding)
    return Service(
        "notify",
        app,
        workers=[
            Worker("notify.relay", Relay("notify", database, bus, topics=[]).run),
            Worker("notify.consumer", consumer.run),
            Worker("notify.receipts", database.run_as_leader("notify.receipts", receipts.run)),
            pruning_worker("notify", {"inbox": partial(inbox.delete_expired, database)}),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=database.close,
    )


def _install(app: FastAPI, database: Database, consumer: Consumer) -> None:
    @app.get("/internal/quiet", include_in_schema=False)
    async def quiet(_who: InternalDep) -> dict[str, int]:
        """All 0 when nothing is on its way here. Receipts owed do not count: they wait on purpose."""
        behind = await consumer.behind()  # first: what is consumed meanwhile may add outbox rows
        async with database.reading() as session:
            counted = select(func.count()).select_from(database.messaging_tables.outbox)
            waiting = (await session.execute(counted)).scalar_one()
        return {"outbox": waiting, "behind": behind}
