"""The console's page of a drive's funnel: from views of its pages to gifts, all together and by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from backbone.clock import Clock
from backbone.money import as_json, parse
from gateway.console.client import ServiceCalls, refused_by
from gateway.console.visit import Visit
from gateway.http.asgi import Response
from gateway.reach.funnel import HOUR, MAX_PERIOD, PERIOD, Funnel
from gateway.reach.funnel_counts import PeriodTooLong
from gateway.reach.visits import OTHER, hour_of

PERIODS: Final[Mapping[str, timedelta]] = {
    "hour": HOUR,
    "day": PERIOD,
    "week": timedelta(days=7),
    "month": MAX_PERIOD,
}
"""The periods to choose from: whole hours up to the end of the present one."""
DRAWN: Final = 6
"""Sources that have a picture; the table has all."""
STEPS: Final = ("seen", "opened", "pledged", "paid")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a funnel: `per_mille` of the largest one, for drawing, and the share of the step before.

    `percent` is None where the step before is smaller: a link may lead past it.
    """

    name: str
    count: int
    per_mille: int
    percent: int | None


def steps_of(counts: Mapping[str, int]) -> list[Step]:
    """The steps of a funnel in their order."""
    highest = max(1, *(counts[name] for name in STEPS))
    before = [None, *(counts[name] for name in STEPS[:-1])]
    return [
        Step(name, counts[name], counts[name] * 1000 // highest, _percent(counts[name], earlier))
        for name, earlier in zip(STEPS, before, strict=True)
    ]


def _percent(part: int, whole: int | None) -> int | None:
    return None if not whole or part > whole else part * 100 // whole


class FunnelPage:
    """The page `/console/drives/{drive}/funnel`."""

    def __init__(self, calls: ServiceCalls, funnel: Funnel, clock: Clock) -> None:
        self._calls = calls
        self._funnel = funnel
        self._clock = clock

    async def show(self, visit: Visit) -> Response:
        """The funnel of a period; where it has too many pledges, the shorter periods to choose from."""
        drive = await self._calls.get(visit.bearer, "pledges", f"/v1/drives/{visit.param}")
        period = visit.query.get("period", "")
        period = period if period in PERIODS else "day"
        until = hour_of(self._clock.now()) + HOUR
        told, status = {"reason": "", "detail": ""}, 200
        rows: Sequence[Json] = ()
        try:
            found = await self._funnel.of(visit.bearer, drive["id"], until - PERIODS[period], until)
            rows = found["data"]
        except PeriodTooLong as problem:
            told, status = visit.explain(refused_by(problem)), problem.status
        total = {name: sum(row[name] for row in rows) for name in STEPS}
        return visit.page(
            "funnel.html",
            status=status,
            section="drives",
            drive=drive,
            periods=PERIODS,
            period=period,
            rows=rows,
            total=total,
            raised=_raised(rows, drive["currency"]),
            drawn=[("", steps_of(total)), *_largest(rows)] if any(total.values()) else [],
            other=OTHER,
            **told,
        )


def _largest(rows: Sequence[Json]) -> list[tuple[Json, list[Step]]]:
    """The sources that are drawn besides the sum, if there are several."""
    return [(row, steps_of(row)) for row in rows[:DRAWN]] if len(rows) > 1 else []


def _raised(rows: Sequence[Json], currency: str) -> Json:
    return as_json(sum(parse(row["raised"]["value"], currency) for row in rows), currency)
