"""Receiving webhooks: verify the signature, store the event, answer. `apply.py` applies it later.

Stripe repeats, reorders and loses webhooks, so events are stored by their id.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final

import stripe
from prometheus_client import Counter

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.group_commit import GroupCommit
from backbone.http.problems import Problem
from backbone.telemetry import STAGE
from services.payments.processor import ProcessorEvent
from services.payments.statements import insert_new
from services.payments.stripe.events import READERS, stored
from services.payments.stripe.objects import Unreadable
from services.payments.tables import WAITING, WEBHOOKS

TOLERANCE_S: Final = 300
"""How far a signature's timestamp may differ from our clock; Stripe's library bounds the past only."""

_STORED: Final = STAGE.labels("stored", "payments")
_WEBHOOKS: Final = Counter(
    "ataa_webhooks_total", "Webhooks received and what became of them.", ["type", "result"]
)


@cache
def _webhooks(kind: str, result: str) -> Counter:
    """The series of a type and result, cached: `labels` is slower than the increment itself."""
    return _WEBHOOKS.labels(kind, result)


def label_of(event_type: str) -> str:
    """The metrics' label of an event type: types that report nothing are `other`."""
    return event_type if event_type in READERS else "other"


def count_webhook(event_type: str, result: str) -> None:
    """Count what became of a webhook."""
    _webhooks(label_of(event_type), result).inc()


for _name in (*READERS, "other"):
    _webhooks(
        _name, "set_aside"
    )  # created at import: a series that begins with its first failure shows no increase


class BadWebhook(Problem):
    status, slug, title = 400, "bad-webhook", "Invalid webhook"


def verify(body: bytes, signature: str, secrets: Sequence[str], now: float) -> None:
    """Raises `BadWebhook` unless one of `secrets` signed `body` within TOLERANCE_S of `now`, either way.

    Stripe's scheme: https://docs.stripe.com/webhooks#verify-manually.
    """
    for secret in secrets:
        with suppress(stripe.SignatureVerificationError, ValueError, TypeError, OverflowError):
            stripe.WebhookSignature.verify_header(body, signature, secret)
            if abs(now - _signed_at(signature)) <= TOLERANCE_S:
                return
            raise BadWebhook(
                f"The signature's timestamp differs from our clock by more than {TOLERANCE_S} s."
            )
    raise BadWebhook("The signature matches none of the webhook secrets.")


def _signed_at(signature: str) -> int:
    """The timestamp in the header, whose form was checked before."""
    return next(int(part[2:]) for part in signature.split(",") if part.startswith("t="))


def read_body(body: bytes) -> ProcessorEvent:
    """The event to store; raises `BadWebhook` for a body that is no event.

    Whether it is for us is decided when it is applied: Stripe disables an endpoint that refuses events.
    """
    try:
        return stored(json.loads(body), body)
    except (ValueError, RecursionError, Unreadable) as error:
        raise BadWebhook("The body is not a Stripe event.") from error


class WebhookStore:
    """Stores events, each once, many in one transaction; sets `news` when new events are stored."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.news = asyncio.Event()
        self._intake: GroupCommit[ProcessorEvent, bool] = GroupCommit(self._commit)

    async def keep(self, event: ProcessorEvent) -> bool:
        """Store an event; False where it was stored before. Durable when it returns."""
        began = time.monotonic()
        kept = await self._intake.submit(event)
        _STORED.observe(time.monotonic() - began)
        return kept

    async def keep_all(self, events: Sequence[ProcessorEvent]) -> int:
        """Store listed events in one transaction; returns how many were new."""
        return sum(await self._commit(events)) if events else 0

    async def _commit(self, events: Sequence[ProcessorEvent]) -> list[bool]:
        received_at = self._clock.now()
        unique = {event.id: event for event in events}
        rows = [
            {"event_id": event.id, "type": event.type, "body": event.body, "state": WAITING, "tries": 0,
             "created_at": event.created_at, "received_at": received_at}
            for event in unique.values()
        ]  # fmt: skip
        async with self._database.transaction() as session:
            made = await session.execute(insert_new(session, WEBHOOKS, "event_id"), rows)
            new = {row.event_id for row in made}
        if new:
            self.news.set()
        return [_was_new(event, new) for event in events]


def _was_new(event: ProcessorEvent, new: set[str]) -> bool:
    """Whether this is the first event of its id; further copies in the same batch are repeats."""
    first = event.id in new
    new.discard(event.id)
    count_webhook(event.type, "stored" if first else "repeat")
    return first


def now_s() -> float:
    """Unix time in seconds, as in signatures."""
    return time.time()
