"""The composition root of payments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from backbone import idempotency
from backbone.bus.protocol import EventBus
from backbone.clock import Clock, SystemClock
from backbone.database.database import Database
from backbone.http.service_client import ServiceClient
from backbone.messaging import inbox
from backbone.messaging.consumer import Consumer
from backbone.messaging.dead_letter_routes import dead_letter_routes
from backbone.messaging.dead_letters import DeadLetters
from backbone.messaging.outbox import Relay
from backbone.periodic import PruneStep, pruning_worker
from backbone.service import Service, Work, Worker, add_health, add_routes, new_app
from services.payments import api
from services.payments.admission import api as admission
from services.payments.checkout.expiry import CheckoutExpirer
from services.payments.checkout.pruning import prune_attempts
from services.payments.checkout.worker import CheckoutWorker
from services.payments.creator_lookup import CreatorLookup
from services.payments.disbursements import api as disbursement_api
from services.payments.disbursements.commands import Disbursements
from services.payments.drive_lookup import DriveLookup
from services.payments.handlers import HANDLERS
from services.payments.holding import api as holding
from services.payments.holding.release import Releases
from services.payments.large_refunds import api as large_refunds_api
from services.payments.large_refunds.commands import LargeRefunds
from services.payments.large_refunds.threshold import Threshold
from services.payments.matching import api as matching_api
from services.payments.matching.commands import MatchingPools
from services.payments.offline import api as offline_api
from services.payments.offline import contribution_api
from services.payments.offline.contributions import Contributions
from services.payments.offline.gifts import OfflineGifts
from services.payments.overflow.lane import OverflowLane
from services.payments.overflow.links import LinkPreparer
from services.payments.processor import Processor
from services.payments.proof.composition import compose_proofs
from services.payments.rates import api as rates_api
from services.payments.rates.worker import RateReader
from services.payments.reconciliation.backfill import Backfill
from services.payments.reconciliation.hanging import HangingCheckouts
from services.payments.reconciliation.lookups import Reconciler
from services.payments.reconciliation.sweep import Sweeper
from services.payments.recording.audit import LedgerAudit
from services.payments.refunds import RefundService
from services.payments.screening import api as screening_api
from services.payments.screening.pruning import screening_steps
from services.payments.screening.worker import ScreeningWorker
from services.payments.settings import PaymentsSettings
from services.payments.settlement.worker import Settlement
from services.payments.stripe.client import StripeProcessor
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import MESSAGING_TABLES
from services.payments.treasury import api as treasury
from services.payments.treasury import ledger_api
from services.payments.treasury.ledger_api import LedgerReads
from services.payments.treasury.money_gauges import MoneyGauges
from services.payments.webhooks.apply import Applier
from services.payments.webhooks.endpoint import with_webhooks
from services.payments.webhooks.foreign import OurAccount
from services.payments.webhooks.log import IDS_KEPT, prune_applied, prune_texts
from services.payments.webhooks.receive import WebhookStore
from services.payments.webhooks.watermark import oldest_waiting

MIGRATIONS: Final = Path(__file__).parent / "migrations"
PRUNE_BATCH: Final = 500
"""Webhooks pruned in one transaction."""


def compose(
    settings: PaymentsSettings,
    bus: EventBus,
    pledges: ServiceClient,
    *,
    clock: Clock | None = None,
    processor: Processor | None = None,
    leaderboard: ServiceClient | None = None,
) -> Service:
    """Payments, wired to `bus` and to pledges' API; `processor` replaces Stripe in tests.

    Drives are audited where there is a client of `leaderboard`. Nothing runs before `Service.start`.
    """
    clock = clock or SystemClock()
    secret = settings.internal_secret.get_secret_value()
    stripe = processor or _stripe(settings)
    database = Database(settings.database_url, MESSAGING_TABLES, synchronous=settings.database_synchronous)
    consumer = Consumer("payments", bus, ["pledges"], HANDLERS, database)
    relay = Relay("payments", database, bus, topics=["payments"], floor=oldest_waiting)
    store = WebhookStore(database, clock)
    ours = OurAccount(settings.livemode, settings.stripe_account, settings.stripe_foreign == "hold")
    rate_limiter = RateLimiter(settings.rate_per_s)
    drives = DriveLookup(database, pledges, secret)
    threshold = Threshold(settings.refund_approval_above)
    refunds = RefundService(database, stripe, clock, settings.timeout_s, drives.owner_of, threshold)
    backfill = Backfill(database, stripe, store, clock, settings.backfill_s)
    proofs = compose_proofs(database, stripe, drives, leaderboard, secret, clock, relay.is_empty)
    leader_work: dict[str, Work] = {
        "payments.applier": Applier(database, store, clock, ours).run,
        "payments.checkouts": _checkout_worker(
            settings, database, stripe, pledges, rate_limiter, consumer.handled, clock
        ).run,
        **_overflow(settings, database, stripe, pledges, rate_limiter, clock),
        "payments.cancelling": CheckoutExpirer(database, stripe, rate_limiter, clock).run,
        "payments.refunds": refunds.run,
        "payments.asker": Reconciler(database, stripe, clock, hold_foreign=ours.hold_foreign).run,
        "payments.backfill": backfill.run,
        **_reading_stripe(database, stripe, rate_limiter, clock, settings),
        "payments.rates": RateReader(database, clock, settings.rates, every_s=settings.rates_s).run,
        "payments.gauges": MoneyGauges(database, clock).run,
        "payments.screening": ScreeningWorker(database, clock, enforce=settings.stops_card_testing).run,
        "payments.pruning": _pruning(database, clock, settings).run,
        **proofs.work,
    }

    dependencies = api.Dependencies(
        database=database,
        store=store,
        refunds=refunds,
        backfill=backfill,
        publishable_key=settings.stripe_publishable_key,
        clock=clock,
        outbox_empty=relay.is_empty,
        behind=consumer.behind,
    )
    app = new_app("payments", secret)
    add_health(app, database.is_responding)
    app.include_router(api.routes(dependencies))
    for routes in _money_routes(database, drives, CreatorLookup(pledges, secret), refunds, clock):
        app.include_router(routes)
    app.include_router(proofs.routes)
    add_routes(app, dead_letter_routes(DeadLetters("payments", bus, database)))
    return Service(
        "payments",
        with_webhooks(app, store, settings.stripe_webhook_secrets),
        _workers(database, relay, consumer, leader_work),
        start=lambda: database.migrate(MIGRATIONS),
        close=partial(_close, stripe, database),
    )


def _overflow(
    settings: PaymentsSettings,
    database: Database,
    stripe: Processor,
    pledges: ServiceClient,
    rate_limiter: RateLimiter,
    clock: Clock,
) -> dict[str, Work]:
    """The overflow lane. Where it is off, links that were prepared before are deactivated."""
    secret = settings.internal_secret.get_secret_value()
    preparer = LinkPreparer(
        database, stripe, pledges, secret,
        rate_limiter=rate_limiter, clock=clock, prepares=settings.uses_links,
    )  # fmt: skip
    lane = OverflowLane(
        database, stripe, clock,
        after_s=settings.checkout_overflow_after_s, lifetime_s=settings.checkout_expires_s,
    )  # fmt: skip
    work: dict[str, Work] = {"payments.links": preparer.run}
    return work | {"payments.overflow": lane.run} if settings.uses_links else work


def _reading_stripe(
    database: Database, stripe: Processor, rate_limiter: RateLimiter, clock: Clock, settings: PaymentsSettings
) -> dict[str, Work]:
    """The workers that read Stripe's lists and objects, within the rate limit."""
    hanging = HangingCheckouts(database, stripe, rate_limiter, clock, settings.hanging_grace_s)
    settlement = Settlement(database, stripe, rate_limiter, clock, every_s=settings.settlement_s)
    return {
        "payments.hanging": hanging.run,
        "payments.sweep": _sweeper(database, stripe, rate_limiter, clock, settings).run,
        "payments.settlement": settlement.run,
    }


