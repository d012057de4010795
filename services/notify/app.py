"""Where notify is put together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from sqlalchemy import func, select

from backbone import inbox
from backbone.bus import EventBus
from backbone.caller import InternalDep
from backbone.clock import Clock, SystemClock
from backbone.consumer import Consumer
from backbone.database import Database
from backbone.outbox import Relay
from backbone.peer import Peer
from backbone.periodic import pruning
from backbone.service import Service, Worker, add_health, new_app
from services.notify.handlers import HANDLERS
from services.notify.post import FolderPost, SmtpPost, read_sender
from services.notify.receipts import ReceiptSender
from services.notify.settings import NotifySettings, read_zone
from services.notify.tables import DOORS

MIGRATIONS: Final = Path(__file__).parent / "migrations"
SYSTEM_CLOCK: Final = SystemClock()


def compose(
    settings: NotifySettings, bus: EventBus, pledges: Peer, *, clock: Clock = SYSTEM_CLOCK
) -> Service:
    """Notify on its database and `bus`; it asks `pledges` for addresses."""
    database = Database(settings.database_url(), DOORS, synchronous=settings.database_synchronous)
    secret = settings.internal_secret.get_secret_value()
    server = settings.mail_server()
    post = FolderPost(settings.data_dir / "receipts") if server is None else SmtpPost(server)
    sender = read_sender(settings.receipt_from)
    receipts = ReceiptSender(
        database, pledges, secret, post, sender, settings.receipts_per_s, clock, read_zone(settings.time_zone)
    )
    consumer = Consumer("notify", bus, ["drive-log"], HANDLERS, database)
    app = new_app("notify", secret)
    _install(app, database, consumer)
    add_health(app, database.answers)
    return Service(
        "notify",
        app,
        workers=[
            Worker("notify.relay", Relay("notify", database, bus, topics=[]).run),
            Worker("notify.consumer", consumer.run),
            Worker("notify.receipts", database.alone("notify.receipts", receipts.run)),
            pruning("notify", {"inbox": partial(inbox.forget_old, database)}),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=database.close,
    )


def _install(app: FastAPI, database: Database, consumer: Consumer) -> None:
    @app.get("/internal/quiet", include_in_schema=False)
    async def quiet(_who: InternalDep) -> dict[str, int]:
        """All 0 when nothing is on its way here. Receipts owed do not count: they wait on purpose."""
        behind = await consumer.behind()  # first: what is heard meanwhile may have to be said
        async with database.reading() as session:
            waiting = await session.scalar(select(func.count()).select_from(database.doors.outbox))
        return {"outbox": waiting or 0, "behind": behind}
