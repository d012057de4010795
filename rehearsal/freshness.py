"""How old a gift is when a viewer sees it, and how many gifts a second are whole.

Three clocks of one machine meet here: when the sandbox's webhook was acknowledged, which sequence the
gift has in the drive's log, and when the first `totals` frame covering that sequence arrived (API.md,
Reports). All times are Unix seconds.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

CAPTURING: Final = frozenset({"payment_intent.succeeded", "checkout.session.completed"})
COUNTED: Final = "donation.counted"
BUSIEST_S: Final = 20.0


class Freshness:
    """Joins acknowledgements, the drive's log and frames, in whatever order they come."""

    def __init__(self) -> None:
        self.log_sequence = 0
        self.deliveries_read = 0
        self.counted: dict[str, int] = {}
        self.counted_twice: list[str] = []
        self.acknowledged: dict[str, float] = {}
        self._frame_sequences: list[int] = []
        self._frame_times: list[float] = []

    def note_frame(self, sequence: int, at: float) -> None:
        """A `totals` frame arrived; only the first that reaches a sequence matters."""
        if not self._frame_sequences or sequence > self._frame_sequences[-1]:
            self._frame_sequences.append(sequence)
            self._frame_times.append(at)

    def note_log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of `/events`, ascending; a row read before is passed over."""
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
        """Webhooks the sandbox saw answered 2xx; the earliest capturing one of a pledge counts."""
        self.deliveries_read = max(self.deliveries_read, read_to)
        for row in rows:
            pledge = row.get("pledge")
            if row["type"] in CAPTURING and pledge is not None and row.get("acked_at") is not None:
                at = float(row["acked_at"])
                self.acknowledged[pledge] = min(at, self.acknowledged.get(pledge, at))

    def seen_at(self, sequence: int) -> float | None:
        """When a viewer first saw this sequence; None if no frame has covered it."""
        place = bisect.bisect_left(self._frame_sequences, sequence)
        return self._frame_times[place] if place < len(self._frame_times) else None

    def seen_times(self) -> list[float]:
        """When each counted gift was first seen, ascending."""
        times = [self.seen_at(sequence) for sequence in self.counted.values()]
        return sorted(at for at in times if at is not None)

    def delays_ms(self, since: float = 0.0) -> list[float]:
        """From acknowledgement to sight, ascending, of gifts acknowledged after `since`.

        A gift whose webhook was never acknowledged (it was found by backfill) has none.
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
    """Nearest rank: the smallest value that at least `share` of all do not exceed. None of nothing."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def busiest_rate(ascending: Sequence[float], window_s: float = BUSIEST_S) -> float:
    """Events a second in the window with the most of them; a window is never shortened."""
    most = first = 0
    for last, at in enumerate(ascending):
        while at - ascending[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most / window_s
