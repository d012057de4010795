"""How old a donation is when a viewer sees it, and how many donations a second are complete.

Joins three observations: when the sandbox's webhook was acknowledged, the donation's sequence in the drive's
log, and when the first `totals` frame covering that sequence arrived. Times are Unix seconds of one machine.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

CAPTURING: Final = frozenset({"payment_intent.succeeded", "checkout.session.completed"})
COUNTED: Final = "donation.counted"
BUSIEST_S: Final = 20.0


class Freshness:
    """Joins acknowledgements, log rows and frames, in any order."""

    def __init__(self) -> None:
        self.log_sequence = 0
        self.deliveries_read = 0
        self.counted: dict[str, int] = {}
        self.counted_twice: list[str] = []
        self.acknowledged: dict[str, float] = {}
        self._frame_sequences: list[int] = []
        self._frame_times: list[float] = []

    def note_frame(self, sequence: int, at: float) -> None:
        """Record a `totals` frame; only the first that reaches a sequence counts."""
        if not self._frame_sequences or sequence > self._frame_sequences[-1]:
            self._frame_sequences.append(sequence)
            self._frame_times.append(at)

    def note_log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record rows of `/events`, ascending; rows already recorded are ignored."""
        for row in rows:
            sequence = int(row["sequence"])
            if sequence <= self.log_sequence:
                continue
            self.log_sequence = sequence
            pledge = row.get("pledge")
            if row["type"] != COUNTED or pledge is None:
                continue
            if pledge in self.counted:
                self.counted_twice.append(pledge)
            else:
                self.counted[pledge] = sequence

    def note_deliveries(self, rows: Iterable[Mapping[str, Any]], read_to: int) -> None:
        """Record acknowledged webhooks; the earliest one that captures a pledge's payment counts."""
        self.deliveries_read = max(self.deliveries_read, read_to)
        for row in rows:
            pledge = row.get("pledge")
            if row["type"] in CAPTURING and pledge is not None and row.get("acked_at") is not None:
                at = float(row["acked_at"])
                self.acknowledged[pledge] = min(at, self.acknowledged.get(pledge, at))

    def seen_at(self, sequence: int) -> float | None:
        """When a frame first covered this sequence; None if none has."""
        place = bisect.bisect_left(self._frame_sequences, sequence)
        return self._frame_times[place] if place < len(self._frame_times) else None

    def seen_times(self) -> list[float]:
        """When each counted donation was first covered by a frame, ascending."""
        times = [self.seen_at(sequence) for sequence in self.counted.values()]
        return sorted(at for at in times if at is not None)

    def delays_ms(self, since: float = 0.0) -> list[float]:
        """Milliseconds from acknowledgement to frame, ascending, of donations acknowledged after `since`.

        A donation whose webhook was never acknowledged (the backfill found it) has none.
        """
        delays = []
        for pledge, sequence in self.counted.items():
            acknowledged = self.acknowledged.get(pledge)
            if acknowledged is None or acknowledged < since:
                continue
            seen = self.seen_at(sequence)
            if seen is not None:
                delays.append(max(0.0, seen - acknowledged) * 1000)
        return sorted(delays)


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: the smallest value that `share` of all do not exceed; None if empty."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def busiest_rate(ascending: Sequence[float], window_s: float = BUSIEST_S) -> float:
    """Events a second in the window of `window_s` with the most events."""
    most = first = 0
    for last, at in enumerate(ascending):
        while at - ascending[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most / window_s
