"""When a process that keeps dying is no longer worth another try."""

from __future__ import annotations

from collections import deque


class CrashHistory:
    """The deaths of one process within the last `within_s`; `allowed` of them are too many."""

    def __init__(self, allowed: int, within_s: float) -> None:
        self._allowed = allowed
        self._within_s = within_s
        self._at: deque[float] = deque()

    def note(self, now: float) -> int:
        """Note a death; how many there were of late, this one included."""
        self._at.append(now)
        while now - self._at[0] >= self._within_s:
            self._at.popleft()
        return len(self._at)

    def too_many(self) -> bool:
        """Whether the last one noted came too soon after too many others."""
        return len(self._at) >= self._allowed
