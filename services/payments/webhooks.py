"""The webhook store: a webhook is a doorbell. Verify, store, answer; then work.

Stripe repeats, reorders and loses webhooks, so storing is by event id, and applying is recording
facts. An event that cannot be applied is set aside with its reason, reported and never lost.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import stripe
import structlog
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database import Database, may_pass
from backbone.group_commit import GroupCommit
from backbone.pace import ROUND_S
from backbone.problems import Problem
from backbone.telemetry import FRESHNESS
from services.payments import questions
from services.payments.commands import record
from services.payments.processor import StoredEvent
from services.payments.statements import inserting_new
from services.payments.stripe_objects import READERS, Reading, Unreadable, read_event, stored
from services.payments.tables import APPLIED, SET_ASIDE, WAITING, WEBHOOKS
from services.payments.waking import wait_for, woken_by

TOLERANCE_S: Final = 300
"""How far a signature's moment may be from ours, either way (Stripe's library bounds the past only)."""

BATCH: Final = 200
GATHER_S: Final = ROUND_S
POLL_S: Final = 1.0
TRIES: Final = 3
RETRY_S: Final = 0.2
SECOND_CHANCE_S: Final = 60.0
"""How often what was set aside is tried again: a capture must not wait for somebody to read a log."""

log = structlog.get_logger()

_WEBHOOKS: Final = Counter("ataa_webhooks_total", "Webhooks at the door and after.", ["type", "result"])
_DELAY: Final = Histogram(
    "ataa_webhook_delay_seconds",
    "From Stripe's event to its being applied.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)

DECLINED: Final = "payment_intent.payment_failed"
"""A card that was refused: no fact of a payment's, but counted."""

_OLDEST: Final = Gauge(
    "ataa_webhooks_oldest_waiting_seconds", "Age of the oldest stored webhook not yet applied."
)
_APPLIED: Final = FRESHNESS.labels("applied")


@cache
def _webhooks(kind: str, result: str) -> Counter:
    """The series of a type and result; looking it up by its labels costs more than counting."""
    return _WEBHOOKS.labels(kind, result)


def _type(name: str) -> str:
    return name if name in READERS or name == DECLINED else "other"


for _name in (*READERS, "other"):
    _webhooks(_name, "set_aside")  # a series that began with its first failure would show no rise


PERSONAL: Final = frozenset(
    (
        "billing_details",
        "collected_information",
        "customer_details",
        "customer_email",
        "receipt_email",
        "shipping",
    )
)
"""A person's details in Stripe's objects; struck out of the store once an event was applied."""


_PERSONAL: Final = re.compile(rb'"(?:%s)":\s*[^\sn]' % b"|".join(name.encode() for name in sorted(PERSONAL)))
"""Finds a detail that is not null, before anything is walked through."""


class BadWebhook(Problem):
    status, slug, title = 400, "bad-webhook", "The webhook is not Stripe's"


def verify(body: bytes, signature: str, secrets: Sequence[str], now: float) -> None:
    """Raises `BadWebhook` unless one of `secrets` signed `body` within TOLERANCE_S of `now`, either way.

    Stripe's scheme: https://docs.stripe.com/webhooks#verify-manually.
    """
    for secret in secrets:
        with suppress(stripe.SignatureVerificationError, ValueError, TypeError, OverflowError):
            stripe.WebhookSignature.verify_header(body, signature, secret)
            if abs(now - _signed_at(signature)) <= TOLERANCE_S:
                return
            raise BadWebhook("Its signature is too old or from the future.")
    raise BadWebhook("Its signature does not fit.")


def _signed_at(signature: str) -> int:
    """The moment the header names; its form was checked before."""
    return next(int(part[2:]) for part in signature.split(",") if part.startswith("t="))


def read_body(body: bytes, *, livemode: bool) -> StoredEvent:
    """The event to store; raises `BadWebhook` for what is no event or belongs to the other mode."""
    try:
        event = json.loads(body)
        kept = stored(event, body)
    except (ValueError, RecursionError, Unreadable) as error:
        raise BadWebhook("It is not an event.") from error
    if event.get("livemode") is not livemode:
        raise BadWebhook("It belongs to the other mode, live or test.")
    return kept


