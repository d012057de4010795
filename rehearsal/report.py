"""`demo-report.json`: the figures of one rehearsal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rehearsal.amounts import CURRENCY
from rehearsal.freshness import Freshness, busiest_rate, percentile
from rehearsal.proof import Book, Proof

REPORT: Final = Path("demo-report.json")

Stack = Literal["embedded", "real"]
"""One process on SQLite, or Kafka and PostgreSQL with one process per service."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurements: freshness in milliseconds (None without a measured donation), memory in MB."""

    donations: int
    duration_s: float
    donations_per_s: float
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None
    raised: str
    peak_rss_mb: Mapping[str, float]
    retries: int
    restarts: int


def measure(
    freshness: Freshness,
    started_at: float,
    totals: Mapping[str, Any],
    peaks: Mapping[str, float],
    *,
    retries: int,
    restarts: int,
) -> Figures:
    """Figures of complete donations: one is complete when a `totals` frame covering it has arrived."""
    seen = freshness.seen_times()
    delays = freshness.delays_ms()
    return Figures(
        donations=len(freshness.counted),
        duration_s=round(seen[-1] - started_at, 3) if seen else 0.0,
        donations_per_s=round(busiest_rate(seen), 2),
        freshness_p50_ms=_rounded(percentile(delays, 0.50)),
        freshness_p99_ms=_rounded(percentile(delays, 0.99)),
        raised=str(totals.get("raised", {}).get("value", "0.00")),
        peak_rss_mb=peaks,
        retries=retries,
        restarts=restarts,
    )


def compose(figures: Figures, proof: Proof, stack: Stack = "embedded") -> dict[str, Any]:
    """The report as a JSON object."""
    return {
        "stack": stack,
        "donations": figures.donations,
        "duration_s": figures.duration_s,
        "donations_per_s": figures.donations_per_s,
        "freshness_ms": {"p50": figures.freshness_p50_ms, "p99": figures.freshness_p99_ms},
        "raised": {CURRENCY: figures.raised},
        "books": {name: _decimals(book) for name, book in proof.books.items()},
        "difference": _decimals(proof.difference),
        "peak_rss_mb": dict(figures.peak_rss_mb),
    }


def write(report: Mapping[str, Any], path: Path = REPORT) -> None:
    """Write the report atomically. Raises OSError."""
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def _decimals(book: Book) -> dict[str, str]:
    found = {currency: format(amount, "f") for currency, amount in book.items()}
    return found or {CURRENCY: "0.00"}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
