"""The figures of money that adds up, each with its floor, written to `bench/results/money.json`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench import single_figure
from bench.figures import audit, postings, proofs, storm, webhooks
from bench.machine import load_average
from bench.results import DIRECTORY, Detail
from bench.steps import OutOfTime, Steps
from bench.systems import CannotStart

MONEY: Final = DIRECTORY / "money.json"

Measure = Callable[[Path, int, Steps], Mapping[str, Detail]]
FIGURES: Final[Mapping[str, Measure]] = {
    "postings": postings.measure,
    "webhooks": webhooks.measure,
    "audit": audit.measure,
    "proof": proofs.measure,
    "storm": storm.measure,
}
"""Each measures in an empty folder; `proof` with about this many rows of the log."""


def run(rows: int, out: Path, note: str, steps: Steps) -> None:
    """Measure every figure and write the results; what the time does not suffice for is skipped."""
    before, found, skipped = round(load_average(), 2), {}, {}
    for name, measure in FIGURES.items():
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="ataa-bench-") as folder, steps.limited():
                found[name] = measure(Path(folder), rows, steps)
        except OutOfTime:
            skipped[name] = f"the time was over {time.monotonic() - began:.0f} s after it began"
        except CannotStart as error:
            skipped[name] = str(error)
    conditions: dict[str, Detail] = {"load_average_before": before} | ({"note": note} if note else {})
    single_figure.write(out, found, conditions, skipped)
