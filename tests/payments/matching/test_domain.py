"""The rules of matching pools: shares, order, refunds, and ratios."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.matching.domain import Allocation, Gift, Pool, rematch, state_of
from services.payments.matching.ratio import ACCEPTED_PATTERN, RATIO_PATTERN, parse_ratio, ratio_text

NOON = datetime(2026, 1, 7, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_pool(number: int = 1, cap: int = 10_000, used: int = 0, ratio: int = 10_000, **other: Any) -> Pool:
    given: dict[str, Any] = {
        "per_gift_cap": None, "creator_id": None, "starts_at": NOON - HOUR, "ends_at": None, "ended_at": None
    }  # fmt: skip
    return Pool(
        number, f"mch_{number}", "drv", 1, "Acme", "USD", cap=cap, used=used, ratio=ratio, **given | other
    )


def a_gift(net: int, name: str = "pay_1", at: datetime = NOON, **other: Any) -> Gift:
    given: dict[str, Any] = {"creator_id": None, "before": None, "is_new": "before" not in other}
    return Gift(name, "drv", captured_at=at, after=net, **given | other)


def shares(pools: list[Pool], *gifts: Gift) -> list[int]:
    changes = rematch(pools, [], gifts)
    return [change.units for change in changes]


@pytest.mark.parametrize(
    ("pool", "net", "share"),
    [
        ({}, 2_500, [2_500]),
        ({"ratio": 5_000}, 2_501, [1_250]),
        ({"ratio": 3_333}, 1, []),
        ({"ratio": 1_000_000}, 7, [700]),
        ({"per_gift_cap": 1_000}, 2_500, [1_000]),
        ({"used": 9_999}, 2_500, [1]),
        ({"used": 10_000}, 2_500, []),
        ({"creator_id": "crt_other"}, 2_500, []),
        ({"starts_at": NOON}, 2_500, [2_500]),
        ({"starts_at": NOON + timedelta(seconds=1)}, 2_500, []),
        ({"ends_at": NOON}, 2_500, []),
        ({"ends_at": NOON + timedelta(seconds=1)}, 2_500, [2_500]),
        ({"ended_at": NOON}, 2_500, []),
        ({}, 0, []),
        ({}, -100, []),
    ],
)
def test_share_of_a_new_gift(pool: dict[str, Any], net: int, share: list[int]) -> None:
    assert shares([a_pool(**pool)], a_gift(net)) == share


def test_every_open_pool_gives_its_own_share() -> None:
    assert shares([a_pool(1, ratio=10_000), a_pool(2, ratio=5_000)], a_gift(1_000)) == [1_000, 500]


def test_gifts_of_a_batch_are_matched_in_order_of_their_capture() -> None:
    pools = [a_pool(cap=1_500)]
    later, earlier = a_gift(1_000, "pay_a", NOON), a_gift(1_000, "pay_b", NOON - timedelta(seconds=5))
    changes = rematch(pools, [], [later, earlier])
    assert [(each.allocation.payment_id, each.units) for each in changes] == [
        ("pay_b", 1_000),
        ("pay_a", 500),
    ]


def test_what_a_refund_returns_is_there_for_a_new_gift_of_the_same_batch() -> None:
    pools = [a_pool(cap=1_000, used=1_000)]
    known = [Allocation("pay_1", "mch_1", 1_000, 1_000, 1_000, 1)]
    changes = rematch(pools, known, [a_gift(900, "pay_2"), a_gift(400, before=1_000)])
    assert [each.units for each in changes] == [-600, 600]
    assert pools[0].used == 1_000


def test_earlier_gift_that_got_less_is_not_topped_up() -> None:
    pools = [a_pool(cap=1_000, used=300)]
    known = [Allocation("pay_1", "mch_1", 300, 1_000, 300, 1)]
    assert rematch(pools, known, [a_gift(1_000, before=900)]) == []


def test_failed_refund_takes_back_at_most_what_remains() -> None:
    pools = [a_pool(cap=1_000, used=900)]
    known = [Allocation("pay_1", "mch_1", 500, 500, 0, 2)]
    changes = rematch(pools, known, [a_gift(500, before=0)])
    assert [each.units for each in changes] == [100]


def test_refund_never_raises_a_share_that_was_not_taken_back_in_full() -> None:
    pools = [a_pool(cap=1_000, used=100)]
    known = [Allocation("pay_1", "mch_1", 500, 500, 100, 3)]
    assert rematch(pools, known, [a_gift(400, before=500)]) == []
    assert rematch(pools, known, [a_gift(450, before=400)])[0].units == 50


def test_share_is_proportional_to_what_is_left_and_rounded_down() -> None:
    pools = [a_pool(used=333, ratio=3_333)]
    known = [Allocation("pay_1", "mch_1", 333, 1_000, 333, 1)]
    changes = rematch(pools, known, [a_gift(500, before=1_000)])
    assert [each.units for each in changes] == [-167]
    assert (known[0].units, known[0].postings, pools[0].used) == (166, 2, 166)


def test_pool_of_a_drive_that_the_gift_left_gets_all_of_its_share_back() -> None:
    pools = [a_pool(used=300)]
    known = [Allocation("pay_1", "mch_1", 300, 1_000, 300, 1)]
    moved = a_gift(1_000, before=900)._replace(drive_id="drv_other")
    assert [each.units for each in rematch(pools, known, [moved])] == [-300]


def test_gift_that_left_the_drive_and_came_back_gets_its_share_once() -> None:
    pools = [a_pool()]
    known = [Allocation("pay_1", "mch_1", 300, 1_000, 0, 2)]
    changes = rematch(pools, known, [a_gift(1_000)])
    assert [(each.units, each.allocation.postings) for each in changes] == [(300, 3)]


@pytest.mark.parametrize(
    ("pool", "state"),
    [
        ({}, "active"),
        ({"starts_at": NOON + HOUR}, "scheduled"),
        ({"used": 10_000}, "exhausted"),
        ({"used": 10_000, "ends_at": NOON}, "ended"),
        ({"ended_at": NOON}, "ended"),
        ({"ends_at": NOON + HOUR}, "active"),
    ],
)
def test_state(pool: dict[str, Any], state: str) -> None:
    assert state_of(a_pool(**pool), NOON) == state


@pytest.mark.parametrize(
    ("text", "ratio", "shown"),
    [
        ("1.00", 10_000, "1.00"),
        ("0.5000", 5_000, "0.50"),
        ("0.0001", 1, "0.0001"),
        ("100.00", 1_000_000, "100.00"),
    ],
)
def test_ratio(text: str, ratio: int, shown: str) -> None:
    assert parse_ratio(text) == ratio
    assert ratio_text(ratio) == shown


@pytest.mark.parametrize(
    "text",
    [
        "0.00",
        "100.01",
        "1",
        "1.0",
        "1.00000",
        "01.00",
        "-1.00",
        "+1.00",
        "1e2",
        " 1.00",
        "1.00\n",
        "١.٠٠",
        "",
        ".",
    ],
)
def test_other_ratios_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_ratio(text)


@given(st.from_regex(RATIO_PATTERN, fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_described_ratios_are_those_that_are_accepted(text: str) -> None:
    try:
        parse_ratio(text)
        accepted = True
    except ValueError:
        accepted = False
    assert (re.fullmatch(ACCEPTED_PATTERN, text, re.ASCII) is not None) == accepted
