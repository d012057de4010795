"""Applying a batch of stored webhooks in one transaction: facts recorded, lookups scheduled, rows marked.

The order of events and their repetition do not matter (see `domain.merge`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from prometheus_client import Histogram
from sqlalchemy import bindparam, null, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.telemetry import FRESHNESS, STAGE
from services.payments.recording import lookup_requests
from services.payments.recording.record import record
from services.payments.recording.warnings import Warned, record_warnings, report_warnings
from services.payments.screening.record import store_tries
from services.payments.stripe.events import ParsedEvent, read_event, read_try
from services.payments.stripe.objects import NOT_REPORTED
from services.payments.tables import APPLIED, IGNORED, WEBHOOKS
from services.payments.webhooks.foreign import IgnoreReason, OurAccount, count_ignored, ignore_reasons
from services.payments.webhooks.receive import count_webhook, label_of
from services.payments.webhooks.redaction import without_details

REFUNDS_LOOKUP_AFTER: Final = timedelta(seconds=2)
"""The refund's own event usually follows `charge.refunded` within this time."""

_DELAY: Final = Histogram(
    "ataa_webhook_delay_seconds",
    "From Stripe's event to its being applied.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)
_APPLIED: Final = FRESHNESS.labels("applied")
_STAGE: Final = STAGE.labels("applied", "payments")


class StoredWebhook(NamedTuple):
    """The columns of a stored webhook that applying it needs; see `tables.Webhook`."""

    number: int
    event_id: str
    type: str
    body: bytes
    state: int
    tries: int
    created_at: datetime
    received_at: datetime


STORED_WEBHOOK: Final = tuple(WEBHOOKS.c[name] for name in StoredWebhook._fields)
"""The columns to select for a `StoredWebhook`, in its order."""


async def apply_batch(
    database: Database, ours: OurAccount, webhooks: Sequence[StoredWebhook], clock: Clock
) -> None:
    """Apply webhooks in one transaction: all of them, or none where it raises.

    Early fraud warnings are recorded in a transaction before it (`recording/warnings.py`), which changes
    nothing where it is repeated.
    Events that are not for `ours` are marked as ignored.
    """
    now = clock.now()
    events = [json.loads(each.body) for each in webhooks]
    ignored = await ignore_reasons(database, events, ours)
    applied = [event for event, reason in zip(events, ignored, strict=True) if reason is None]
    parsed = [read_event(event) for event in applied]
    tries = [tried for event in applied if (tried := read_try(event)) is not None]
    warned = await _record_warnings(database, _warned(events, ignored), now)
    async with database.transaction() as session:
        observations = [each.observation for each in parsed if each.observation is not None]
        await store_tries(session, [each for each in tries if each.declined])
        unplaced = await record(session, observations, now)
        await store_tries(session, [each for each in tries if not each.declined])
        await _schedule_lookups(session, parsed, unplaced, now)
        await _mark_done(session, webhooks, events, ignored)
        crash_point("payments.applier.before_commit")
    crash_point("payments.applier.after_commit")
    report_warnings(warned)
    done = clock.now()
    for webhook, reason in zip(webhooks, ignored, strict=True):
        _count_done(webhook, reason, done)


def _warned(events: Sequence[Any], ignored: Sequence[IgnoreReason | None]) -> set[str]:
    """The intents that early fraud warnings name. One that looks foreign may concern a lost capture."""
    may_be_ours = [
        event
        for event, reason in zip(events, ignored, strict=True)
        if reason in (None, IgnoreReason.FOREIGN) and event["type"].startswith("radar.")
    ]
    return {each.warned for each in map(read_event, may_be_ours) if each.warned}


async def _record_warnings(database: Database, intents: Collection[str], now: datetime) -> list[Warned]:
    if not intents:
        return []
    async with database.transaction() as session:
        return await record_warnings(session, intents, now)


def _count_done(webhook: StoredWebhook, reason: IgnoreReason | None, done: datetime) -> None:
    if reason is not None:
        count_webhook(webhook.type, "ignored")
        count_ignored(label_of(webhook.type), reason)
        return
    count_webhook(webhook.type, "applied")
    _DELAY.observe(max(0.0, (done - webhook.created_at).total_seconds()))
    _APPLIED.observe(max(0.0, (done - webhook.received_at).total_seconds()))
    _STAGE.observe(max(0.0, (done - webhook.received_at).total_seconds()))


async def _schedule_lookups(
    session: Transaction, parsed: Sequence[ParsedEvent], unplaced: Collection[str], now: datetime
) -> None:
    """Schedule lookups of the refunds that events hint at, and of captures whose intents are unknown."""
    hints: dict[str, int] = {}
    for each in parsed:
        if each.refunds_of:
            known = hints.setdefault(each.refunds_of, each.refunded)
            hints[each.refunds_of] = known if known == each.refunded else NOT_REPORTED
    await lookup_requests.request_refunds_lookup(session, hints, now + REFUNDS_LOOKUP_AFTER)
    await lookup_requests.request_capture_lookups(session, unplaced, now + lookup_requests.UNPLACED_AFTER)


async def _mark_done(
    session: Transaction,
    webhooks: Sequence[StoredWebhook],
    events: Sequence[Any],
    ignored: Sequence[IgnoreReason | None],
) -> None:
    """Mark webhooks as applied or ignored, and remove personal details from those that carry any."""
    unchanged: dict[IgnoreReason | None, list[int]] = {}
    redacted: list[dict[str, Any]] = []
    for webhook, event, reason in zip(webhooks, events, ignored, strict=True):
        if (body := without_details(webhook.body, event)) is not None:
            redacted.append({"at_number": webhook.number, "to_body": body} | _final_values(reason))
        else:
            unchanged.setdefault(reason, []).append(webhook.number)
    for reason, numbers in unchanged.items():
        await session.execute(_MARK_DONE, {"numbers": numbers} | _final_values(reason))
    if redacted:
        await session.execute(_MARK_REDACTED, redacted)


_FINAL: Final[dict[str, Any]] = {
    "state": bindparam("to_state"),
    "reason": bindparam("to_reason"),
    "next_try_at": null(),
}
_MARK_DONE: Final = update(WEBHOOKS).where(one_of(WEBHOOKS.c.number, "numbers")).values(_FINAL)
_MARK_REDACTED: Final = (
    update(WEBHOOKS)
    .where(WEBHOOKS.c.number == bindparam("at_number"))
    .values(_FINAL | {"body": bindparam("to_body")})
)


def _final_values(reason: IgnoreReason | None) -> dict[str, Any]:
    """The values of a webhook that is done: ignored for a reason, or applied."""
    return {
        "to_state": APPLIED if reason is None else IGNORED,
        "to_reason": None if reason is None else reason.value,
    }
