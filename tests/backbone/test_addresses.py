from __future__ import annotations

import ipaddress
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone import addresses
from backbone.addresses import EMAIL_ADDRESS, ORIGIN, WEB_ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org",
        "HTTPS://Example.org:8443/thanks?a=1#b",
        "https://نموذج.مثال/شكرا",
        "https://[2001:db8::1]:443/",
        "https://example.org:/",
        "https://example.org?next=@me",
        "http://localhost:3000/done",
        "http://127.0.0.1/",
        "http://[::1]:8000",
    ],
)
def test_web_addresses_are_taken(address: str) -> None:
    assert re.fullmatch(WEB_ADDRESS, address)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org",
        "ftp://example.org",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.org",
        "https://user:secret@example.org",
        "https://example.org\\@evil.example",
        "https://example.org /",
        "https://example.org\n",
        "https://example.org:65536",
        "https://example.org:x",
        "https://[::1::]/",
        "https://[v1.x]/",
        "https://example．org＠evil.example",
        "http://localhost.example.org/",
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert re.fullmatch(WEB_ADDRESS, address) is None


def test_hosts_have_no_character_that_turns_into_a_separator() -> None:
    for code in range(0x80, sys.maxunicode + 1):
        letter = chr(code)
        normal = unicodedata.normalize("NFKC", letter)
        if any(one in normal for one in "/?#@:"):
            assert re.fullmatch(WEB_ADDRESS, f"https://a{letter}b.example") is None, hex(code)


@given(st.ip_addresses(v=6).map(str), st.sampled_from([str.lower, str.upper]))
def test_hexadecimal_ip6_addresses_are_taken_in_origins(address: str, case: object) -> None:
    assert re.fullmatch(ORIGIN, f"http://[{case(address)}]:80") or "." in address  # type: ignore[operator]


@given(st.text(alphabet="01af:", min_size=1, max_size=40))
def test_what_looks_like_an_ip6_address_is_taken_exactly_where_it_is_one(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        assert re.fullmatch(ORIGIN, f"https://[{text}]") is None
    else:
        assert re.fullmatch(ORIGIN, f"https://[{text}]")


@pytest.mark.parametrize(
    "address",
    ["layla@example.org", "l.a-y+la@mail.example.co", "ليلى@نموذج.مثال", "a_b@x_y.example"],
)
def test_email_addresses_are_taken(address: str) -> None:
    assert re.fullmatch(EMAIL_ADDRESS, address)


@pytest.mark.parametrize(
    "address",
    [
        *("layla", "@example.org", "layla@", "layla@example", "layla@example.o", "layla@example..org"),
        *("layla@-example.org", "layla@example-.org", "la yla@example.org", "layla@exa mple.org"),
        *("layla@example.org\n", "a@b@example.org", "layla@example.org,omar@example.org"),
        *(
            "layla\u00a0@example.org ",
            "<layla@example.org>",
            "layla@example.org\u0085",
            f"{'x' * 65}@example.org",
        ),
    ],
)
def test_other_texts_are_no_email_addresses(address: str) -> None:
    assert re.fullmatch(EMAIL_ADDRESS, address) is None


@pytest.mark.parametrize("pattern", [WEB_ADDRESS, ORIGIN, EMAIL_ADDRESS])
def test_patterns_mean_the_same_in_ecma_262(pattern: str) -> None:
    """None of what Python and ECMA 262 read differently: `\\w`, `\\d`, `\\b`, `\\Z`, named groups, flags."""
    assert re.search(r"\\[wWdDbBAZ]|\(\?P|\(\?[aiLmsux]", pattern) is None
    assert addresses.__doc__