def _money_routes(
    database: Database, drives: DriveLookup, creators: CreatorLookup, refunds: RefundService, clock: Clock
) -> list[APIRouter]:
    """The routes of everything that treasurers read and decide."""
    return [
        admission.routes(database, clock),
        treasury.routes(database, drives),
        ledger_api.routes(LedgerReads(database, drives, clock)),
        holding.routes(Releases(database, drives, creators, clock), refunds),
        large_refunds_api.routes(LargeRefunds(database, drives, refunds, clock)),
        offline_api.routes(OfflineGifts(database, drives, creators, clock)),
        contribution_api.routes(Contributions(database, drives, creators, clock)),
        matching_api.routes(MatchingPools(database, drives, creators, clock)),
        disbursement_api.routes(Disbursements(database, drives, clock)),
        rates_api.routes(database, clock),
        screening_api.routes(database, clock),
    ]


def _workers(
    database: Database, relay: Relay, consumer: Consumer, leader_work: Mapping[str, Work]
) -> list[Worker]:
    return [
        Worker("payments.relay", relay.run),
        Worker("payments.consumer", consumer.run),
        # One process at a time does this work, however many replicas run.
        *(Worker(name, database.run_as_leader(name, work)) for name, work in leader_work.items()),
        Worker("payments.housekeeping", LedgerAudit(database).run),
    ]


async def _close(stripe: Processor, database: Database) -> None:
    await stripe.close()
    await database.close()


def _checkout_worker(
    settings: PaymentsSettings,
    database: Database,
    stripe: Processor,
    pledges: ServiceClient,
    rate_limiter: RateLimiter,
    new_tickets: asyncio.Event,
    clock: Clock,
) -> CheckoutWorker:
    return CheckoutWorker(
        database,
        stripe,
        pledges,
        settings.internal_secret.get_secret_value(),
        rate_limiter=rate_limiter,
        in_flight=settings.stripe_in_flight,
        news=new_tickets,
        clock=clock,
    )


def _sweeper(
    database: Database, stripe: Processor, rate_limiter: RateLimiter, clock: Clock, settings: PaymentsSettings
) -> Sweeper:
    return Sweeper(
        database,
        stripe,
        rate_limiter,
        clock,
        every_s=settings.sweep_s,
        grace_s=settings.sweep_grace_s,
        hold_foreign=settings.stripe_foreign == "hold",
    )


def _pruning(database: Database, clock: Clock, settings: PaymentsSettings) -> Worker:
    """Deletes rows past their retention; none that a repeated event or request can still refer to."""
    texts_kept = timedelta(days=settings.stripe_events_kept_days)
    ids_kept = max(texts_kept, IDS_KEPT)
    old: dict[str, PruneStep] = {
        "inbox": partial(inbox.delete_expired, database),
        "idempotency": partial(idempotency.delete_expired, database),
        "webhook_texts": lambda: prune_texts(database, clock.now() - texts_kept, PRUNE_BATCH),
        "webhooks": lambda: prune_applied(database, clock.now() - ids_kept, PRUNE_BATCH),
        "attempts": lambda: prune_attempts(database, clock.now()),
        **screening_steps(database, clock),
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
