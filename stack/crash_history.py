"""The recent crashes of a process, to decide whether another restart is worth it."""

from __future__ import annotations

from collections import deque


class CrashHistory:
    """The crashes of one process in the last `within_s` seconds; `allowed` of them are too many."""

    def __init__(self, allowed: int, within_s: float) -> None:
        self._allowed = allowed
        self._within_s = within_s
        self._at: deque[float] = deque()

    def add(self, now: float) -> int:
        """Record a crash at `now`; returns the number of recent crashes, including it."""
        self._at.append(now)
        while now - self._at[0] >= self._within_s:
            self._at.popleft()
        return len(self._at)

    def too_many(self) -> bool:
        """Whether the recent crashes have reached the limit."""
        return len(self._at) >= self._allowed
