"""What happened in a run, line by line, and one hash of it all."""

from __future__ import annotations

import asyncio
import hashlib


class Trace:
    """A run's trace. Two runs are the same if their hashes are."""

    def __init__(self, *, keep: bool = False) -> None:
        self.lines: list[str] = []
        self._keep = keep
        self._hash = hashlib.sha256()

    def note(self, text: str) -> None:
        """Add a line, with the time by the loop's clock."""
        line = f"{asyncio.get_running_loop().time():.6f} {text}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()[:16]
