"""Progress, proof and report, with and without a terminal."""

from decimal import Decimal

from rich.console import Console

from rehearsal.console import Progress, Screen, grouped
from rehearsal.donors import Tally
from rehearsal.freshness import Freshness
from rehearsal.proof import Proof, difference
from rehearsal.report import compose, measure

BOOKS = {name: {"USD": Decimal("1234567.80")} for name in ("sandbox", "ledger", "totals", "pledges")}
PROOF = Proof(True, BOOKS, difference(BOOKS), 2, 2, (), (), Decimal("0.00"), None)
PROGRESS = Progress("the drive's curve", 0.5, "1234567.80", 4_321, 151.2, 83.4, 12.0)


def measured() -> Freshness:
    freshness = Freshness()
    rows = [{"sequence": n, "type": "donation.counted", "pledge": f"plg_{n}"} for n in (1, 2)]
    freshness.note_log(rows)
    acks = [{"type": "payment_intent.succeeded", "pledge": f"plg_{n}", "acked_at": 100.0} for n in (1, 2)]
    freshness.note_deliveries(acks, 2)
    freshness.note_frame(1, 100.05)
    freshness.note_frame(2, 100.1)
    return freshness


def test_progress_without_a_terminal_is_one_plain_line() -> None:
    screen = Screen(Console(width=60, force_terminal=False, record=True, highlight=False))
    with screen:
        screen.show(PROGRESS)
        screen.show(PROGRESS)

    assert screen.console.export_text().splitlines() == [
        "the drive's curve: 1,234,567.80 USD from 4,321 donations, 151/s, freshness 83 ms, 12 s left"
    ]


def test_progress_on_a_terminal_is_a_bar_with_figures() -> None:
    screen = Screen(Console(width=80, force_terminal=True, record=True, highlight=False))
    with screen:
        screen.show(PROGRESS)

    text = screen.console.export_text()
    for expected in ("1,234,567.80", "4,321 donations", "151/s", "freshness 83 ms", "12 s left", "━"):
        assert expected in text


def test_money_is_grouped_by_thousands() -> None:
    assert grouped("11053174.00") == "11,053,174.00"


def test_proof_shows_each_book_the_difference_and_the_targets() -> None:
    figures = measure(
        measured(), 98.1, {"raised": {"value": "1234567.80"}}, {"embedded": 93.1}, retries=7, restarts=1
    )
    screen = Screen(Console(width=100, force_terminal=False, record=True, highlight=False))

    screen.print_proof(PROOF, figures, Tally(paid={"plg_1": 1, "plg_2": 2}))

    text = screen.console.export_text()
    for expected in (
        "Stripe sandbox",
        "payments",
        "leaderboard",
        "pledges",
        "Difference",
        "0.00",
        "2 / 2",
        "7, 1",
    ):
        assert expected in text
    for expected in ("target: at least 150", "target: at most 600 ms", "93 MB", "PROVEN: 2 donations"):
        assert expected in text


def test_report_has_the_documented_fields() -> None:
    figures = measure(
        measured(), 98.1, {"raised": {"value": "1234567.80"}}, {"embedded": 93.1}, retries=7, restarts=1
    )

    assert compose(figures, PROOF) == {
        "stack": "embedded",
        "donations": 2,
        "duration_s": 2.0,
        "donations_per_s": 0.1,
        "freshness_ms": {"p50": 50.0, "p99": 100.0},
        "raised": {"USD": "1234567.80"},
        "books": {name: {"USD": "1234567.80"} for name in BOOKS},
        "difference": {"USD": "0.00"},
        "peak_rss_mb": {"embedded": 93.1},
    }
