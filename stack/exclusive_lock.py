"""The lock of a stack's directory: one process at a time changes what runs in it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.05


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(directory: Path, within_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `directory`, waiting up to `within_s`. Raises Busy; OSError if not writable."""
    directory.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + within_s
    with (directory / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= give_up:
                    raise Busy from None
            time.sleep(_POLL_S)
        yield