class WebhookStore:
    """Takes events in, each once, many in one transaction; `news` is set when there is work."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.news = asyncio.Event()
        self._intake: GroupCommit[StoredEvent, bool] = GroupCommit(self._commit)

    async def keep(self, event: StoredEvent) -> bool:
        """Store an event; False where it was there before. Durable when it returns."""
        return await self._intake.submit(event)

    async def keep_all(self, events: Sequence[StoredEvent]) -> int:
        """Store listed events; how many were new."""
        return sum(await self._commit(events)) if events else 0

    async def _commit(self, events: Sequence[StoredEvent]) -> list[bool]:
        received_at = self._clock.now()
        unique = {event.id: event for event in events}
        rows = [
            {"event_id": event.id, "type": event.type, "body": event.body, "state": WAITING, "tries": 0,
             "created_at": event.created_at, "received_at": received_at}
            for event in unique.values()
        ]  # fmt: skip
        async with self._database.transaction() as session:
            made = await session.execute(inserting_new(session, WEBHOOKS, "event_id"), rows)
            new = {row.event_id for row in made}
        if new:
            self.news.set()
        return [_was_new(event, new) for event in events]


def _was_new(event: StoredEvent, new: set[str]) -> bool:
    """Whether this is the first of its id; further copies in the same batch are repeats."""
    first = event.id in new
    new.discard(event.id)
    _webhooks(_type(event.type), "stored" if first else "repeat").inc()
    return first


class Applier:
    """Applies stored webhooks in the order of their arrival, in batches of one transaction each."""

    def __init__(self, database: Database, store: WebhookStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._gather = False
        self._chance_at = float("-inf")
        self.applied = asyncio.Event()
        """Set after every batch."""

    async def run(self, stop: asyncio.Event) -> None:
        """Apply until `stop`."""
        async with woken_by(stop, self._store.news):
            while not stop.is_set():
                self._store.news.clear()
                await self._give_second_chances()
                if not await self.apply_waiting():
                    await wait_for(self._store.news, POLL_S)
                    if self._gather:
                        # Under load a short wait makes batches, which cost far less an event.
                        await asyncio.sleep(GATHER_S)

    async def _give_second_chances(self) -> None:
        """Once a minute, and at the start, let all that was set aside wait for its turn again."""
        now = asyncio.get_running_loop().time()
        if now - self._chance_at < SECOND_CHANCE_S:
            return
        self._chance_at = now
        async with self._database.transaction() as session:
            await session.execute(update(WEBHOOKS).where(WEBHOOKS.c.state == SET_ASIDE).values(state=WAITING))

    async def apply_waiting(self) -> int:
        """Apply the next batch; how many there were. One that fails is tried again, one event at a time."""
        async with self._database.reading() as session:
            rows = (
                await session.execute(
                    select(WEBHOOKS)
                    .where(WEBHOOKS.c.state == WAITING)
                    .order_by(WEBHOOKS.c.number)
                    .limit(BATCH)
                )
            ).all()
        self._gather = len(rows) > 4
        if rows:
            await self._apply_or_halve(rows)
            self.applied.set()
        return len(rows)

    async def _apply_or_halve(self, rows: Sequence[Row[Any]]) -> None:
        try:
            await self._apply(rows)
        except Exception as error:
            if may_pass(error):
                raise  # the database is away: nothing can be recorded, not even a failure
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._apply_or_halve(rows[:middle])
                await self._apply_or_halve(rows[middle:])
                return
            await self._note_failure(rows[0], error)

    async def _apply(self, rows: Sequence[Row[Any]]) -> None:
        now = self._clock.now()
        events = [json.loads(row.body) for row in rows]
        readings = [read_event(event) for event in events]
        async with self._database.transaction() as session:
            await record(session, [each.finding for each in readings if each.finding is not None], now)
            await _ask_about(session, readings, now)
            await _mark_applied(session, rows, events)
            crash_point("payments.applier.before_commit")
        crash_point("payments.applier.after_commit")
        done = self._clock.now()
        for row in rows:
            _webhooks(_type(row.type), "applied").inc()
            _DELAY.observe(max(0.0, (done - row.created_at).total_seconds()))
            _APPLIED.observe(max(0.0, (done - row.received_at).total_seconds()))

    async def _note_failure(self, row: Row[Any], error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:2000]
        tries = row.tries + 1
        aside = tries >= TRIES or isinstance(error, Unreadable)
        async with self._database.transaction() as session:
            await session.execute(
                update(WEBHOOKS)
                .where(WEBHOOKS.c.number == row.number, WEBHOOKS.c.state == WAITING)
                .values(tries=tries, reason=reason, state=SET_ASIDE if aside else WAITING)
            )
        _webhooks(_type(row.type), "set_aside" if aside else "failed").inc()
        log.error("webhook.failed", event_id=row.event_id, type=row.type, set_aside=aside, reason=reason)
        if not aside:
            await asyncio.sleep(RETRY_S * tries)


async def _ask_about(session: AsyncSession, readings: Sequence[Reading], now: datetime) -> None:
    """Note what Stripe is to be asked: refunds it hinted at, captures of facts nobody can place."""
    hints = {each.refunds_of: each.refunded for each in readings if each.refunds_of}
    await questions.ask_refunds(session, hints, now + timedelta(seconds=2))
    placed = {each.finding.intent for each in readings if each.finding is not None and each.finding.intent}
    await questions.ask_unplaced(session, placed, now + timedelta(minutes=10))


async def _mark_applied(session: AsyncSession, rows: Sequence[Row[Any]], events: Sequence[Any]) -> None:
    """Mark webhooks applied, and strike out people's details where there are any."""
    bare: list[int] = []
    struck: list[dict[str, Any]] = []
    for row, event in zip(rows, events, strict=True):
        if (body := without_details(row.body, event)) is not None:
            struck.append({"at_number": row.number, "to_body": body})
        else:
            bare.append(row.number)
    if bare:
        await session.execute(update(WEBHOOKS).where(WEBHOOKS.c.number.in_(bare)).values(state=APPLIED))
    if struck:
        await session.execute(
            update(WEBHOOKS)
            .where(WEBHOOKS.c.number == bindparam("at_number"))
            .values(state=APPLIED, body=bindparam("to_body")),
            struck,
        )


