"""References: only one made for the pledge under the link's secret names it, and Stripe accepts it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone import ids
from services.payments.overflow.references import new_secret, pledge_of, reference_of


def test_a_reference_names_its_pledge_and_fits_stripes_form() -> None:
    pledge, secret = ids.new("plg"), new_secret()
    reference = reference_of(pledge, secret)
    assert pledge_of(reference, secret) == pledge
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", reference)


def test_a_reference_of_another_link_or_pledge_names_none() -> None:
    pledge, secret = ids.new("plg"), new_secret()
    tag = reference_of(pledge, secret).partition("-")[2]
    assert pledge_of(reference_of(pledge, new_secret()), secret) is None
    assert pledge_of(f"{ids.new('plg')}-{tag}", secret) is None


@pytest.mark.parametrize("reference", ["", "-", "plg_1-abc", "pay_1", "a-b-c", "é-ü"])
def test_other_text_names_no_pledge(reference: str) -> None:
    assert pledge_of(reference, new_secret()) is None


@given(st.text(max_size=60))
def test_any_tag_but_the_right_one_is_refused(tag: str) -> None:
    pledge = ids.new("plg")
    secret = "1" * 64
    reference = f"{pledge}-{tag}"
    assert (pledge_of(reference, secret) is None) == (reference != reference_of(pledge, secret))
