"""Random identifiers without a system call for each: the kernel's random bytes, read many at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

_AT_ONCE: Final = 256


class HexSource:
    """Identifiers of `size` random bytes as hexadecimal digits, unique in every thread and forked process.

    For identifiers of requests and traces, which are no secrets: the next ones wait in memory.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ready: Iterator[str] = iter(())
        os.register_at_fork(after_in_child=self._forget)

    def take(self) -> str:
        """The next identifier."""
        found = next(self._ready, None)  # atomic, so no two threads get the same one
        if found is not None:
            return found
        digits = os.urandom(self._size * _AT_ONCE).hex()
        width = self._size * 2
        fresh = iter([digits[at : at + width] for at in range(0, len(digits), width)])
        first = next(fresh)
        self._ready = fresh
        return first

    def _forget(self) -> None:
        self._ready = iter(())
