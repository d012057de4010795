"""A small storm: more pledges than the processor opens checkouts for, on the embedded system."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import storm
from bench.figures.storm import Storm, StormOptions, Told

OPTIONS = StormOptions(pledges=200, compression=2.0)


def test_a_storm_drains_and_no_donor_is_told_a_figure_that_grew(tmp_path: Path) -> None:
    found = storm.run(tmp_path, OPTIONS)
    assert found.errors == []
    assert (found.told.grown_positions, found.told.grown_etas) == (0, 0)
    assert storm.is_whole(found, OPTIONS)
    assert found.told.most_position > 0  # there was a queue; how long depends on the machine
    assert found.drained_s > found.storm_s


def test_a_figure_that_grew_is_noticed() -> None:
    told = Told()
    told.note(None, {"position": 5, "eta_seconds": 2})
    told.note({"position": 5, "eta_seconds": 2}, {"position": 4, "eta_seconds": 3})
    told.note({"position": 4, "eta_seconds": 2}, {"position": 6, "eta_seconds": 2})
    told.note({"position": 4, "eta_seconds": 2}, None)
    assert (told.answers, told.grown_positions, told.grown_etas) == (3, 1, 1)


@pytest.mark.parametrize(
    "found",
    [
        Storm(paid=199, difference="0.00 USD"),
        Storm(paid=200, difference="0.01 USD"),
        Storm(paid=200, difference="0.00 USD", errors=["one"]),
        Storm(paid=200, difference="0.00 USD", told=Told(grown_positions=1)),
        Storm(paid=200, difference="0.00 USD", told=Told(grown_etas=1)),
    ],
)
def test_a_storm_that_lost_a_pledge_or_misled_a_donor_is_not_whole(found: Storm) -> None:
    assert not storm.is_whole(found, OPTIONS)
    assert storm.is_whole(Storm(paid=200, difference="0.00 USD"), OPTIONS)
