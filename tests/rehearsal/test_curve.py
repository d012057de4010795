"""The modelled curve, for any seed and size."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.amounts import LARGEST_GIFT_CENTS, as_decimal
from rehearsal.curve import INSTITUTION_GIFT_CENTS, INSTITUTIONS, gift_size, spread, winter

seeds = st.integers(min_value=0, max_value=2**32)
weights = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50).filter(
    lambda many: sum(many) > 1e-3
)


@given(count=st.integers(0, 300), seconds=st.floats(0.1, 1e4), weights=weights, seed=seeds)
def test_spread_returns_count_ordered_times_within_the_duration(
    count: int, seconds: float, weights: list[float], seed: int
) -> None:
    times = spread(count, seconds, weights, random.Random(seed))  # noqa: S311

    assert len(times) == count
    assert times == sorted(times)
    assert all(0 <= at <= seconds for at in times)


@given(weights=weights, seed=seeds)
def test_every_interval_gets_its_share_to_within_one_donation(weights: list[float], seed: int) -> None:
    times = spread(200, float(len(weights)), weights, random.Random(seed))  # noqa: S311

    for slot, weight in enumerate(weights):
        got = sum(slot <= at < slot + 1 for at in times)
        assert abs(got - 200 * weight / sum(weights)) <= 2


@pytest.mark.parametrize("gifts", [10, 199, 200, 2_250])
def test_exactly_one_donation_is_999999_99(gifts: int) -> None:
    amounts = [arrival.amount_cents for arrival in winter(gifts, 40.0, seed=3).arrivals]

    assert len(amounts) == gifts
    assert amounts.count(INSTITUTION_GIFT_CENTS) == 1
    assert as_decimal(INSTITUTION_GIFT_CENTS) == "999999.99"


def test_twelve_institutions_donate_two_million_in_total() -> None:
    plan = winter(2_250, 40.0, seed=3)

    assert len(plan.institutions) == INSTITUTIONS
    total = sum(plan.arrivals[place].amount_cents for place in plan.institutions)
    assert total == pytest.approx(200_000_000, rel=0.01)


def test_plan_is_determined_by_the_seed() -> None:
    assert winter(300, 40.0, seed=1) == winter(300, 40.0, seed=1)
    assert winter(300, 40.0, seed=1).arrivals != winter(300, 40.0, seed=2).arrivals


def test_amounts_have_the_modelled_distribution() -> None:
    rng = random.Random(7)  # noqa: S311
    sizes = sorted(gift_size(rng) for _ in range(20_000))

    def at(share: float) -> float:
        return sizes[int(len(sizes) * share)] / 100

    assert at(0.10) == pytest.approx(5, abs=2)
    assert at(0.25) == pytest.approx(10, abs=2)
    assert 17 <= at(0.50) <= 27
    assert 40 <= at(0.75) <= 60
    assert 75 <= at(0.90) <= 125
    on_the_menu = sum(size in (500, 1_000, 2_000, 2_500, 5_000) for size in sizes) / len(sizes)
    assert on_the_menu == pytest.approx(0.73, abs=0.07)


@given(seed=seeds)
def test_every_amount_is_within_stripes_limits(seed: int) -> None:
    assert 100 <= gift_size(random.Random(seed)) <= LARGEST_GIFT_CENTS  # noqa: S311


def test_curve_has_a_burst_above_twice_its_mean() -> None:
    times = [arrival.at_s for arrival in winter(2_250, 40.0, seed=3).arrivals]

    busiest = max(sum(start <= at < start + 2 for at in times) / 2 for start in range(39))
    assert busiest > 2 * 2_250 / 40


@given(cents=st.integers(0, 10**12))
def test_decimal_string_has_two_decimals_and_equals_the_cents(cents: int) -> None:
    whole, _, fraction = as_decimal(cents).partition(".")

    assert len(fraction) == 2
    assert int(whole + fraction) == cents
