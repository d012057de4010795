"""The domain rules: hash chain, log rows of a change, milestones, percent."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.contracts import DriveState
from backbone.exchange_rates import converted
from services.leaderboard.domain import (
    Figures,
    IllegalTransition,
    Milestone,
    carry_over,
    changes,
    moves,
    newest,
    percent,
    reported_changes,
)

AMOUNTS = st.integers(0, 10_000)
FIGURES = st.builds(Figures, AMOUNTS, AMOUNTS, AMOUNTS)


@given(FIGURES, FIGURES)
def test_rows_of_a_change_add_up_to_the_change_of_the_net(old: Figures, new: Figures) -> None:
    rows = changes(old, new)
    assert sum(moved for _, moved in rows) == new.net - old.net
    assert all(moved for _, moved in rows)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (Figures(), Figures(50), [("donation.counted", 50)]),
        (Figures(50), Figures(50, 20), [("donation.refunded", -20)]),
        (Figures(50, 20), Figures(50), [("donation.refund_failed", 20)]),
        (Figures(50), Figures(50, 0, 50), [("donation.disputed", -50)]),
        (Figures(50, 0, 50), Figures(50), [("donation.dispute_won", 50)]),
        (Figures(), Figures(50, 20), [("donation.counted", 50), ("donation.refunded", -20)]),
        (Figures(50), Figures(50), []),
        (Figures(50), Figures(80), [("donation.corrected", 30)]),
        (Figures(50, 50), Figures(80, 50), [("donation.corrected", 30)]),
        (Figures(80), Figures(50), [("donation.refunded", -30)]),
        (Figures(50, 20), Figures(), [("donation.refunded", -30)]),
        (Figures(50, 0, 50), Figures(), []),
        (Figures(50, 30, 40), Figures(), [("donation.corrected", 20)]),
    ],
)
def test_change_is_logged_with_its_type(old: Figures, new: Figures, said: list[tuple[str, int]]) -> None:
    assert changes(old, new) == said


RATES = st.sampled_from(["3.2581", "0.27229408", "0.0064531", "0.5", "1"])


@given(FIGURES, FIGURES, RATES)
def test_rows_of_a_foreign_change_have_the_sign_of_their_type_and_add_up_exactly(
    old: Figures, new: Figures, rate: str
) -> None:
    def value(net: int) -> int:
        return converted(net, "KWD", "USD", rate)

    rows = reported_changes(old, new, value)
    assert sum(moved for _, moved in rows) == value(new.net) - value(old.net)
    given_signs = {type_: moved > 0 for type_, moved in changes(old, new)}
    assert {type_: moved > 0 for type_, moved in rows}.items() <= given_signs.items()
    assert all(moved for _, moved in rows)


def test_drive_first_seen_as_paused_is_logged_as_opened_and_paused() -> None:
    assert moves(DriveState.DRAFT, DriveState.PAUSED) == ("drive.opened", "drive.paused")
    assert moves(DriveState.LIVE, DriveState.LIVE) == ()


def test_closed_drive_cannot_reopen() -> None:
    with pytest.raises(IllegalTransition):
        moves(DriveState.CLOSED, DriveState.LIVE)


def test_renamed_milestone_stays_reached() -> None:
    old = [Milestone(title="half", amount=50, reached_at="2022-01-07T12:00:00.000Z")]
    kept = carry_over(old, [("all", 100), ("half way", 50)])
    assert [(one["title"], one["reached_at"] is not None) for one in kept] == [
        ("half way", True),
        ("all", False),
    ]


@pytest.mark.parametrize(
    ("raised", "goal", "shown"),
    [
        (1_105_317_400, 1_000_000_000, 110.5),
        (0, 100, 0.0),
        (1, 3, 33.3),
        (2, 3, 66.6),
        (999_600, 1_000_000, 99.9),
        (999_999, 1_000_000, 99.9),
        (1_000_000, 1_000_000, 100.0),
        (1_000_001, 1_000_000, 100.0),
        (-5, 100, 0.0),
        (-1, 1_000_000, 0.0),
        (5, 0, 0.0),
    ],
)
def test_percent_is_rounded_down_to_one_decimal_and_never_negative(
    raised: int, goal: int, shown: float
) -> None:
    assert percent(raised, goal) == shown


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**12))
def test_percent_is_100_exactly_when_the_goal_is_reached(raised: int, goal: int) -> None:
    assert (percent(raised, goal) >= 100) == (raised >= goal)


@dataclass(frozen=True)
class State:
    name: str
    version: int


def test_newest_keeps_the_position_of_the_newest_version() -> None:
    given_ = [State("a", 2), State("b", 1), State("a", 1), State("b", 2), State("a", 2)]
    assert newest(given_, lambda state: state.name) == [State("a", 2), State("b", 2)]
