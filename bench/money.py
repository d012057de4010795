"""The figures of money that adds up, each with its floor, written to `bench/results/money.json`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench import single_figure
from bench.figures import proofs, storm
from bench.results import DIRECTORY, Detail

MONEY: Final = DIRECTORY / "money.json"

Measure = Callable[[Path, int], Mapping[str, Detail]]
FIGURES: Final[Mapping[str, Measure]] = {"proof": proofs.measure, "storm": storm.measure}
"""Each measures in an empty folder, with about this many rows stored."""


def run(rows: int, out: Path, note: str) -> None:
    """Measure every figure and write the results."""
    found = {}
    for name, measure in FIGURES.items():
        with tempfile.TemporaryDirectory(prefix="ataa-bench-") as folder:
            found[name] = measure(Path(folder), rows)
    single_figure.write(out, found, {"note": note} if note else {})
