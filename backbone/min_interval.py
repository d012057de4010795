"""Rounds that keep a distance: batches grow under load, and nothing waits when there is none."""

from __future__ import annotations

import asyncio
from typing import Final

ROUND_INTERVAL_S: Final = 0.05
"""Between two rounds of a relay, a consumer or a worker: short against what a viewer notices."""


class MinInterval:
    """At most one round each `every_s`.

    A round after a quiet while starts at once; under load what arrived meanwhile shares a
    transaction, which is what a gift costs most.
    """

    def __init__(self, every_s: float = ROUND_INTERVAL_S) -> None:
        self._every_s = every_s
        self._last = float("-inf")

    async def wait(self) -> None:
        """Wait until the next round may start."""
        loop = asyncio.get_running_loop()
        if (wait_s := self._last + self._every_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        self._last = loop.time()
