"""The composition root of payments."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Gauge

from backbone import idempotency
from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import LONG_TIMEOUT_S, Database
from backbone.http.service_client import ServiceClient
from backbone.messaging import inbox
from backbone.messaging.consumer import Consumer
from backbone.messaging.outbox import Relay
from backbone.periodic import PruneStep, pruning_worker, run_every
from backbone.service import Service, Work, Worker, add_health, new_app
from services.payments.api import Dependencies, add_drained, add_routes, with_webhooks
from services.payments.checkout.expiry import CheckoutExpirer
from services.payments.checkout.pruning import prune_attempts
from services.payments.checkout.worker import CheckoutWorker
from services.payments.drive_owners import DriveOwners
from services.payments.handlers import HANDLERS
from services.payments.processor import Processor
from services.payments.reconciliation.backfill import Backfill
from services.payments.reconciliation.lookups import Reconciler
from services.payments.reconciliation.sweep import Sweeper
from services.payments.recording import estimates, ledger
from services.payments.refunds import RefundService
from services.payments.settings import PaymentsSettings
from services.payments.stripe.client import StripeProcessor
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import MESSAGING_TABLES
from services.payments.webhooks.apply import Applier, oldest_waiting
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.log import IDS_KEPT, prune_applied, prune_texts
from services.payments.webhooks.receive import WebhookStore

MIGRATIONS: Final = Path(__file__).parent / "migrations"
AUDIT_S: Final = 60.0

PRUNE_BATCH: Final = 500
"""Webhooks forgotten in one transaction."""

log = structlog.get_logger()

_AUDITED: Final = Gauge("ataa_ledger_audited_timestamp_seconds", "When the ledger was last compared.")
_DRIFT: Final = Gauge(
    "ataa_ledger_drift_minor_units", "What payments add up to less what the ledger says: 0.", ["currency"]
)


def compose(
    settings: PaymentsSettings,
    bus: EventBus,
    pledges: ServiceClient,
    *,
    clock: Clock | None = None,
    processor: Processor | None = None,
) -> Service:
    """Payments, ready to start. `processor` stands in for Stripe in tests."""
    clock = clock or SystemClock()
    secret = settings.internal_secret.get_secret_value()
    stripe = processor or _stripe(settings)
    database = Database(settings.database_url, MESSAGING_TABLES, synchronous=settings.database_synchronous)
    consumer = Consumer("payments", bus, ["pledges"], HANDLERS, database)
    relay = Relay("payments", database, bus, topics=["payments"], floor=oldest_waiting)
    store = WebhookStore(database, clock)
    ours = OurAccount(settings.livemode, settings.stripe_account, settings.stripe_foreign == "hold")
    pace = RateLimiter(settings.rate_per_s)
    checkouts = CheckoutWorker(
        database,
        stripe,
        pledges,
        secret,
        pace=pace,
        in_flight=settings.stripe_in_flight,
        news=consumer.handled,
        clock=clock,
    )
    refunds = RefundService(
        database, stripe, clock, settings.timeout_s, DriveOwners(pledges, secret).post_internal
    )
    backfill = Backfill(database, stripe, store, clock, settings.backfill_s)
    reconciler = Reconciler(database, stripe, clock, hold_foreign=ours.hold_foreign)
    sweep = Sweeper(database, stripe, pace, clock, **_looks(settings), hold_foreign=ours.hold_foreign)
    door = Dependencies(
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
    add_health(app, database.is_responding)
    add_routes(app, door)
    add_drained(app, door, relay.is_empty, consumer.behind)

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
            _sole(database, "payments.checkouts", checkouts.run),
            _sole(database, "payments.cancelling", CheckoutExpirer(database, stripe, pace, clock).run),
            _sole(database, "payments.refunds", refunds.run),
            _sole(database, "payments.asker", reconciler.run),
            _sole(database, "payments.backfill", backfill.run),
            _sole(database, "payments.sweep", sweep.run),
            Worker("payments.housekeeping", LedgerAudit(database).run),
            _sole(database, "payments.pruning", _pruning(database, clock, settings).run),
        ],
        start=lambda: database.migrate(MIGRATIONS),
        close=close,
    )


def _sole(database: Database, name: str, work: Work) -> Worker:
    """Work of one process at a time, however many replicas there are."""
    return Worker(name, database.run_as_leader(name, work))


def _looks(settings: PaymentsSettings) -> dict[str, float]:
    """How often the sweep looks, and how old an object must be."""
    return {"every_s": settings.sweep_s, "grace_s": settings.sweep_grace_s}


def _pruning(database: Database, clock: Clock, settings: PaymentsSettings) -> Worker:
    """Deletes what no repeat can still ask for, and Stripe's events and attempts past their use."""
    texts_kept = timedelta(days=settings.stripe_events_kept_days)
    ids_kept = max(texts_kept, IDS_KEPT)
    old: dict[str, PruneStep] = {
        "inbox": partial(inbox.delete_expired, database),
        "idempotency": partial(idempotency.delete_expired, database),
        "webhook_texts": lambda: prune_texts(database, clock.now() - texts_kept, PRUNE_BATCH),
        "webhooks": lambda: prune_applied(database, clock.now() - ids_kept, PRUNE_BATCH),
        "attempts": lambda: prune_attempts(database, clock.now()),
    }
    return pruning_worker("payments", old)


def _stripe(settings: PaymentsSettings) -> StripeProcessor:
    return StripeProcessor(
        settings.stripe_api_key.get_secret_value(),
        base=settings.stripe_api_base,
        timeout_s=settings.timeout_s,
        expires_s=settings.checkout_expires_s,
        donor_url=settings.donor_url,
        in_flight=settings.stripe_in_flight,
    )


class LedgerAudit:
    """Compares the ledger with the payments each minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        """Keep house until `stop`."""
        await run_every(AUDIT_S, self.audit, stop)

    async def audit(self) -> dict[str, int]:
        """The ledger's drift, a currency; anything but 0 is reported."""
        async with self._database.reading(timeout_s=LONG_TIMEOUT_S) as session:
            found = await ledger.drift(session)
            await estimates.count(session)
        for currency, units in found.items():
            _DRIFT.labels(currency).set(units)
            if units:
                log.error("ledger.drift", currency=currency, minor_units=units)
        _AUDITED.set_to_current_time()
        return found
