"""The domain rules: hash chain, log rows of a change, milestones, percent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.clock import rfc3339
from backbone.contracts import DriveState
from services.leaderboard.domain import (
    FIRST_HASH,
    Figures,
    IllegalTransition,
    Milestone,
    canonical,
    carry_over,
    changes,
    hash_new_row,
    hash_row,
    moves,
    newest,
    percent,
    public_row,
    verify,
)

NOON = datetime(2022, 1, 7, 12, tzinfo=UTC)
AMOUNTS = st.integers(0, 10_000)
FIGURES = st.builds(Figures, AMOUNTS, AMOUNTS, AMOUNTS)


def make_log(length: int) -> list[dict[str, Any]]:
    rows, previous = [], FIRST_HASH
    for sequence in range(1, length + 1):
        row: dict[str, Any] = {"sequence": sequence, "type": "donation.counted", "amount": sequence}
        row["hash"] = previous = hash_row("drv_a", 1, row, previous)
        rows.append(row)
    return rows


def test_hash_matches_its_documentation() -> None:
    row = {"sequence": 1, "type": "drive.opened", "amount": None, "hash": "not part of it"}
    # sha256sum of {"amount":null,"drive":"drv_a","epoch":1,"previous":"","sequence":1,"type":"drive.opened"}
    assert hash_row("drv_a", 1, row, "") == (
        "f43e305a35eac5f089fc2cd38f337e8df1402cc13ee75bbcf0d481ab24cf934e"
    )


TEXTS = st.text(max_size=6)


@given(TEXTS, AMOUNTS, TEXTS, st.none() | TEXTS, st.none() | AMOUNTS, st.integers(-(2**62), 2**62), TEXTS)
def test_hash_of_a_new_row_is_that_of_the_row_as_it_is_shown(
    drive: str, sequence: int, type_: str, payment: str | None, amount: int | None, raised: int, previous: str
) -> None:
    about = (payment, None, type_)
    shown = public_row(sequence, type_, NOON, *about, amount, raised, "JPY")
    new = hash_new_row(
        drive, 2, sequence, type_, rfc3339(NOON), *about, amount, raised, "JPY", previous
    )  # fmt: skip
    assert new == hash_row(drive, 2, shown, previous)


def test_unchanged_log_has_no_flaw_whole_or_in_two_parts() -> None:
    log = make_log(6)
    assert verify("drv_a", 1, log) is None
    assert verify("drv_a", 1, log[4:], log[3]["hash"], after=4) is None


@pytest.mark.parametrize("field", ["amount", "type", "hash"])
def test_changed_row_is_detected(field: str) -> None:
    log = make_log(6)
    log[2][field] = "something else"
    flaw = verify("drv_a", 1, log)
    assert flaw is not None
    assert flaw.sequence == 3


def test_row_changed_with_its_hash_is_detected_at_the_next_row() -> None:
    log = make_log(6)
    log[2]["amount"] = 999
    log[2]["hash"] = hash_row("drv_a", 1, log[2], log[1]["hash"])
    flaw = verify("drv_a", 1, log)
    assert flaw is not None
    assert flaw.sequence == 4


@pytest.mark.parametrize("spoil", [lambda log: log.pop(2), lambda log: log.insert(2, log[2])])
def test_missing_or_repeated_row_is_detected(spoil: Any) -> None:
    log = make_log(6)
    spoil(log)
    assert verify("drv_a", 1, log) is not None


def test_row_of_another_drive_is_detected() -> None:
    assert verify("drv_b", 1, make_log(1)) is not None


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


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.integers(-(2**62), 2**62) | st.text(max_size=9) | st.booleans(),
        max_size=4,
    )
)
def test_canonical_json_is_that_of_the_standard_library(value: dict[str, Any]) -> None:
    assert canonical(value).decode() == json.dumps(value, sort_keys=True, separators=(",", ":"))
