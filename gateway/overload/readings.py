"""Readings of the load: the delay of the event loop, the wait of a new pledge, and the CPU of the process.

In the embedded run all services share the event loop that is measured here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

from backbone.wakeups import wait_for
from gateway.access.limits import ConcurrencyLimit

EVERY_S: Final = 0.1
LAG_WINDOW: Final = 9
"""Readings of the event loop's delay of which the median counts. One stall, however long, sheds nothing, and
four in a row do not: a start, a slow disk or a busy neighbour is over by then."""
WINDOW: Final = 3
"""Readings of the wait, and of the CPU, of which the median counts: in a burst a queue forms at once."""
RATE_OVER_S: Final = 1.0
"""Over how long the rate of answered pledges is averaged."""
FEW: Final = 64
"""With so few pledges in flight none waits: what they take is not a queue."""
BUSY: Final = 0.95
"""The share of a core from which the process counts as saturated."""
BUSY_PRESSURE: Final = 0.18
"""The pressure of a saturated process. It alone enters no step, because a saturated process that answers in
time is merely efficient; it keeps the first step until the work that is left is done."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading. `at` is monotonic; `cpu` is the share of a core; `pledges_per_s` were answered."""

    at: float
    lag_s: float = 0.0
    wait_s: float = 0.0
    cpu: float = 0.0
    pledges_per_s: float = 0.0


class Source(Protocol):
    """Where readings come from."""

    async def next(self, stop: asyncio.Event) -> Reading:
        """The next reading, at the latest soon after `stop`."""
        ...


class ProcessLoad:
    """Reads this process every `EVERY_S`: its event loop, its CPU, and the queue of pledges."""

    def __init__(self, pledges: ConcurrencyLimit) -> None:
        self._pledges = pledges
        self._answered = 0
        self._per_s = 0.0
        self._at: float | None = None
        self._cpu_s = 0.0

    async def next(self, stop: asyncio.Event) -> Reading:
        """See `Source.next`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await wait_for(stop, EVERY_S)
        now = loop.time()
        return self._read(now, max(0.0, now - began - EVERY_S))

    def _read(self, now: float, lag_s: float) -> Reading:
        cpu_s, answered = time.process_time(), self._pledges.finished
        if self._at is None:
            self._at, self._cpu_s, self._answered = now, cpu_s, answered
            return Reading(now, lag_s)
        took_s = max(now - self._at, 1e-6)
        share = min(1.0, took_s / RATE_OVER_S)
        self._per_s += share * ((answered - self._answered) / took_s - self._per_s)
        cpu = (cpu_s - self._cpu_s) / took_s
        self._at, self._cpu_s, self._answered = now, cpu_s, answered
        wait_s = expected_wait_s(self._pledges.in_flight, self._per_s)
        return Reading(now, lag_s, wait_s, cpu, self._per_s)


def expected_wait_s(in_flight: int, per_s: float) -> float:
    """How long a new pledge waits behind those in flight (Little's law)."""
    return 0.0 if in_flight <= FEW else in_flight / max(per_s, 1.0)


class Pressure:
    """The pressure of the last readings: 1 at an event loop's delay of `lag_s`, or at a wait of `wait_s`."""

    def __init__(self, lag_s: float, wait_s: float) -> None:
        self._lag_s = lag_s
        self._wait_s = wait_s
        self._last: deque[Reading] = deque(maxlen=LAG_WINDOW)

    def after(self, reading: Reading) -> float:
        """The pressure after one more reading."""
        self._last.append(reading)
        lag_s = median(one.lag_s for one in self._last)
        newest = list(self._last)[-WINDOW:]
        wait_s = median(one.wait_s for one in newest)
        busy = median(one.cpu for one in newest) >= BUSY
        return max(lag_s / self._lag_s, wait_s / self._wait_s, BUSY_PRESSURE if busy else 0.0)
