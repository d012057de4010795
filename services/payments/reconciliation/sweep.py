"""The sweep of Stripe's lists: it records facts that no webhook has reported.

The backfill lists events whose delivery failed. Stripe sends no event of a type that the endpoint is not
subscribed to, so no list of events contains it; the refund, dispute or capture itself is listed. There are
three kinds of pass. Each is bounded and resumes where it stopped, also in another process:

- recent: the objects created since the last pass, of each kind;
- past: the intents, refunds and disputes of the last weeks and months, less often, because an intent may be
  paid, a refund fail and a dispute close long after its creation;
- open: the refunds and disputes that are open by the stored facts, one by one, however old.

Only objects created before the last complete backfill and before the oldest webhook not yet applied are
compared: most of their webhooks are applied. An object that differs from its stored fact may have changed
just now. It is read again in the next round, and recorded if it still differs. What is recorded is reported
unless a webhook that names it was waiting when the round began, or came later: an intent is paid after its
creation, and after an outage the backfill stores webhooks of old objects.

The sweep makes one call at a time, through the rate limiter, which admits calls in order: checkouts that
wait already go first. A 429 ends the round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import bindparam, func, select, text

from backbone.bisection import bisect
from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.columns import from_microseconds
from backbone.database.database import Database
from backbone.wakeups import wait_for
from services.payments.checkout.session_finder import CLOCK_SKEW
from services.payments.domain import FactKind
from services.payments.processor import ListedFact, Processor, ProcessorError, Refused, TooFast
from services.payments.reconciliation.backfill import COMPLETED
from services.payments.reconciliation.comparison import find_differences, unnamed_by_webhooks
from services.payments.reconciliation.endpoint_check import check_endpoints, clear_endpoint_metrics
from services.payments.recording.record import record
from services.payments.statements import upsert
from services.payments.stripe.lists import EVENT_TYPES
from services.payments.stripe.objects import clean
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import CURSORS, FACTS, OPEN_FACTS, SWEEPS, WAITING, WEBHOOKS

PAGES: Final = 10
"""Pages of 100 objects that one pass reads in a round."""

READ_BATCH: Final = 20
"""Objects read one by one in a round."""

MAX_UNCONFIRMED: Final = 1_000
"""Differences that wait to be read again; further ones are found by the next past pass."""

OVERLAP: Final = CLOCK_SKEW
"""A recent pass begins this long before the end of the last one: our clock may differ from Stripe's."""
FIRST_SPAN: Final = timedelta(days=1)
SLOW_PASS_ROUNDS: Final = 12
"""The past and open passes run once in this many rounds."""

log = structlog.get_logger()

_PROGRESS: Final = select(SWEEPS).where(SWEEPS.c.name == bindparam("of_name"))
_FOLLOWING: Final = select(func.coalesce(func.max(WEBHOOKS.c.number), 0) + 1)
_FOUND: Final = Counter(
    "ataa_stripe_sweep_found_total",
    "Facts at Stripe that no webhook has reported: missing, changed, or unreadable.",
    ["type", "why"],
)
_SWEPT: Final = Gauge(
    "ataa_stripe_swept_timestamp_seconds",
    "Time up to which Stripe's lists were compared with our facts.",
    ["type"],
)
# Created at import: a series that begins with its first find shows no increase.
for _kind in EVENT_TYPES:
    for _why in ("missing", "changed", "unreadable"):
        _FOUND.labels(_kind, _why)


@dataclass(frozen=True, slots=True)
class SweepPass:
    """A pass over the objects of one kind: the last `span`, or those since the last pass (None)."""

    name: str
    kind: FactKind
    span: timedelta | None = None


# Captures first, so that their refunds and disputes find their payments.
PASSES: Final = (
    SweepPass("capture", FactKind.CAPTURE),
    SweepPass("refund", FactKind.REFUND),
    SweepPass("dispute", FactKind.DISPUTE),
    # An intent is listed by its creation time: another card may pay it until its session ends, and a bank
    # debit takes up to 14 business days (docs.stripe.com/payments/bank-debits).
    SweepPass("capture.past", FactKind.CAPTURE, timedelta(days=30)),
    # A refund may fail up to 30 days after it succeeded (docs.stripe.com/refunds#failed-refunds); a
    # dispute takes two to three months (docs.stripe.com/disputes/how-disputes-work).
    SweepPass("refund.past", FactKind.REFUND, timedelta(days=45)),
    SweepPass("dispute.past", FactKind.DISPUTE, timedelta(days=180)),
)
OPEN: Final = "open"


