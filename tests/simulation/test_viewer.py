"""What is reported about the versions and the `as_of` that a viewer of a simulated run was shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from simulation.viewer import ShownTotals

NOON = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shown", "violations"),
    [
        ([(1, 2, 0), (1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 1, 0)], 0),
        ([(1, 2, 0), (1, 1, 0)], 1),
        ([(1, 2, 1), (1, 2, 0)], 1),
        ([(2, 1, 0), (1, 2, 0)], 1),
        ([(1, 3, 0), (1, 1, 0), (1, 2, 0)], 2),
    ],
)
def test_versions_never_go_back(shown: list[tuple[int, int, int]], violations: int) -> None:
    totals = ShownTotals()
    for version in shown:
        totals.check_version(version)
    assert len(totals.violations) == violations


@pytest.mark.parametrize(
    ("shown", "violations"),
    [
        ([(1, 1.0), (1, 1.0), (1, 2.0), (2, 1.0), (2, 1.5)], 0),
        ([(1, 2.0), (1, 1.9)], 1),
        ([(1, 2.0), (1, 1.0), (1, 1.9), (1, 2.0)], 2),
        ([(1, 2.0), (2, 1.0), (2, 0.9)], 1),
    ],
)
def test_as_of_never_goes_back_in_an_epoch(shown: list[tuple[int, float]], violations: int) -> None:
    totals = ShownTotals()
    for epoch, second in shown:
        totals.check_as_of(epoch, NOON + timedelta(seconds=second))
    assert len(totals.violations) == violations


def test_a_sequence_has_one_amount_and_that_is_the_logs() -> None:
    totals = ShownTotals()
    for sequence, value in ((1, "1.00"), (2, "2.00"), (2, "2.50")):
        shown = {"as_of": NOON.isoformat(), "raised": {"value": value}}
        totals.note((1, sequence, 0), shown)
    assert totals.violations == ["two amounts at sequence 2: 2.00 and 2.50"]
    assert totals.differences({1: "1.00", 2: "2.00"}) == []
    assert totals.differences({1: "1.00"}) == ["the totals showed 2.00 at sequence 2, the log says None"]
