"""A sweep of Stripe's lists: what no webhook told of is found there and recorded as facts.

The backfill asks for events that could not be delivered. An event of a type that the endpoint is not
subscribed to was never to be delivered, so nothing lists it; the refund, dispute or capture itself is
listed. Three looks, each bounded and each going on where it stopped, also in another process:

- recent: what was created since the last look, of each kind;
- past: the intents, refunds and disputes of the last weeks and months, less often, since an intent may be
  paid, a refund fail and a dispute close long after it was created;
- open: the refunds and disputes that our facts say are open, one by one, however old.

Only what was created before the last complete backfill and the oldest webhook not yet applied is
compared: what is missing then is certainly not on its way by itself. What only changed may have changed
a moment ago, so it is read again in the next round, and recorded if our facts still say otherwise.

It makes one call at a time, each when the rate limit admits it, in the order of asking: checkouts that
wait already go first, and a 429 ends the round.
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
from sqlalchemy import select, text

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database, from_microseconds
from services.payments.bisection import bisect
from services.payments.checkout.session_finder import CLOCK_SKEW
from services.payments.domain import FactKind
from services.payments.processor import ListedFact, Processor, ProcessorError, Refused, TooFast
from services.payments.reconciliation.backfill import COMPLETED
from services.payments.reconciliation.comparison import find_differences
from services.payments.reconciliation.endpoint_check import check_endpoints, clear_endpoint_metrics
from services.payments.recording.record import record
from services.payments.statements import upsert
from services.payments.stripe.lists import EVENT_TYPES
from services.payments.stripe.objects import clean
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import CURSORS, FACTS, OPEN_FACTS, SWEEPS, WAITING, WEBHOOKS
from services.payments.wakeups import wait_for

PAGES: Final = 10
"""Of a hundred objects each, a look and round."""

AT_ONCE: Final = 20
"""Objects read one by one, a round."""

MAX_UNCONFIRMED: Final = 1_000
"""Changes that wait to be read again; more are found by the next look at the past."""

OVERLAP: Final = CLOCK_SKEW
"""Each look begins so long before the end of the last one, as far as our clock may differ from Stripe's."""
FIRST_SPAN: Final = timedelta(days=1)
SLOW_PASS_ROUNDS: Final = 12
"""The past and the open ones are looked at once in so many rounds."""

log = structlog.get_logger()

_FOUND: Final = Counter(
    "ataa_stripe_sweep_found_total",
    "Facts at Stripe that no webhook had told of: missing, changed, or unreadable.",
    ["type", "why"],
)
_SWEPT: Final = Gauge(
    "ataa_stripe_swept_timestamp_seconds",
    "Up to when Stripe's lists were compared with our facts.",
    ["type"],
)
for _kind in EVENT_TYPES:
    for _why in ("missing", "changed", "unreadable"):
        _FOUND.labels(_kind, _why)  # a series that began with its first find would show no rise


@dataclass(frozen=True, slots=True)
class SweepPass:
    """One of the looks: over `span` again and again, or on from where the last one ended (None)."""

    name: str
    kind: FactKind
    span: timedelta | None = None


# Captures first: a refund whose capture is unknown is placed once that is known.
PASSES: Final = (
    SweepPass("capture", FactKind.CAPTURE),
    SweepPass("refund", FactKind.REFUND),
    SweepPass("dispute", FactKind.DISPUTE),
    # An intent is listed by when it was made: another card may pay it until its session ends, and a bank
    # debit takes up to 14 business days (docs.stripe.com/payments/bank-debits).
    SweepPass("capture.past", FactKind.CAPTURE, timedelta(days=30)),
    # A refund may fail up to 30 days after it succeeded (docs.stripe.com/refunds#failed-refunds); a
    # dispute takes two to three months (docs.stripe.com/disputes/how-disputes-work).
    SweepPass("refund.past", FactKind.REFUND, timedelta(days=45)),
    SweepPass("dispute.past", FactKind.DISPUTE, timedelta(days=180)),
)
OPEN: Final = "open"


