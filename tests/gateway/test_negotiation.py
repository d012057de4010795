"""`If-None-Match`, `Accept-Encoding` and weighted lists, as RFC 9110 defines them."""

from __future__ import annotations

import pytest

from gateway.http.conditional import matches
from gateway.http.negotiation import accepts_gzip, weighted


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000, br", False),
        ("gzip;q=nonsense", False),
    ],
)
def test_gzip_is_accepted_with_a_weight_above_zero(header: str | None, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


def test_elements_have_weight_1_unless_they_name_one() -> None:
    assert weighted("ar, en-GB;q=0.8 , *;q=0.1") == [("ar", 1.0), ("en-gb", 0.8), ("*", 0.1)]


@pytest.mark.parametrize(
    ("if_none_match", "expected"),
    [
        (None, False),
        ("*", True),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", W/"a"', True),
        ('"aa"', False),
        ("a", False),
    ],
)
def test_if_none_match_compares_weakly_with_a_list(if_none_match: str | None, expected: bool) -> None:
    assert matches(if_none_match, '"a"') is expected
    assert matches(if_none_match, 'W/"a"') is expected
