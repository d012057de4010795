"""What donors are told about their place in the queue. Neither figure of a ticket ever grows.

The position is the ticket's number less the highest number admitted so far: nothing is counted, and numbers
that are no tickets (offline gifts, further captures, cancelled pledges) only make it fall in larger steps.

The estimate is the position divided by the ticket's pace: the processor's pace when the ticket was made, or a
higher one seen since. A pace that falls therefore changes the estimates of later tickets only. The estimate
of an earlier one falls more slowly than the clock, and it reaches 0 with its position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

STEP: Final = 1.25
"""Higher paces are noted in steps of this ratio, rounded down."""

SLOWEST: Final = 10
FASTEST: Final = 10_000_000
"""Paces are bounded to this range, so the steps noted are as well (62 at most).

All paces are in checkouts per 1,000 seconds, whole ones.
"""

ASSUMED_PACE: Final = 20_000
"""The pace of a ticket that was stored without one."""


@dataclass(frozen=True, slots=True)
class HigherPace:
    """Tickets up to the number `up_to` were in the queue when it moved at `pace`."""

    up_to: int
    pace: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """The state from which every ticket's figures follow.

    `front` is the highest number admitted, `pace` the current pace. `higher` are the paces seen, with
    rising `up_to` and falling `pace`.
    """

    front: int
    pace: int
    higher: Sequence[HigherPace] = ()

    def position(self, number: int) -> int:
        """How many numbers are to be admitted up to and including this ticket's; 0 once it is its turn."""
        return max(0, number - self.front)

    def eta_seconds(self, number: int, made_at_pace: int | None) -> int:
        """Estimated seconds until a ticket is admitted; `made_at_pace` was the pace when it was made."""
        own = bounded(ASSUMED_PACE if made_at_pace is None else made_at_pace)
        seen = next((each.pace for each in self.higher if each.up_to >= number), own)
        return -(-self.position(number) * 1_000 // max(own, seen))

    def advanced(self, front: int, pace: int, newest: int) -> Estimates:
        """The state after the tickets up to `front` were admitted at `pace`; `newest` is the highest number.

        A `newest` that is too low is harmless: tickets above it keep the pace they were made at.
        """
        pace, step = bounded(pace), _step(pace)
        ahead, newest = max(self.front, front), max(newest, *(each.up_to for each in self.higher), 0)
        kept = [each for each in self.higher if each.pace > step and each.up_to > ahead]
        if not kept or kept[-1].up_to < newest:
            kept.append(HigherPace(newest, step))
        return replace(self, front=ahead, pace=pace, higher=tuple(kept))


def per_1000_s(rate_per_s: float) -> int:
    """A rate per second as a pace."""
    return bounded(round(min(rate_per_s * 1_000, FASTEST)))


def bounded(pace: int) -> int:
    """A pace within the supported range."""
    return min(max(pace, SLOWEST), FASTEST)


def _step(pace: int) -> int:
    """The highest step that `pace` reaches."""
    step = SLOWEST
    while (following := math.ceil(step * STEP)) <= pace:
        step = following
    return step
