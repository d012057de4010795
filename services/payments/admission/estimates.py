"""What donors are told about their place in the queue. Neither figure of a ticket ever grows.

The position is the ticket's number less the highest number admitted so far: nothing is counted, and numbers
that are no tickets (offline gifts, further captures, cancelled pledges) only make it fall in larger steps.

The estimate is the position divided by the ticket's rate: the processor's rate when the ticket was made, or a
higher one seen since. A rate that falls therefore changes the estimates of later tickets only. The estimate
of an earlier one falls more slowly than the clock, and it reaches 0 with its position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

STEP: Final = 1.25
"""Higher rates are noted in steps of this ratio, rounded down."""

SLOWEST: Final = 10
FASTEST: Final = 10_000_000
"""Rates are bounded to this range, so the steps noted are as well (62 at most).

All rates are in checkouts per 1,000 seconds, whole ones.
"""

ASSUMED_RATE: Final = 20_000
"""The rate of a ticket that was stored without one."""


@dataclass(frozen=True, slots=True)
class HigherRate:
    """Tickets up to the number `up_to` were in the queue when it moved at `rate`."""

    up_to: int
    rate: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """The state from which every ticket's figures follow.

    `front` is the highest number admitted, `rate` the current rate. `higher` are the rates seen, with
    rising `up_to` and falling `rate`.
    """

    front: int
    rate: int
    higher: Sequence[HigherRate] = ()

    def position(self, number: int) -> int:
        """How many numbers are to be admitted up to and including this ticket's; 0 once it is its turn."""
        return max(0, number - self.front)

    def eta_seconds(self, number: int, made_at_rate: int | None) -> int:
        """Estimated seconds until a ticket is admitted; `made_at_rate` was the rate when it was made."""
        own = bounded(ASSUMED_RATE if made_at_rate is None else made_at_rate)
        seen = next((each.rate for each in self.higher if each.up_to >= number), own)
        return -(-self.position(number) * 1_000 // max(own, seen))

    def advanced(self, front: int, rate: int, newest: int) -> Estimates:
        """The state after the tickets up to `front` were admitted at `rate`; `newest` is the highest number.

        A `newest` that is too low is harmless: tickets above it keep the rate they were made at.
        """
        rate, step = bounded(rate), _step(rate)
        ahead, newest = max(self.front, front), max(newest, *(each.up_to for each in self.higher), 0)
        kept = [each for each in self.higher if each.rate > step and each.up_to > ahead]
        if not kept or kept[-1].up_to < newest:
            kept.append(HigherRate(newest, step))
        return replace(self, front=ahead, rate=rate, higher=tuple(kept))


def per_1000_s(rate_per_s: float) -> int:
    """A rate per second as a rate."""
    return bounded(round(min(rate_per_s * 1_000, FASTEST)))


def bounded(rate: int) -> int:
    """A rate within the supported range."""
    return min(max(rate, SLOWEST), FASTEST)


def _step(rate: int) -> int:
    """The highest step that `rate` reaches."""
    step = SLOWEST
    while (following := math.ceil(step * STEP)) <= rate:
        step = following
    return step
