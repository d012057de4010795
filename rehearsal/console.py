"""Terminal output: progress while the demo runs, the proof at its end; plain lines without a terminal."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rehearsal.amounts import CURRENCY
from rehearsal.donors import Tally
from rehearsal.proof import Proof
from rehearsal.report import REPORT, Figures, Stack

TARGET_RSS_MB: Final = 200.0
_ENGINES: Final = frozenset({"kafka", "postgres", "prometheus"})
"""Processes that are not Ataa's: their memory is shown without a target."""
_LINE_EACH_S: Final = 5.0
_PLAIN_WIDTH: Final = 100

_BOOK_LABELS: Final = {
    "sandbox": ("Stripe sandbox", "charges, less refunds and disputes"),
    "ledger": ("payments", "ledger entries"),
    "totals": ("leaderboard", "totals shown to viewers"),
    "pledges": ("pledges", "paid pledges"),
}


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets on two cores: complete donations a second, and p99 from card to screen."""

    per_s: float
    p99_ms: float


TARGETS: Final[Mapping[Stack, Targets]] = {"embedded": Targets(150.0, 600.0), "real": Targets(60.0, 1000.0)}


@dataclass(frozen=True, slots=True)
class Progress:
    """What is shown while the demo runs; `done` is 0 to 1, `freshness_ms` None before the first donation."""

    phase: str
    done: float
    raised: str
    donations: int
    per_s: float
    freshness_ms: float | None
    eta_s: float

    def figures(self) -> str:
        """Money, donations, rate, freshness and remaining time in one line."""
        fresh = "-" if self.freshness_ms is None else f"{self.freshness_ms:.0f} ms"
        return (
            f"{grouped(self.raised)} {CURRENCY} from {self.donations:,} donations, "
            f"{self.per_s:.0f}/s, freshness {fresh}, {self.eta_s:.0f} s left"
        )

    def line(self) -> str:
        """Phase and figures in one plain line."""
        return f"{self.phase}: {self.figures()}"

    def bar(self) -> Table:
        """Phase, progress bar and figures: three lines that fit any terminal."""
        lines = Table.grid(expand=True)
        lines.add_row(Text(self.phase, style="bold", no_wrap=True, overflow="ellipsis"))
        lines.add_row(ProgressBar(total=1.0, completed=self.done))
        lines.add_row(Text(self.figures(), style="green"))
        return lines


class Screen:
    """Prints to the terminal; without one, prints plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        plain = not sys.stdout.isatty()
        self.console = console or Console(highlight=False, width=_PLAIN_WIDTH if plain else None)
        self._live: Live | None = None
        self._line_at = 0.0

    def print_line(self, line: str) -> None:
        """Print one line, above the progress bar."""
        self.console.print(Text(line), soft_wrap=True)

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, progress: Progress) -> None:
        """Update the progress bar; without a terminal, print a line every few seconds."""
        if self._live is not None:
            self._live.update(progress.bar(), refresh=True)
        elif time.monotonic() - self._line_at >= _LINE_EACH_S:
            self._line_at = time.monotonic()
            self.print_line(progress.line())

    def print_proof(
        self,
        proof: Proof,
        figures: Figures,
        tally: Tally,
        stack: Stack = "embedded",
        *,
        report: Path = REPORT,
    ) -> None:
        """Print the proof, the figures and the verdict."""
        self.console.print()
        self.console.print(_books(proof))
        self.console.print(_figures(proof, figures, tally, TARGETS[stack]))
        for line in shortcomings(proof):
            self.console.print(Text(line, style="red"), soft_wrap=True)
        for error in tally.errors[:5]:
            self.console.print(Text(f"error: {error}", style="yellow"), soft_wrap=True)
        if tally.error_count > 5:
            self.console.print(Text(f"... and {tally.error_count - 5} more", style="yellow"))
        self.console.print(_verdict(proof))
        self.print_line(f"All figures are in {report}.")


def grouped(value: str) -> str:
    """`"1234.50"` as `"1,234.50"`."""
    return f"{Decimal(value):,}"


def _books(proof: Proof) -> Table:
    table = Table(title="The books of the four systems, which share no data", title_justify="left")
    currencies = list(proof.difference)
    table.add_column("system")
    table.add_column("counts")
    for currency in currencies:
        table.add_column(currency, justify="right")
    for name, (who, what) in _BOOK_LABELS.items():
        book = proof.books.get(name)
        amounts = ("no reply" if book is None else f"{book.get(c, Decimal('0.00')):,}" for c in currencies)
        table.add_row(who, what, *amounts)
    table.add_section()
    table.add_row("Difference", "must be zero", *(f"{proof.difference[c]:,}" for c in currencies))
    return table


def _figures(proof: Proof, figures: Figures, tally: Tally, targets: Targets) -> Table:
    table = Table(title="Figures", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    rows = [
        ("Pledges made", f"{tally.pledged:,}", ""),
        ("Donations paid / counted", f"{proof.given:,} / {proof.counted:,}", "must be equal"),
        ("Cards declined, checkouts abandoned", f"{tally.declined:,}, {tally.abandoned:,}", ""),
        ("Refunds, disputes", f"{tally.refunds:,}, {tally.disputes:,}", ""),
        ("Requests retried, processes restarted", f"{figures.retries:,}, {figures.restarts:,}", ""),
        (
            "Donations a second, busiest 20 s",
            f"{figures.donations_per_s:.1f}",
            f"target: at least {targets.per_s:.0f}",
        ),
        ("From card to screen, p50", _ms(figures.freshness_p50_ms), ""),
        (
            "From card to screen, p99",
            _ms(figures.freshness_p99_ms),
            f"target: at most {targets.p99_ms:.0f} ms",
        ),
    ]
    for process, peak in figures.peak_rss_mb.items():
        target = "" if process in _ENGINES else f"target: at most {TARGET_RSS_MB:.0f} MB"
        rows.append((f"Peak memory, {process}", f"{peak:.0f} MB", target))
    for row in rows:
        table.add_row(*row)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def shortcomings(proof: Proof) -> list[str]:
    """One line for each condition that does not hold; empty when the proof holds and all work is done."""
    lines = []
    if not proof.books:
        lines.append("The books could not be read.")
    lines += [
        f"The books differ by {amount:,} {currency}."
        for currency, amount in proof.difference.items()
        if amount
    ]
    if proof.uncaptured:
        lines.append(f"Donors paid {proof.uncaptured:,} {CURRENCY} that the sandbox did not capture.")
    if proof.lost:
        lines.append(f"{len(proof.lost)} paid donations were not counted: {', '.join(proof.lost[:5])}")
    if proof.counted_twice:
        lines.append(
            f"{len(proof.counted_twice)} donations were counted twice: {', '.join(proof.counted_twice[:5])}"
        )
    if not proof.drained:
        lines.append(
            f"The system did not finish in time; still waiting for {proof.read_error or 'stable books'}."
        )
    return lines


def _verdict(proof: Proof) -> Panel:
    if proof.holds:
        line = f"PROVEN: {proof.counted:,} donations, each counted once; the books agree to the cent."
        return Panel(Text(line, style="bold green"), expand=False)
    return Panel(Text("NOT PROVEN: see the lines above.", style="bold red"), expand=False)
