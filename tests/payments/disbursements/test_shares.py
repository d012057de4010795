"""Shares add up exactly, and nobody is ever owed more than the drive has left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.payments.disbursements.shares import owed, share_out, shares_of


@st.composite
def all_shares(draw: st.DrawFn) -> dict[str, int]:
    cuts = sorted(draw(st.sets(st.integers(1, 9_999), max_size=6)))
    return {
        f"b{n}": end - start for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, 10_000], strict=True))
    }


@given(st.integers(-(10**6), 10**16), all_shares())
def test_parts_add_up_and_each_is_within_one_unit_of_its_share(units: int, shares: dict[str, int]) -> None:
    parts = share_out(units, shares)
    assert sum(parts.values()) == max(0, units)
    assert all(abs(parts[name] * 10_000 - max(0, units) * bps) < 10_000 for name, bps in shares.items())


def test_the_largest_remainder_gets_the_unit_and_of_equal_ones_the_first() -> None:
    assert share_out(100, {"a": 3_333, "b": 3_333, "c": 3_334}) == {"a": 33, "b": 33, "c": 34}
    assert share_out(1, {"a": 5_000, "b": 5_000}) == {"a": 1, "b": 0}


def test_shares_of_equal_names_are_added() -> None:
    named = [{"name": "A", "share_bps": 2_000}, {"name": "B", "share_bps": 5_000}]
    assert shares_of([*named, {"name": "A", "share_bps": 3_000}]) == {"A": 5_000, "B": 5_000}


@given(all_shares(), st.data())
def test_nothing_past_the_net_is_owed_while_it_grows(shares: dict[str, int], data: st.DataObject) -> None:
    """Also where largest remainders take a unit back from one who was paid it."""
    paid: dict[str, int] = {}
    net = 0
    for more in data.draw(st.lists(st.integers(0, 3), max_size=12)):
        net += more
        for name in shares:
            left = owed(net, shares, paid, name)
            assert left >= 0
            paid[name] = paid.get(name, 0) + data.draw(st.integers(0, left))
        assert sum(paid.values()) <= net