class Sweeper:
    """Sweeps every `every_s`, in one process at a time; objects younger than `grace_s` are not compared."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        rate_limiter: RateLimiter,
        clock: Clock,
        *,
        every_s: float,
        grace_s: float,
        hold_foreign: bool = False,
    ) -> None:
        self._database = database
        self._processor = processor
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._every_s = every_s
        self._grace = timedelta(seconds=grace_s)
        self._seldom = timedelta(seconds=SLOW_PASS_ROUNDS * every_s)
        self._hold_foreign = hold_foreign
        self._reported: set[tuple[str, str]] = set()
        self._unconfirmed: dict[str, FactKind] = {}
        self._applied_below = 0
        """Webhooks with a lower number were applied when the round began."""

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`; check the webhook endpoints at the start and every `SLOW_PASS_ROUNDS`."""
        rounds = 0
        try:
            while not stop.is_set():
                if rounds % SLOW_PASS_ROUNDS == 0:
                    await self._rate_limiter.acquire()
                    await check_endpoints(self._processor)
                await self.sweep()
                rounds += 1
                await wait_for(stop, self._every_s)
        finally:
            clear_endpoint_metrics()

    async def sweep(self) -> None:
        """One round; calls that fail are repeated in the next round."""
        horizon = await self._horizon()
        if horizon is None:
            return
        passes: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("unconfirmed", self._read_unconfirmed),
            *((each.name, partial(self._run_pass, each, horizon)) for each in PASSES),
            (OPEN, self._read_open),
        ]
        for name, run in passes:
            try:
                await run()
            except ProcessorError as error:
                log.warning("sweep.failed", sweep_pass=name, reason=str(error))
                if isinstance(error, TooFast):
                    return  # the limit is the account's: the remaining capacity is for checkouts

    async def _horizon(self) -> datetime | None:
        """The time up to which all delivered webhooks are applied; None before the first backfill."""
        waiting = (
            select(WEBHOOKS.c.number, WEBHOOKS.c.received_at)
            .where(WEBHOOKS.c.state == WAITING)
            .order_by(WEBHOOKS.c.number)
            .limit(1)
        )
        async with self._database.reading() as session:
            backfilled = (
                await session.execute(select(CURSORS.c.cursor).where(CURSORS.c.name == COMPLETED))
            ).scalar()
            following: int = (await session.execute(_FOLLOWING)).scalar_one()
            oldest = (await session.execute(waiting)).first()
        self._applied_below = following if oldest is None else oldest.number
        if backfilled is None:
            return None
        known = min(self._clock.now(), from_microseconds(backfilled))
        return (known if oldest is None else min(known, oldest.received_at)) - self._grace

    async def _run_pass(self, sweep_pass: SweepPass, horizon: datetime) -> None:
        """Continue a pass, or begin it where it is due; at most `PAGES` pages."""
        progress = await self._progress(sweep_pass.name)
        under_way = progress if progress and progress["until"] else self._begin(sweep_pass, progress, horizon)
        if under_way is None:
            return
        for _ in range(PAGES):
            await self._read_page(sweep_pass, under_way)
            if under_way["after"] is None:
                under_way |= {"swept_to": under_way["until"], "since": None, "until": None}
            crash_point("payments.sweep.after_record")
            await self._save(under_way)
            if under_way["until"] is None:
                if sweep_pass.span is None:
                    _SWEPT.labels(sweep_pass.kind).set(under_way["swept_to"].timestamp())
                return

    def _begin(
        self, sweep_pass: SweepPass, progress: Mapping[str, Any] | None, horizon: datetime
    ) -> dict[str, Any] | None:
        """A new pass; None where nothing is new, or a past pass is not due."""
        now = self._clock.now()
        swept_to = progress["swept_to"] if progress else None
        if sweep_pass.span is not None:
            if progress and now - progress["begun_at"] < self._seldom:
                return None
            since = horizon - sweep_pass.span
        else:
            if swept_to is not None and swept_to >= horizon:
                return None
            since = (horizon - FIRST_SPAN if swept_to is None else swept_to) - OVERLAP
        return {
            "name": sweep_pass.name, "since": since, "until": horizon, "after": None, "swept_to": swept_to,
            "begun_at": now,
        }  # fmt: skip

    async def _read_page(self, sweep_pass: SweepPass, under_way: dict[str, Any]) -> None:
        await self._rate_limiter.acquire()
        try:
            page = await self._processor.list_facts(
                sweep_pass.kind, under_way["since"], under_way["until"], under_way["after"]
            )
        except Refused:
            if under_way["after"] is None:
                raise
            # The object that the page begins after is gone: the pass restarts. What it found is recorded.
            await self._save(under_way | {"after": None})
            raise
        self._rate_limiter.succeeded()
        for reason in page.unreadable:
            self._report(sweep_pass.kind, "unreadable", reason)
        await self._record(page.facts)
        under_way["after"] = page.after

    async def _read_open(self) -> None:
        """Read the next refunds and disputes that are open by the stored facts."""
        now = self._clock.now()
        progress = await self._progress(OPEN)
        after = progress["after"] if progress else None
        if progress and after is None and now - progress["begun_at"] < self._seldom:
            return
        still_open = select(FACTS.c.id, FACTS.c.kind).where(
            text(f"({OPEN_FACTS})"), FACTS.c.id > (after or "")
        )
        async with self._database.reading() as session:
            rows = (await session.execute(still_open.order_by(FACTS.c.id).limit(READ_BATCH))).all()
        for row in rows:
            await self._record(await self._read(FactKind(row.kind), row.id))
        following = rows[-1].id if len(rows) == READ_BATCH else None
        nothing = dict.fromkeys(("since", "until", "swept_to"))
        await self._save({"name": OPEN, "after": following, "begun_at": now, **nothing})

    async def _read_unconfirmed(self) -> None:
        """Read the objects that differed in an earlier round again, and record those that still differ."""
        for fact_id, kind in list(self._unconfirmed.items())[:READ_BATCH]:
            facts = await self._read(kind, fact_id)
            await self._record(facts, again=True)
            del self._unconfirmed[fact_id]

    async def _read(self, kind: FactKind, fact_id: str) -> list[ListedFact]:
        await self._rate_limiter.acquire()
        fact = await self._processor.read_fact(kind, fact_id)
        self._rate_limiter.succeeded()
        return [] if fact is None else [fact]

    async def _record(self, facts: Sequence[ListedFact], *, again: bool = False) -> None:
        """Record missing facts of ours; record changed ones only where they were read `again`."""

        async def commit(batch: Sequence[ListedFact]) -> None:
            async with self._database.transaction() as session:
                differences = await find_differences(session, batch, hold_foreign=self._hold_foreign)
                confirmed = [
                    (observation, why) for observation, why in differences if why == "missing" or again
                ]
                missed = await unnamed_by_webhooks(
                    session, [observation.id for observation, _ in confirmed], self._applied_below
                )
                await record(session, [observation for observation, _ in confirmed], self._clock.now())
                crash_point("payments.sweep.before_commit")
            for observation, why in confirmed:
                if observation.id in missed:
                    self._report(observation.kind, why, observation.id)
            for observation, why in differences:
                if why == "changed" and not again and len(self._unconfirmed) < MAX_UNCONFIRMED:
                    self._unconfirmed[observation.id] = observation.kind

        await bisect(facts, commit, self._give_up)

    async def _give_up(self, fact: ListedFact, error: Exception) -> None:
        """Report an object that cannot be stored; the pass continues without it."""
        log.error(
            "sweep.not_recorded",
            fact=clean(fact.observation.id),
            error=f"{type(error).__name__}: {error}"[:500],
        )
        self._report(fact.observation.kind, "unreadable", fact.observation.id)

    def _report(self, kind: FactKind, why: str, fact: str) -> None:
        """Count a find, and log the first of each kind and reason: their cause is usually the endpoint."""
        _FOUND.labels(kind, why).inc()
        if (kind, why) in self._reported:
            return
        self._reported.add((kind, why))
        types = ", ".join(EVENT_TYPES[kind])
        advice = f"select {types} at the webhook endpoint in Stripe's dashboard"
        if why == "unreadable":
            advice = "inspect it in Stripe's dashboard: it is not recorded"
        log.error("sweep.found", kind=kind.value, why=why, fact=clean(fact), advice=advice)

    async def _progress(self, name: str) -> dict[str, Any] | None:
        async with self._database.reading() as session:
            row = (await session.execute(_PROGRESS, {"of_name": name})).first()
        return None if row is None else dict(row._mapping)

    async def _save(self, progress: Mapping[str, Any]) -> None:
        """Store a pass's progress. If a power cut loses it, the pass repeats some pages."""
        updated = tuple(column.name for column in SWEEPS.c if column.name != "name")
        async with self._database.lossy_transaction() as session:
            await session.execute(upsert(session, SWEEPS, ("name",), updated), [dict(progress)])
