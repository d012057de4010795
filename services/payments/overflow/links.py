"""Preparing Payment Links: one for each menu amount of a live drive, created before anybody needs it.

A link is stored with its exact parameters before the call, and resent verbatim under its key until the
outcome is known. A link that a lost response leaves behind at Stripe is harmless: no donor has its address.

Links are deactivated when their drive is live no more, once every checkout that was given one has ended: an
open checkout of a paused or closed drive can be paid. They are activated again with their drive.

Calls pass the rate limiter. While pledges wait for checkouts, there is at most one in `WHILE_WAITING_S`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Boolean, Row, and_, bindparam, exists, or_, select, text, update

from backbone.clock import Clock
from backbone.contracts.pledges import DriveState
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.durable_work import DurableWork, Failed, Failure, exponential
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import Money
from services.payments.overflow.menu import link_amounts
from services.payments.overflow.references import new_secret
from services.payments.overflow.tables import LINKS, UNSETTLED
from services.payments.processor import LinkRequest, Processor, ProcessorError, Refused, TooFast
from services.payments.statements import insert_new
from services.payments.stripe.rate_limiter import RateLimiter
from services.payments.tables import DRIVES, PAYMENTS, TICKETS

WHILE_WAITING_S: Final = 5.0
"""1 % of the calls at 20 a second."""

KEY_LIVES: Final = timedelta(hours=23)
"""Stripe forgets an idempotency key after 24 hours (docs.stripe.com/api/idempotent_requests)."""

POLL_S: Final = 1.0
SELDOM_S: Final = 30.0
"""How often it looks for links to deactivate where the lane is switched off."""

BATCH: Final = 20
DRIVES_AT_ONCE: Final = 20
LONGEST_PAUSE_S: Final = 600.0
MAX_REASON: Final = 500

log = structlog.get_logger()

_LINKS: Final = Counter("ataa_overflow_links_total", "Calls about Payment Links, by outcome.", ["outcome"])
for _outcome in ("created", "closed", "reopened", "refused", "failed"):
    _LINKS.labels(_outcome)


class LinkPreparer:
    """Creates, deactivates and activates links. Without `prepares`, it deactivates those that there are."""

    def __init__(
        self,
        database: Database,
        processor: Processor,
        pledges: ServiceClient,
        secret: str,
        *,
        rate_limiter: RateLimiter,
        clock: Clock,
        prepares: bool,
    ) -> None:
        self._database = database
        self._processor = processor
        self._pledges = pledges
        self._secret = secret
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._prepares = prepares
        self._planned: dict[str, int] = {}
        self._called_at = float("-inf")
        self.work = DurableWork(
            "payments.links",
            self,
            retry_after=exponential(2.0, LONGEST_PAUSE_S),
            one_by_one=True,
            poll_s=POLL_S if prepares else SELDOM_S,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Prepare links until `stop`, in one process at a time."""
        await self.work.run(stop)

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`: the links that Stripe is to be asked about, after new ones were stored."""
        if self._prepares:
            await self._store_new()
        await self._mark_outdated()
        async with self._database.reading() as session:
            due = (await session.execute(_DUE, {"now": self._clock.now()})).all()
            are_waiting = bool(due) and (await session.execute(_ARE_WAITING)).scalar_one()
        if not are_waiting:
            return due
        since = asyncio.get_running_loop().time() - self._called_at
        return due[:1] if since >= WHILE_WAITING_S else ()

    async def _store_new(self) -> None:
        """Store the links of live drives that are new or have changed since they were looked at."""
        async with self._database.reading() as session:
            live = (await session.execute(_LIVE)).all()
        changed = [row for row in live if self._planned.get(row.id) != row.version][:DRIVES_AT_ONCE]
        if not changed:
            return
        try:
            answer = await post_internal(
                self._pledges, self._secret, "/internal/drives", {"refs": [row.id for row in changed]}
            )
        except ServiceUnavailable as error:
            log.warning("links.pledges_unavailable", error=str(error))
            return
        links = [each for row in changed for each in self._links_of(row, answer["data"].get(row.id))]
        if links:
            async with self._database.transaction() as session:
                await session.execute(insert_new(session, LINKS), links)
        self._planned |= {row.id: row.version for row in changed}

    def _links_of(self, row: Row[Any], drive: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The rows of a drive's links; those that exist already are left as they are."""
        if drive is None:
            return []
        amounts = link_amounts(drive.get("menu") or (), row.currency, row.currencies or ())
        return [self._new_link(row, drive, amount) for amount in amounts]

    def _new_link(self, row: Row[Any], drive: Mapping[str, Any], amount: Money) -> dict[str, Any]:
        now = self._clock.now()
        key = f"{row.id}.{amount.currency}.{amount.minor_units}"
        title, test = _title(drive.get("title")), bool(row.test or drive.get("test"))
        request = LinkRequest(key, row.id, amount, title, row.slug, test)
        state, reason, parameters = "preparing", None, "{}"
        try:
            parameters = json.dumps(self._processor.link_parameters(request))
        except Refused as error:
            state, reason = "failed", str(error)[:MAX_REASON]
        return {
            "key": key, "drive_id": row.id, "currency": amount.currency, "amount": amount.minor_units,
            "state": state, "parameters": parameters, "secret": new_secret(), "n": 1, "tries": 0,
            "reason": reason, "next_try_at": now, "sent_since": now,
        }  # fmt: skip

    async def _mark_outdated(self) -> None:
        """Mark the links to be deactivated, or activated again, where there are any."""
        now = self._clock.now()
        async with self._database.reading() as session:
            rows = (await session.execute(_OUTDATED, {"now": now, "on": self._prepares})).all()
        if not rows:
            return
        async with self._database.transaction() as session:
            for row in rows:
                # The lane may have given out the link since it was read.
                values = {"at_key": row.key, "now": now}
                await session.execute(_CLOSE if row.state == "active" else _REOPEN, values)

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`."""
        failed = []
        for row in batch:
            await self._rate_limiter.acquire()
            self._called_at = asyncio.get_running_loop().time()
            try:
                outcome = await self._call(row)
            except Refused as error:
                log.error("links.refused", link=row.key, state=row.state, reason=str(error))
                outcome = {"state": "failed", "reason": str(error)[:MAX_REASON]}
            except ProcessorError as error:
                if isinstance(error, TooFast):
                    self._rate_limiter.slow_down()
                if getattr(error, "replayed", False):
                    await self._renew_key(row)
                _LINKS.labels("failed").inc()
                failed.append(Failed(row, str(error)))
                continue
            else:
                self._rate_limiter.succeeded()
            crash_point("payments.links.after_call")
            await self._update(row, outcome | {"tries": 0})
            _LINKS.labels("refused" if outcome["state"] == "failed" else _DONE[row.state]).inc()
        return failed

    async def _call(self, row: Row[Any]) -> dict[str, Any]:
        """Ask the processor for what the link's state says; the values to store."""
        if row.state == "preparing":
            link = await self._processor.create_link(f"{row.key}.{row.n}", json.loads(row.parameters))
            return {"state": "active", "link_id": link.id, "url": link.url}
        await self._processor.set_link_active(row.link_id, row.state == "reopening")
        return {"state": "active" if row.state == "reopening" else "closed"}

    async def _renew_key(self, row: Row[Any]) -> None:
        await self._update(row, {"n": row.n + 1, "sent_since": self._clock.now()})

    async def _update(self, row: Row[Any], values: Mapping[str, Any]) -> None:
        this = update(LINKS).where(LINKS.c.key == row.key, LINKS.c.state == row.state)
        async with self._database.transaction() as session:
            await session.execute(this.values(**values))

    def label(self, item: Row[Any]) -> str:
        """See `WorkQueue`."""
        return str(item.key)

    def failures(self, item: Row[Any]) -> int:
        """See `WorkQueue`."""
        return int(item.tries)

    async def retry(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`."""
        now = self._clock.now()
        next_try_at = now + (failure.delay or timedelta(seconds=LONGEST_PAUSE_S))
        if item.state == "preparing" and next_try_at - item.sent_since >= KEY_LIVES:
            await self._renew_key(item)
        values = {"tries": failure.attempts, "reason": failure.reason[:MAX_REASON]}
        await self._update(item, values | {"next_try_at": next_try_at})

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`. A link is not given up."""
        await self.retry(item, failure)


_DONE: Final = {"preparing": "created", "closing": "closed", "reopening": "reopened"}


def _title(title: Any) -> str:
    """One text of a drive's title, in English where it has one: a link is made before its donor is known."""
    if isinstance(title, Mapping):
        title = title.get("en") or next(iter(title.values()), None)
    return str(title or "Donation")


_LIVE: Final = select(
    DRIVES.c.id, DRIVES.c.version, DRIVES.c.currency, DRIVES.c.currencies, DRIVES.c.slug, DRIVES.c.test
).where(DRIVES.c.state == DriveState.LIVE.value)
_ARE_WAITING: Final = select(exists(select(PAYMENTS.c.number).where(text(TICKETS))))
_NOW: Final = bindparam("now", type_=LINKS.c.next_try_at.type)
_DUE: Final = (
    select(LINKS)
    .where(text(UNSETTLED), LINKS.c.next_try_at <= _NOW)
    .order_by(LINKS.c.next_try_at, LINKS.c.key)
    .limit(BATCH)
)
_UNUSED: Final = or_(LINKS.c.used_until.is_(None), LINKS.c.used_until < _NOW)
_IS_LIVE: Final = exists(
    select(DRIVES.c.id).where(DRIVES.c.id == LINKS.c.drive_id, DRIVES.c.state == DriveState.LIVE.value)
)
_WANTED: Final = and_(bindparam("on", type_=Boolean), _IS_LIVE)
_OUTDATED: Final = (
    select(LINKS.c.key, LINKS.c.state)
    .where(
        or_(
            and_(LINKS.c.state == "active", _UNUSED, ~_WANTED),
            and_(LINKS.c.state == "closed", _WANTED),
        )
    )
    .order_by(LINKS.c.key)  # the lane locks links in this order too
    .limit(BATCH)
)
_AT_ONCE: Final[dict[str, Any]] = {"tries": 0, "next_try_at": _NOW}
_CLOSE: Final = (
    update(LINKS)
    .where(LINKS.c.key == bindparam("at_key"), LINKS.c.state == "active", _UNUSED)
    .values(state="closing", **_AT_ONCE)
)
_REOPEN: Final = (
    update(LINKS)
    .where(LINKS.c.key == bindparam("at_key"), LINKS.c.state == "closed")
    .values(state="reopening", **_AT_ONCE)
)
