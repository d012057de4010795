"""Rest between the rounds of a relay, a consumer or a publisher: short at ordinary rates, long under load.

A round costs nearly the same for one event as for ten. At ordinary rates an event should not wait for a
round, so the rest is proportional to what the last round cost, and the worker is busy at most a third of the
time. Under load that would make many small rounds: there rounds keep a fixed distance, so that batches grow.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

ROUND_INTERVAL_S: Final = 0.05
"""Between the starts of two rounds under load, and the longest rest: short against what a viewer notices."""
REST_FACTOR: Final = 2.0
"""The rest after a round, as a multiple of what the round took."""
LOADED_EVENTS: Final = 6
"""Under load means: more than so many events in `ROUND_INTERVAL_S`, on average over `RATE_WINDOW_S`."""
RATE_WINDOW_S: Final = 0.5


class AdaptiveInterval:
    """When the next round may start: after a rest, and at once after a quiet while.

    Rounds start `longest_s` apart under load; at other times the rest ends by then at the latest.
    """

    def __init__(self, longest_s: float = ROUND_INTERVAL_S) -> None:
        self._longest_s = longest_s
        self._loaded_above = LOADED_EVENTS * RATE_WINDOW_S / ROUND_INTERVAL_S
        self._recent = 0.0
        self._noted_at = float("-inf")
        self.due = float("-inf")
        """When the next round may start, on the loop's clock."""

    async def wait(self) -> None:
        """Wait until the next round may start."""
        if (wait_s := self.due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait_s)

    def rest(self, began: float, events: int) -> None:
        """Note a round that ends now, when it `began` on the loop's clock, and how many events it had."""
        now = asyncio.get_running_loop().time()
        self._recent = self._recent * math.exp((self._noted_at - now) / RATE_WINDOW_S) + events
        self._noted_at = now
        longest = began + self._longest_s
        self.due = longest if self.is_loaded() else min(longest, now + REST_FACTOR * (now - began))

    def is_loaded(self) -> bool:
        """Whether the recent rate of events is so high that rounds start `longest_s` apart."""
        return self._recent > self._loaded_above
