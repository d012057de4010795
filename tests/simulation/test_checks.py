"""What the viewer of a simulated run reports about versions and `as_of`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from rehearsal.freshness import Freshness
from simulation.checks import BACK_S, SHOWN_S, Viewer

NOON = datetime(2022, 1, 7, 12, 0, tzinfo=UTC)


def viewer_of(**nodes: SimpleNamespace) -> Viewer:
    return Viewer(SimpleNamespace(run=SimpleNamespace(nodes=nodes)), Freshness())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "violations"),
    [
        ([(0, 0, 2, 0.0), (0, 0, 2, 1.0), (1, 0, 3, 2.0)], 0),
        ([(0, 0, 2, 0.0), (0, 0, 1, 1.0)], 1),
        ([(0, 0, 2, 0.0), (1, 0, 1, 1.0)], 1),
        ([(0, 0, 2, 0.0), (0, 1, 1, 1.0)], 1),
        ([(0, 0, 2, 0.0), (1, 1, 1, 1.0), (1, 1, 1, 1.0 + SHOWN_S), (1, 1, 2, 5.0)], 0),
        ([(0, 0, 2, 0.0), (1, 1, 1, 1.0), (1, 1, 1, 1.1 + SHOWN_S)], 1),
        ([(0, 0, 2, 0.0), (1, 1, 1, 1.0), (1, 1, 2, 1.5), (1, 1, 1, 2.0)], 1),
    ],
)
def test_versions_go_back_only_for_a_moment_after_gateway_and_leaderboard_started_again(
    shown: list[tuple[int, int, int, float]], violations: int
) -> None:
    gateway, leaderboard = SimpleNamespace(crashes=0), SimpleNamespace(crashes=0)
    viewer = viewer_of(gateway=gateway, leaderboard=leaderboard)
    for gateway.crashes, leaderboard.crashes, sequence, now in shown:
        viewer.check_version((1, sequence, 0), now)
    assert len(viewer.violations) == violations


@pytest.mark.parametrize(
    ("shown", "violations"),
    [
        ([(0, 1.0), (0, 2.0), (1, 2.0)], 0),
        ([(0, 2.0), (0, 1.9)], 1),
        ([(0, 2.0), (1, 2.0 - BACK_S)], 0),
        ([(0, 2.0), (1, 1.9 - BACK_S)], 1),
        ([(0, 2.0), (1, 1.0), (1, 0.9)], 1),
        ([(0, 2.0), (1, 1.0), (2, 1.9 - BACK_S)], 1),
    ],
)
def test_as_of_goes_back_between_processes_of_the_gateway_only_and_by_a_bounded_time(
    shown: list[tuple[int, float]], violations: int
) -> None:
    gateway = SimpleNamespace(crashes=0)
    viewer = viewer_of(gateway=gateway)
    for gateway.crashes, second in shown:
        viewer.check_as_of(1, NOON + timedelta(seconds=second))
    assert len(viewer.violations) == violations
