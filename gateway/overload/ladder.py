"""The shedding ladder: which features give way under overload, and when they come back. No I/O.

Pressure is a number: 0 is idle, 1 is the most that this process may be loaded (`gateway.overload.readings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple


class Step(IntEnum):
    """What gives way from this step on, in addition to what the steps before it name."""

    NOTHING = 0
    RECENT = 1
    """`recent` of the totals, and a drive's donations."""
    BOARDS = 2
    """Leaderboards of donors, and of windows."""
    SNAPSHOTS = 3
    """The rate of snapshots and of frames: one a second."""
    STREAMS = 4
    """New live streams."""
    PLEDGES = 5
    """Pledges beyond those that can be stored within the longest wait."""

    @property
    def word(self) -> str:
        """Its name on the totals and in metrics."""
        return self.name.lower()


class Bounds(NamedTuple):
    """A step is entered at pressure `enter` and left below `leave`."""

    enter: float
    leave: float


BOUNDS: Final[Mapping[Step, Bounds]] = {
    Step.RECENT: Bounds(0.3, 0.15),
    Step.BOARDS: Bounds(0.4, 0.2),
    Step.SNAPSHOTS: Bounds(0.5, 0.25),
    Step.STREAMS: Bounds(0.6, 0.3),
    Step.PLEDGES: Bounds(0.8, 0.4),
}
"""Both bounds rise with the step. A step is left at half of where it is entered, so that the relief which it
brings does not end it."""

ENTER_AFTER_S: Final = 0.05
"""The least time on a step before the next one is entered: each reading of the load may enter one."""
LEAVE_AFTER_S: Final = 2.0
"""The least time on a step before it is left. From the last step to none this takes ten seconds."""


class Ladder:
    """The step that the process is on.

    It changes by one step at a time. No step lasts for less than `ENTER_AFTER_S` on the way up, nor for less
    than `LEAVE_AFTER_S` on the way down.
    """

    def __init__(self) -> None:
        self.step = Step.NOTHING
        self._since = float("-inf")

    def observe(self, pressure: float, now: float) -> Step:
        """The step at `now` (monotonic seconds) under `pressure`."""
        stayed_s = now - self._since
        higher = Step(min(self.step + 1, Step.PLEDGES))
        if higher != self.step and pressure >= BOUNDS[higher].enter:
            if stayed_s >= ENTER_AFTER_S:
                self._move(higher, now)
        elif self.step and pressure < BOUNDS[self.step].leave and stayed_s >= LEAVE_AFTER_S:
            self._move(Step(self.step - 1), now)
        return self.step

    def _move(self, step: Step, now: float) -> None:
        self.step, self._since = step, now