class Sweeper:
    """Sweeps every `every_s`, in one process of several; `grace_s` is how old an object must be."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        pace: RateLimiter,
        clock: Clock,
        *,
        every_s: float,
        grace_s: float,
        hold_foreign: bool = False,
    ) -> None:
        self._database = database
        self._processor = processor
        self._pace = pace
        self._clock = clock
        self._every_s = every_s
        self._grace = timedelta(seconds=grace_s)
        self._seldom = timedelta(seconds=SLOW_PASS_ROUNDS * every_s)
        self._hold_foreign = hold_foreign
        self._told: set[tuple[str, str]] = set()
        self._unconfirmed: dict[str, FactKind] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until `stop`; now and then, and at the start, check the webhook endpoint too."""
        rounds = 0
        try:
            while not stop.is_set():
                if rounds % SLOW_PASS_ROUNDS == 0:
                    await self._pace.acquire()
                    await check_endpoints(self._processor)
                await self.sweep()
                rounds += 1
                await wait_for(stop, self._every_s)
        finally:
            clear_endpoint_metrics()

    async def sweep(self) -> None:
        """One round; what Stripe does not answer is asked again in the next."""
        horizon = await self._horizon()
        if horizon is None:
            return
        parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("doubtful", self._read_unconfirmed),
            *((look.name, partial(self._look, look, horizon)) for look in PASSES),
            (OPEN, self._read_open),
        ]
        for name, part in parts:
            try:
                await part()
            except ProcessorError as error:
                log.warning("sweep.failed", look=name, reason=str(error))
                if isinstance(error, TooFast):
                    return  # the limit is the whole account's: what is left belongs to the checkouts

    async def _horizon(self) -> datetime | None:
        """Up to when everything that is to come by webhook has come; None before the first backfill."""
        waiting = (
            select(WEBHOOKS.c.received_at)
            .where(WEBHOOKS.c.state == WAITING)
            .order_by(WEBHOOKS.c.number)
            .limit(1)
        )
        async with self._database.reading() as session:
            backfilled = (
                await session.execute(select(CURSORS.c.cursor).where(CURSORS.c.name == COMPLETED))
            ).scalar()
            oldest: datetime | None = (await session.execute(waiting)).scalar()
        if backfilled is None:
            return None
        known = min(self._clock.now(), from_microseconds(backfilled))
        return (known if oldest is None else min(known, oldest)) - self._grace

    async def _look(self, look: SweepPass, horizon: datetime) -> None:
        """Go on with a look, or begin it where it is due; at most `PAGES` pages."""
        progress = await self._progress(look.name)
        under_way = progress if progress and progress["until"] else self._begun(look, progress, horizon)
        if under_way is None:
            return
        for _ in range(PAGES):
            await self._read_page(look, under_way)
            if under_way["after"] is None:
                under_way |= {"swept_to": under_way["until"], "since": None, "until": None}
            crash_point("payments.sweep.after_record")
            await self._keep(under_way)
            if under_way["until"] is None:
                if look.span is None:
                    _SWEPT.labels(look.kind).set(under_way["swept_to"].timestamp())
                return

    def _begun(
        self, look: SweepPass, progress: Mapping[str, Any] | None, horizon: datetime
    ) -> dict[str, Any] | None:
        """A look from its beginning; None where there is nothing new, or it was made a short while ago."""
        now = self._clock.now()
        swept_to = progress["swept_to"] if progress else None
        if look.span is not None:
            if progress and now - progress["begun_at"] < self._seldom:
                return None
            since = horizon - look.span
        else:
            if swept_to is not None and swept_to >= horizon:
                return None
            since = (horizon - FIRST_SPAN if swept_to is None else swept_to) - OVERLAP
        return {
            "name": look.name, "since": since, "until": horizon, "after": None, "swept_to": swept_to,
            "begun_at": now,
        }  # fmt: skip

    async def _read_page(self, look: SweepPass, under_way: dict[str, Any]) -> None:
        await self._pace.acquire()
        try:
            page = await self._processor.list_facts(
                look.kind, under_way["since"], under_way["until"], under_way["after"]
            )
        except Refused:
            if under_way["after"] is None:
                raise
            # The object the page began behind is gone: the look begins anew, what it found is recorded.
            await self._keep(under_way | {"after": None})
            raise
        for reason in page.unreadable:
            self._report(look.kind, "unreadable", reason)
        await self._record(page.facts)
        under_way["after"] = page.after

    async def _read_open(self) -> None:
        """Ask for the refunds and disputes that our facts say are open, some at a time, all in turn."""
        now = self._clock.now()
        progress = await self._progress(OPEN)
        after = progress["after"] if progress else None
        if progress and after is None and now - progress["begun_at"] < self._seldom:
            return
        asked = select(FACTS.c.id, FACTS.c.kind).where(text(f"({OPEN_FACTS})"), FACTS.c.id > (after or ""))
        async with self._database.reading() as session:
            rows = (await session.execute(asked.order_by(FACTS.c.id).limit(AT_ONCE))).all()
        for row in rows:
            await self._record(await self._read(FactKind(row.kind), row.id))
        following = rows[-1].id if len(rows) == AT_ONCE else None
        nothing = dict.fromkeys(("since", "until", "swept_to"))
        await self._keep({"name": OPEN, "after": following, "begun_at": now, **nothing})

    async def _read_unconfirmed(self) -> None:
        """Read again what had changed in an earlier round, and record what still differs."""
        for fact_id, kind in list(self._unconfirmed.items())[:AT_ONCE]:
            facts = await self._read(kind, fact_id)
            await self._record(facts, again=True)
            del self._unconfirmed[fact_id]

    async def _read(self, kind: FactKind, fact_id: str) -> list[ListedFact]:
        await self._pace.acquire()
        fact = await self._processor.read_fact(kind, fact_id)
        return [] if fact is None else [fact]

    async def _record(self, facts: Sequence[ListedFact], *, again: bool = False) -> None:
        """Record what is ours and not known; a change only where it was read `again`."""

        async def commit(some: Sequence[ListedFact]) -> None:
            async with self._database.transaction() as session:
                news = await find_differences(session, some, hold_foreign=self._hold_foreign)
                sure = [(observation, why) for observation, why in news if why == "missing" or again]
                await record(session, [observation for observation, _ in sure], self._clock.now())
                crash_point("payments.sweep.before_commit")
            for observation, why in sure:
                self._report(observation.kind, why, observation.id)
            for observation, why in news:
                if why == "changed" and not again and len(self._unconfirmed) < MAX_UNCONFIRMED:
                    self._unconfirmed[observation.id] = observation.kind

        await bisect(facts, commit, self._give_up)

    async def _give_up(self, fact: ListedFact, error: Exception) -> None:
        """One that no transaction takes is reported; the look goes on without it."""
        log.error(
            "sweep.not_recorded",
            fact=clean(fact.observation.id),
            error=f"{type(error).__name__}: {error}"[:500],
        )
        self._report(fact.observation.kind, "unreadable", fact.observation.id)

    def _report(self, kind: FactKind, why: str, fact: str) -> None:
        """Count a find, and log it once a kind and reason: the cause is the endpoint, not the fact."""
        _FOUND.labels(kind, why).inc()
        if (kind, why) in self._told:
            return
        self._told.add((kind, why))
        types = ", ".join(EVENT_TYPES[kind])
        advice = f"select {types} at the webhook endpoint in Stripe's dashboard"
        if why == "unreadable":
            advice = "look at it in Stripe's dashboard: it is not recorded"
        log.error("sweep.found", kind=kind.value, why=why, fact=clean(fact), advice=advice)

    async def _progress(self, name: str) -> dict[str, Any] | None:
        async with self._database.reading() as session:
            row = (await session.execute(select(SWEEPS).where(SWEEPS.c.name == name))).first()
        return None if row is None else dict(row._mapping)

    async def _keep(self, progress: Mapping[str, Any]) -> None:
        """Remember how far a look has come; if it is lost, the look repeats some pages."""
        told = tuple(column.name for column in SWEEPS.c if column.name != "name")
        async with self._database.lossy_transaction() as session:
            await session.execute(upsert(session, SWEEPS, ("name",), told), [dict(progress)])
