"""What gives way at present: the routes ask here before they do what a step of the ladder sheds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from backbone.http.problems import Overloaded
from gateway.access.limits import ConcurrencyLimit
from gateway.overload import readings
from gateway.overload.ladder import Ladder, Step
from gateway.overload.readings import Pressure, Reading, Source

RETRY_AFTER_S: Final = 5
"""What shed reads tell their clients: longer than a step lasts at least."""
LEAST_PLEDGES: Final = 128
"""Pledges that are admitted whatever their rate was: a transaction's worth (`backbone.group_commit`)."""
STEPS: Final = tuple(step for step in Step if step)

log = structlog.get_logger()

_ON = Gauge("ataa_gateway_shedding", "1 while this gives way under overload.", ["lane"])
_SECONDS = Counter(
    "ataa_gateway_shedding_seconds_total", "Time for which this gave way under overload.", ["lane"]
)
_SHED = Counter("ataa_gateway_shed_total", "Requests refused because of a step of the ladder.", ["lane"])
_LAG = Gauge("ataa_gateway_loop_lag_seconds", "Delay of the event loop, as last read.")
_WAIT = Gauge("ataa_gateway_pledge_wait_seconds", "Expected wait of a new pledge, as last read.")
_LIMIT = Gauge("ataa_gateway_pledges_limit", "Pledges that may be in flight at present.")


class Shedding:
    """The ladder of this process, fed with readings by the worker `run`.

    `full` is the reading that is full load; `changed` is told each step.
    """

    def __init__(
        self, pledges: ConcurrencyLimit, full: Reading, source: Source, changed: Callable[[Step], None]
    ) -> None:
        self._pledges = pledges
        self._most_pledges = pledges.limit
        self._wait_s = full.wait_s
        self._pressure = Pressure(full.lag_s, full.wait_s)
        self._source = source
        self._ladder = Ladder()
        self._changed = changed
        self._at: float | None = None
        for step in STEPS:
            _ON.labels(step.word).set_function(partial(self._is_on, step))
        for step in (Step.RECENT, Step.BOARDS, Step.STREAMS):
            _SHED.labels(step.word)
        _LIMIT.set_function(lambda: self._pledges.limit)

    @property
    def step(self) -> Step:
        """The step that the process is on."""
        return self._ladder.step

    def sheds(self, step: Step) -> bool:
        """Whether what `step` names gives way at present."""
        return self._ladder.step >= step

    def refuse(self, step: Step, what: str) -> None:
        """Raises `Overloaded` while `what`, which `step` names, gives way."""
        if self._ladder.step >= step:
            _SHED.labels(step.word).inc()
            raise Overloaded(
                f"{what} have given way to donations; try again later.", retry_after_s=RETRY_AFTER_S
            )

    async def run(self, stop: asyncio.Event) -> None:
        """Take readings until `stop`."""
        while not stop.is_set():
            self.observe(await self._source.next(stop))

    def observe(self, reading: Reading) -> None:
        """Move on the ladder, and bound the queue of pledges by its wait while it is on the last step."""
        _LAG.set(reading.lag_s)
        _WAIT.set(min(reading.wait_s, 3600.0))
        before = self._ladder.step
        began = self._at
        self._note_time(reading.at)
        step = self._move(self._pressure.after(reading), reading.at, began)
        self._pledges.limit = self._limit_of(reading, step)
        if step != before:
            log.warning("overload.step", step=step.word, before=before.word, lag_s=round(reading.lag_s, 3),
                        wait_s=round(reading.wait_s, 3), cpu=round(reading.cpu, 2))  # fmt: skip
            self._changed(step)

    def _move(self, pressure: float, now: float, began: float | None) -> Step:
        """The step at `now`.

        An overloaded event loop takes readings seldom. Then one may enter several steps, one for each reading
        that there would have been since `began`.
        """
        at = now if began is None else max(began, now - len(STEPS) * readings.EVERY_S)
        while (at := at + readings.EVERY_S) < now:
            before = self._ladder.step
            if self._ladder.observe(pressure, at) <= before:
                break
        return self._ladder.observe(pressure, now)

    def _limit_of(self, reading: Reading, step: Step) -> int:
        if step < Step.PLEDGES:
            return self._most_pledges
        return min(self._most_pledges, max(LEAST_PLEDGES, round(reading.pledges_per_s * self._wait_s)))

    def _note_time(self, now: float) -> None:
        if self._at is not None:
            for step in STEPS[: self._ladder.step]:
                _SECONDS.labels(step.word).inc(max(0.0, now - self._at))
        self._at = now

    def _is_on(self, step: Step) -> int:
        return int(self._ladder.step >= step)
