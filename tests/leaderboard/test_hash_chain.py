"""The hash chain of a drive's log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.clock import rfc3339
from services.leaderboard.hash_chain import (
    FIRST_HASH,
    canonical,
    hash_new_row,
    hash_row,
    public_row,
    verify,
)

NOON = datetime(2022, 1, 7, 12, tzinfo=UTC)
AMOUNTS = st.integers(0, 10_000)


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


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none() | st.integers(-(2**62), 2**62) | st.text(max_size=9) | st.booleans(),
        max_size=4,
    )
)
def test_canonical_json_is_that_of_the_standard_library(value: dict[str, Any]) -> None:
    assert canonical(value).decode() == json.dumps(value, sort_keys=True, separators=(",", ":"))
