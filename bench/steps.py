"""The steps of a long run: a bar for each, and a time limit for all of them together."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[int], None]
"""Notes that so many more of a step's units are done."""


class OutOfTime(SystemExit):
    """The time is over. A `SystemExit`, so that it ends an event loop whichever task it interrupts."""


class Steps:
    """Shows steps on `console`, each with a bar on a terminal, else with a line; without one, nothing.

    Everything within `limited` ends `limit_s` after these steps were made.
    """

    def __init__(self, console: Console | None = None, limit_s: float = float("inf")) -> None:
        self._console = console or Console(quiet=True)
        self._limit_s = limit_s
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        """How much of the time is left."""
        return self._began + self._limit_s - time.monotonic()

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Raises OutOfTime within the block once no time is left. In the main thread only."""
        left_s = self.left_s
        if left_s <= 0:
            raise OutOfTime
        before = signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, left_s if left_s != float("inf") else 0.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)

    @contextmanager
    def step(self, what: str, total: float) -> Iterator[Advance]:
        """A step of `total` units."""
        began = time.monotonic()
        with Progress(*_columns(), console=self._console, disable=not self._console.is_terminal) as shown:
            task = shown.add_task(what, total=total)
            yield lambda done: shown.advance(task, done)
        if not self._console.is_terminal:
            self._console.print(f"{what}: {time.monotonic() - began:.0f} s", markup=False, highlight=False)


def _columns() -> tuple[TextColumn, BarColumn, TaskProgressColumn, TimeElapsedColumn]:
    return TextColumn("{task.description:<44}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()


def _end(*_: object) -> NoReturn:
    raise OutOfTime
