"""Shows what a run is doing: one line a step with its duration, and each figure as it is measured."""

from __future__ import annotations

import time

from rich.console import Console

from bench.results import Measured
from bench.specs import EVERY
from bench.table import number


class Progress:
    """Prints to `console`, with the seconds since the beginning before each line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def begin(self, what: str, seconds: float = 0.0) -> None:
        """A step begins that takes about `seconds`."""
        self._line(f"{what}{f', about {seconds:.0f} s' if seconds else ''} …")

    def measured(self, measured: Measured) -> None:
        """A figure is known."""
        spec = EVERY[measured.name]
        sign = "≤" if spec.lower_is_better else "≥"
        reached = "reached" if spec.is_reached(measured.value) else "missed"
        floor = f", floor {number(measured.floor)}" if measured.floor is not None else ""
        self._line(
            f"  {measured.name}: {number(measured.value)} {spec.unit}"
            f" (aim {sign} {number(spec.aim)} {reached}{floor})"
        )

    def failed(self, reason: str) -> None:
        """A step failed."""
        self._line(f"  skipped: {reason}")

    def _line(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:5.0f} s  {text}", markup=False, highlight=False)
