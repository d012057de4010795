"""The counts of a funnel: views from the gateway, pledges and gifts from their services, by source.

A count reads every pledge of its period, up to a million. One is therefore made at a time, equal ones are
shared, and each is kept for `KEPT_S`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from backbone.clock import rfc3339
from backbone.http.problems import Invalid, Overloaded
from backbone.http.service_client import ServiceClient, post_internal
from gateway.reach.sources import source_of
from gateway.reach.visits import OTHER, Visits

KEPT_S: Final = 10.0
MAX_KEPT: Final = 100
MAX_WAITING: Final = 8
"""Counts that wait for the one that is being made."""
MAX_CALLERS: Final = 50
"""Requests that wait for a count."""
WAIT_S: Final = 20.0
MAX_ROWS: Final = 200
"""The sources of a count; those with the least are counted together."""

Json = Mapping[str, Any]


class PeriodTooLong(Invalid):
    slug, title = "period-too-long", "The period has more pledges than a funnel counts"


class Period(NamedTuple):
    """A drive, and the hours from `since` until before `until`."""

    drive_id: str
    since: datetime
    until: datetime


@dataclass(slots=True)
class Counts:
    """What is counted of a source; `raised` in minor units."""

    seen: int = 0
    opened: int = 0
    pledged: int = 0
    paid: int = 0
    raised: int = 0

    def add(self, other: Counts) -> None:
        """Add another source's counts."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


BySource = Mapping[str, Counts]


class FunnelCounts:
    """Makes and keeps counts."""

    def __init__(self, visits: Visits, clients: Mapping[str, ServiceClient], secret: str) -> None:
        self._visits = visits
        self._clients = clients
        self._secret = secret
        self._kept: OrderedDict[Period, tuple[float, BySource]] = OrderedDict()
        self._running: dict[Period, asyncio.Task[BySource]] = {}
        self._turn = asyncio.Lock()
        self._callers = 0

    async def of(self, period: Period) -> BySource:
        """The counts by source, at most `KEPT_S` old.

        Raises `PeriodTooLong`, `ServiceUnavailable`, and `Overloaded` where too many counts or requests wait,
        or one has waited for `WAIT_S`.
        """
        kept = self._kept.get(period)
        if kept is not None and asyncio.get_running_loop().time() < kept[0]:
            return kept[1]
        task = self._running.get(period)
        if task is None:
            if len(self._running) > MAX_WAITING:
                raise Overloaded("Other funnels are being counted.", retry_after_s=5)
            task = self._running[period] = asyncio.create_task(self._make(period))
        return await self._wait_for(task)

    async def _wait_for(self, task: asyncio.Task[BySource]) -> BySource:
        if self._callers >= MAX_CALLERS:
            raise Overloaded("Other funnels are being counted.", retry_after_s=5)
        self._callers += 1
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Overloaded("The funnel is still being counted.", retry_after_s=5) from None
        finally:
            self._callers -= 1

    async def _make(self, period: Period) -> BySource:
        try:
            async with self._turn:
                counts = _folded(await self._count(period))
        finally:
            del self._running[period]
        now = asyncio.get_running_loop().time()
        self._kept[period] = now + KEPT_S, counts
        self._kept.move_to_end(period)
        for one in [one for one, (until, _) in self._kept.items() if until <= now]:
            del self._kept[one]
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return counts

    async def _count(self, period: Period) -> BySource:
        asked = {
            "drive": period.drive_id,
            "since": rfc3339(period.since),
            "until": rfc3339(period.until),
        }
        views, pledged, paid = await asyncio.gather(
            self._visits.of(*period), self._ask("pledges", asked), self._ask("leaderboard", asked)
        )
        found: defaultdict[str, Counts] = defaultdict(Counts)
        for key, (seen, opened) in views.items():
            found[key].add(Counts(seen=seen, opened=opened))
        for row in (*pledged, *paid):
            counted = {name: row[name] for name in ("pledged", "paid", "raised") if name in row}
            found[_key_of(row)].add(Counts(**counted))
        return found

    async def _ask(self, service: str, period: Json) -> Sequence[Json]:
        reply = await post_internal(self._clients[service], self._secret, "/internal/funnel", period)
        if not reply["complete"]:
            raise PeriodTooLong(
                "At most a million pledges, those to other drives included, and a million gifts are counted.",
                errors=[{"pointer": "/query/since", "detail": "a later moment makes the period shorter"}],
            )
        rows: Sequence[Json] = reply["data"]
        return rows


def _folded(counts: BySource) -> BySource:
    """The sources with most money first, those past `MAX_ROWS` as `OTHER`, which is last."""
    ranked = sorted(
        counts.items(),
        key=lambda one: (one[0] == OTHER, -one[1].raised, -one[1].pledged, -one[1].seen, one[0]),
    )
    shown, rest = ranked[:MAX_ROWS], ranked[MAX_ROWS:]
    if rest:
        others = Counts()
        for _, counted in rest:
            others.add(counted)
        shown.append((OTHER, others))
    return dict(shown)


def _key_of(row: Json) -> str:
    """The source of a pledge as links are counted, however the partner's program wrote it."""
    given = {name: row[name] for name in ("platform", "campaign") if row[name] is not None}
    return source_of(given).key
