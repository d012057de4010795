"""Which fault, if any, happens at each await of bus, store, processor and network: drawn from the seed.

Each seed draws its own mix of faults and its own rate, so that some seeds have many faults of one kind and
others few of each. No fault is drawn while `active` is false, so every run ends on a healthy system.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from enum import StrEnum
from typing import Final

from sandbox.faults import Faults

MAX_FAULTS: Final = 25
MAX_CRASHES: Final = 3
LONGEST_DELAY_S: Final = 0.4


class Fault(StrEnum):
    """What may happen to one operation."""

    DELAY = "delay"
    ERROR = "error"
    """The operation did not happen and its caller gets an error."""
    LOST_ACK = "lost_ack"
    """The operation happened and its caller gets an error."""
    TIMEOUT = "timeout"
    """Like a lost acknowledgement, but the error comes after the operation's timeout."""
    PARTIAL = "partial"
    """A part of a batch was stored and its caller gets an error."""
    DUPLICATE = "duplicate"
    """The operation happens twice, the second time after a delay."""
    CRASH_BEFORE = "crash_before"
    """The process that calls ends before the operation."""
    CRASH_AFTER = "crash_after"
    """The process that calls ends after the operation, before it learns of it."""


WEIGHTS: Final = {"store.reading": 0.2, "store.statement": 0.2, "bus.watermarks": 0.1, "bus.publish": 4.0}
"""Polls have faults less often than other operations, and what may lose an event has them more often."""
CRASHES: Final = frozenset({Fault.CRASH_BEFORE, Fault.CRASH_AFTER})


class FaultPlan:
    """The faults of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"faults {seed}")  # noqa: S311 - it has to repeat
        self.active = False
        self.drawn: list[str] = []
        self._crashes = 0
        self._rate = 10 ** self.random.uniform(-2.6, -1.2)
        self._enabled = [fault for fault in Fault if self.random.random() < 0.5] or [Fault.LOST_ACK]

    def happens(self, operation: str) -> bool:
        """Whether this one of all operations has a fault, if one is possible in it."""
        if not self.active or len(self.drawn) >= MAX_FAULTS:
            return False
        return self.random.random() < self._rate * WEIGHTS.get(operation, 1.0)

    def draw(self, operation: str, possible: Collection[Fault], caller: str) -> Fault | None:
        """The fault of an operation of `caller` that has one; None where this seed has no such faults."""
        found = [fault for fault in self._enabled if fault in possible]
        if not found:
            return None
        fault = self.random.choice(found)
        if fault in CRASHES:
            if self._crashes >= MAX_CRASHES:
                return None
            self._crashes += 1
        self.drawn.append(f"{caller} {operation}: {fault}")
        return fault

    def delay_s(self) -> float:
        """How long a delayed operation waits."""
        return self.random.random() ** 2 * LONGEST_DELAY_S

    def of_sandbox(self) -> Faults:
        """The faults of Stripe's side: webhooks repeated, reordered, late and lost, responses lost."""
        chance = self.random
        if chance.random() < 0.5:
            return Faults()
        return Faults(
            duplicate=chance.choice((1, 1, 2, 3)),
            reorder=chance.random() < 0.5,
            delay_ms=chance.choice((0, 0, 100, 500)),
            drop_rate=chance.choice((0.0, 0.0, 0.2, 0.5)),
            error_rate=chance.choice((0.0, 0.0, 0.2)),
            error_after_rate=chance.choice((0.0, 0.0, 0.2)),
            timeout_after_success_rate=chance.choice((0.0, 0.0, 0.2)),
        )
