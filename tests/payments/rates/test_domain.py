"""Which exchange rates are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backbone.exchange_rates import MAX_AGE, Quote
from services.payments.rates.domain import KnownRate, Refusal, refusal

NOW = datetime(2030, 1, 7, 18, tzinfo=UTC)


def known(rate: str, hours: float = 1, *, confirmed: bool = False) -> KnownRate:
    at = NOW - timedelta(hours=hours)
    return KnownRate(Quote(rate, at), at, confirmed)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("1.20", None),
        ("0.80", None),
        ("1.2001", Refusal.JUMP),
        ("0.7999", Refusal.JUMP),
        ("100", Refusal.JUMP),
    ],
)
def test_a_rate_may_differ_by_a_fifth(rate: str, expected: Refusal | None) -> None:
    assert refusal(Quote(rate, NOW), [known("1.00")], NOW, confirmed=False) is expected
    assert refusal(Quote(rate, NOW), [known("1.00", hours=24 * 90)], NOW, confirmed=False) is expected
    assert refusal(Quote(rate, NOW), [known("1.00")], NOW, confirmed=True) is None


def test_several_small_steps_within_a_day_are_one_jump() -> None:
    steps = [known("1.19", 1), known("1.00", 23)]
    assert refusal(Quote("1.38", NOW), steps, NOW, confirmed=False) is Refusal.JUMP
    slower = [known("1.19", 1), known("1.00", 25)]
    assert refusal(Quote("1.38", NOW), slower, NOW, confirmed=False) is None


def test_rates_before_a_confirmed_one_are_no_longer_compared() -> None:
    confirmed = [known("2.00", 1, confirmed=True), known("1.00", 2)]
    assert refusal(Quote("2.10", NOW), confirmed, NOW, confirmed=False) is None
    assert refusal(Quote("1.00", NOW), confirmed, NOW, confirmed=False) is Refusal.JUMP


def test_stale_and_older_rates_are_refused_confirmed_or_not() -> None:
    stale = Quote("1.00", NOW - MAX_AGE - timedelta(seconds=1))
    older = Quote("1.00", NOW - timedelta(hours=2))
    for confirmed in (False, True):
        assert refusal(stale, [], NOW, confirmed=confirmed) is Refusal.STALE
        assert refusal(older, [known("1.00", 1)], NOW, confirmed=confirmed) is Refusal.OLDER
    assert refusal(Quote("5", NOW - MAX_AGE), [], NOW, confirmed=False) is None
