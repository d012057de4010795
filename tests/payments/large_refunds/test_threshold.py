"""From which amount on a refund needs a second key."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.money import digits
from services.payments.large_refunds.threshold import NO_THRESHOLD, Threshold
from services.payments.recording.rows import PaymentRow
from services.payments.settings import PaymentsSettings


def a_payment(paid: str | None, rate: str | None = None, reporting: str | None = None) -> PaymentRow:
    return PaymentRow(
        "pay_1", None, "drv_1", captured=10**9, paid_currency=paid, rate=rate, reporting_currency=reporting
    )


@pytest.mark.parametrize(
    ("payment", "units", "passed"),
    [
        (a_payment("USD"), 10_000, False),
        (a_payment("USD"), 10_001, True),
        (a_payment("JPY"), 100, False),
        (a_payment("JPY"), 101, True),
        (a_payment("KWD"), 100_000, False),
        (a_payment("KWD"), 100_001, True),
        (a_payment("KWD", "3.25", "USD"), 30_769, False),  # 99.99925 USD
        (a_payment("KWD", "3.25", "USD"), 30_770, True),  # 100.0025 USD
        (a_payment("JPY", "0.0065", "KWD"), 15_384, False),
        (a_payment("JPY", "0.0065", "KWD"), 15_385, True),
        (a_payment(None), 1, True),
        (a_payment("XXX"), 1, True),
        (a_payment("XXX", "2", "USD"), 1, True),
    ],
)
def test_one_key_gives_back_up_to_the_threshold_in_the_drives_currency(
    payment: PaymentRow, units: int, passed: bool
) -> None:
    assert Threshold(100).is_passed(payment, units) is passed


@given(
    paid=st.sampled_from(["USD", "JPY", "KWD"]),
    reporting=st.sampled_from(["USD", "JPY", "KWD"]),
    rate=st.sampled_from(["0.0065", "1", "3.25", "152.333333333333"]),
    above=st.integers(0, 10**6),
    units=st.integers(1, 10**12),
)
def test_an_amount_worth_a_fraction_of_a_minor_unit_more_passes(
    paid: str, reporting: str, rate: str, above: int, units: int
) -> None:
    worth = Fraction(units, 10 ** digits(paid)) * Fraction(rate)
    assert Threshold(above).is_passed(a_payment(paid, rate, reporting), units) is (worth > above)


def test_nothing_passes_without_a_threshold() -> None:
    assert not NO_THRESHOLD.is_passed(a_payment("USD"), 10**12)


@pytest.mark.parametrize(
    ("given", "above"), [(None, 10_000), ("", None), ("none", None), ("0", 0), ("25000", 25_000)]
)
def test_setting(monkeypatch: pytest.MonkeyPatch, given: str | None, above: int | None) -> None:
    monkeypatch.delenv("ATAA_REFUND_APPROVAL_ABOVE", raising=False)
    if given is not None:
        monkeypatch.setenv("ATAA_REFUND_APPROVAL_ABOVE", given)
    assert PaymentsSettings().refund_approval_above == above


@pytest.mark.parametrize("given", ["-1", "1.5", "ten"])
def test_setting_that_is_no_amount_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ATAA_REFUND_APPROVAL_ABOVE", given)
    with pytest.raises(ValueError, match="refund_approval_above"):
        PaymentsSettings()
