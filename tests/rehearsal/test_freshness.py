"""Freshness joins three observations; the rate is that of the busiest window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.freshness import Freshness, busiest_rate, percentile


def counted(sequence: int, pledge: str) -> dict[str, object]:
    return {"sequence": sequence, "type": "donation.counted", "pledge": pledge}


def acknowledged(pledge: str, at: float | None, kind: str = "payment_intent.succeeded") -> dict[str, object]:
    return {"type": kind, "pledge": pledge, "acked_at": at}


def test_donation_is_seen_with_the_first_frame_that_covers_it() -> None:
    freshness = Freshness()
    freshness.note_log([counted(3, "plg_a"), counted(4, "plg_b")])
    freshness.note_deliveries([acknowledged("plg_a", 100.0), acknowledged("plg_b", 100.1)], 2)
    for sequence, at in ((2, 99.0), (3, 100.25), (3, 100.3), (7, 100.5)):
        freshness.note_frame(sequence, at)

    assert freshness.delays_ms() == pytest.approx([250.0, 400.0])
    assert freshness.seen_times() == [100.25, 100.5]


def test_delay_begins_at_the_earliest_capturing_webhook() -> None:
    freshness = Freshness()
    freshness.note_log([counted(1, "plg_a")])
    freshness.note_deliveries(
        [
            acknowledged("plg_a", 99.0, "charge.refunded"),
            acknowledged("plg_a", 100.4, "checkout.session.completed"),
            acknowledged("plg_a", 100.2),
        ],
        3,
    )
    freshness.note_frame(1, 100.5)

    assert freshness.delays_ms() == pytest.approx([300.0])


def test_donation_found_by_backfill_is_counted_without_a_delay() -> None:
    freshness = Freshness()
    freshness.note_log([counted(1, "plg_a")])
    freshness.note_deliveries([acknowledged("plg_a", None)], 1)
    freshness.note_frame(1, 100.5)

    assert (freshness.delays_ms(), len(freshness.counted)) == ([], 1)


def test_donation_without_a_covering_frame_is_not_seen() -> None:
    freshness = Freshness()
    freshness.note_log([counted(5, "plg_a")])
    freshness.note_frame(4, 100.0)

    assert freshness.seen_at(5) is None
    assert freshness.seen_times() == []


def test_repeated_row_is_ignored_and_a_second_count_of_a_pledge_is_recorded() -> None:
    freshness = Freshness()
    rows = [counted(1, "plg_a"), {"sequence": 2, "type": "donation.refunded", "pledge": "plg_a"}]
    freshness.note_log(rows)
    freshness.note_log(rows)
    assert freshness.counted_twice == []

    freshness.note_log([counted(3, "plg_a")])
    assert (freshness.counted_twice, freshness.log_sequence) == (["plg_a"], 3)


def test_percentile_is_the_nearest_rank() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert (percentile(hundred, 0.50), percentile(hundred, 0.99)) == (50.0, 99.0)
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None


@given(times=st.lists(st.floats(0, 200), max_size=200).map(sorted), window=st.floats(1, 50))
def test_busiest_rate_equals_a_naive_count(times: list[float], window: float) -> None:
    naive = max((sum(0 <= at - start < window for at in times) for start in times), default=0)

    assert busiest_rate(times, window) == pytest.approx(naive / window)
