"""The composition root of payments."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

from backbone import idempotency, inbox
from backbone.bus import EventBus
from backbone.clock import Clock, SystemClock
from backbone.consumer import Consumer
from backbone.database import LONG_S, Database
from backbone.outbox import Relay
from backbone.peer import Peer
from backbone.periodic import Step, every, pruning
from backbone.service import Service, Work, Worker, add_health, new_app
from services.payments import doubts, ledger
from services.payments.api import Door, add_quiet, add_routes, with_webhooks
from services.payments.applier import Applier, oldest_waiting
from services.payments.backfill import Backfill
from services.payments.cancelling import Closer
from services.payments.checkouts import CheckoutDesk
from services.payments.foreign import OurAccount
from services.payments.forgetting import forget_attempts
from services.payments.handlers import HANDLERS
from services.payments.owners import DriveOwners
from services.payments.pace import Pace
from services.payments.processor import Processor
from services.payments.questions import Asker
from services.payments.refunds import RefundDesk
from services.payments.settings import PaymentsSettings
from services.payments.stripe_processor import StripeProcessor
from services.payments.sweep import Sweep
from services.payments.tables import DOORS
from services.payments.webhook_log import IDS_KEPT, forget_applied, forget_texts
from services.payments.webhooks import WebhookStore

MIGRATIONS: Final = Path(__file__).parent / "migrations"
AUDIT_S: Final = 60.0

FORGOTTEN_AT_ONCE: Final = 500
"""Webhooks forgotten in one transaction."""

log = structlog.get_logger()

_AUDITED: Final = Gauge("ataa_ledger_audited_timestamp_seconds", "When the ledger was last compared.")
_DRIFT: Final = Gauge(
    "ataa_ledger_drift_minor_units", "What payments add up to less what the ledger says: 0.", ["currency"]
)


def compose(
    settings: PaymentsSettings,
    bus: EventBus,
    pledges: Peer,
    *,
    clock: Clock | None = None,
    processor: Processor | None = None,
) -> Service:
    """Payments, ready to start. `processor` stands in for Stripe in tests."""
    clock = clock or SystemClock()
    secret = settings.internal_secret.get_secret_value()
    stripe = processor or _stripe(settings)
    database = Database(settings.database_url, DOORS, synchronous=settings.database_synchronous)
    consumer = Consumer("payments", bus, ["pledges"], HANDLERS, database)
    relay = Relay("payments", database, bus, topics=["payments"], floor=oldest_waiting)
    store = WebhookStore(database, clock)
    ours = OurAccount(settings.livemode, settings.stripe_account, settings.stripe_foreign == "hold")
    pace = Pace(settings.rate_per_s)
    desk = CheckoutDesk(
        database,
        stripe,
        pledges,
        secret,
        pace=pace,
        in_flight=settings.stripe_in_flight,
        news=consumer.handled,
        clock=clock,
    )
    refunds = RefundDesk(database, stripe, clock, settings.timeout_s, DriveOwners(pledges, secret).ask)
    backfill = Backfill(database, stripe, store, clock, settings.backfill_s)
    asker = Asker(database, stripe, clock, hold_foreign=ours.hold_foreign)
    sweep = Sweep(database, stripe, pace, clock, **_looks(settings), hold_foreign=ours.hold_foreign)
    door = Door(
        database=database,
        store=store,
        refunds=refunds,
        backfill=backfill,
        pace=pace,
        publishable_key=settings.stripe_publishable_key,
        secrets=settings.stripe_webhook_secrets,
        clock=clock,
    )
    app = new_app("payments", secret)
    add_health(app, database.answers)
    add_routes(app, door)
    add_quiet(app, door, relay.empty, consumer.behind)

    async def close() -> None:
        await stripe.close()
        await database.close()

    return Service(
        "payments",
        with_webhooks(app, door),
        workers=[
            Worker("payments.relay", relay.run),
            Worker("payments.consumer", consumer.run),
            _sole(database, "payments.applier", Applier(database, store, clock, ours).run),
            _sole(database, "payments.checkouts", desk.run),
            _sole(database, "payments.cancelling", Closer(database, stripe, pace, clock).run),
            _sole(database, "payments.refunds", refunds.run),
            _sole(database, "payments.asker", asker.run),
            _sole(database, "payments.backfill", backfill.run),
            _sole(database, "payments.sweep", sweep.run),
            Worker("payments.housekeeping", Housekeeping(database).run),
            _sole(database, "payments.pruning", _pruning(database, clock, settings).run),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=close,
    )


def _sole(database: Database, name: str, work: Work) -> Worker:
    """Work of one process at a time, however many replicas there are."""
    return Worker(name, database.alone(name, work))


def _looks(settings: PaymentsSettings) -> dict[str, float]:
    """How often the sweep looks, and how old an object must be."""
    return {"every_s": settings.sweep_s, "grace_s": settings.sweep_grace_s}


def _pruning(database: Database, clock: Clock, settings: PaymentsSettings) -> Worker:
    """Deletes what no repeat can still ask for, and Stripe's events and attempts past their use."""
    texts_kept = timedelta(days=settings.stripe_events_kept_days)
    ids_kept = max(texts_kept, IDS_KEPT)
    old: dict[str, Step] = {
        "inbox": partial(inbox.forget_old, database),
        "idempotency": partial(idempotency.forget_old, database),
        "webhook_texts": lambda: forget_texts(database, clock.now() - texts_kept, FORGOTTEN_AT_ONCE),
        "webhooks": lambda: forget_applied(database, clock.now() - ids_kept, FORGOTTEN_AT_ONCE),
        "attempts": lambda: forget_attempts(database, clock.now()),
    }
    return pruning("payments", old)


def _stripe(settings: PaymentsSettings) -> StripeProcessor:
    return StripeProcessor(
        settings.stripe_api_key.get_secret_value(),
        base=settings.stripe_api_base,
        timeout_s=settings.timeout_s,
        expires_s=settings.checkout_expires_s,
        donor_url=settings.donor_url,
        in_flight=settings.stripe_in_flight,
    )


class Housekeeping:
    """Compares the ledger with the payments each minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        """Keep house until `stop`."""
        await every(AUDIT_S, self.audit, stop)

    async def audit(self) -> dict[str, int]:
        """The ledger's drift, a currency; anything but 0 is reported."""
        async with self._database.reading(within_s=LONG_S) as session:
            found = await ledger.drift(session)
            await doubts.count(session)
        for currency, units in found.items():
            _DRIFT.labels(currency).set(units)
            if units:
                log.error("ledger.drift", currency=currency, minor_units=units)
        _AUDITED.set_to_current_time()
        return found