def without_details(body: bytes, event: dict[str, Any]) -> bytes | None:
    """The event without a person's details, which are emptied in `event` too; None where it has none."""
    if _PERSONAL.search(body) is None:
        return None
    _strike_out(event["data"]["object"])
    bare = json.dumps(event, separators=(",", ":")).encode()
    if _PERSONAL.search(bare) is not None:
        _strike_out_everywhere(event)
        bare = json.dumps(event, separators=(",", ":")).encode()
    return bare


def _strike_out(thing: dict[str, Any]) -> None:
    for name in PERSONAL & thing.keys():
        thing[name] = None


def _strike_out_everywhere(thing: Any) -> None:
    if isinstance(thing, dict):
        _strike_out(thing)
    for each in thing.values() if isinstance(thing, dict) else thing:
        if isinstance(each, dict | list):
            _strike_out_everywhere(each)


async def oldest_waiting(session: AsyncSession) -> datetime | None:
    """When the oldest webhook not yet applied was received: no watermark may be later."""
    row = (
        await session.execute(
            select(WEBHOOKS.c.received_at)
            .where(WEBHOOKS.c.state == WAITING)
            .order_by(WEBHOOKS.c.number)
            .limit(1)
        )
    ).first()
    oldest: datetime | None = None if row is None else row.received_at
    # As an age at the time of asking: whoever has stopped applying has perhaps stopped reading too.
    _OLDEST.set_function(lambda: 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds())
    return oldest


def now_s() -> float:
    """Unix time, as signatures count it."""
    return time.time()
