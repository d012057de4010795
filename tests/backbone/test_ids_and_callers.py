"""Identifiers, and callers signed by the gateway."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from backbone import ids
from backbone.http.caller import HEADER, sign_caller, verify_caller
from backbone.http.problems import Forbidden, Unauthorized


def test_identifiers_are_unique_have_a_prefix_and_sort_by_time() -> None:
    made = [ids.new("plg") for _ in range(2000)]
    assert len(set(made)) == 2000
    assert all(ids.is_id(one, "plg") for one in made)
    stamps = [one[4:14] for one in made]
    assert stamps == sorted(stamps)


@given(st.integers(1, 3_000), st.integers(0, 2**79 - 1), st.integers(0, 2**47 - 1))
def test_several_identifiers_are_consecutive(count: int, random: int, now_ms: int) -> None:
    number = (now_ms << 80) + random
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("backbone.ids.secrets.randbits", lambda bits: random)
        patched.setattr("backbone.ids.time.time_ns", lambda: now_ms * 1_000_000 + 999_999)
        made = ids.several("evt", count)
    expected = [f"evt_{ids.ulid_text((number + n).to_bytes(16, 'big'))}" for n in range(count)]
    assert made == expected == sorted(set(made))


@given(st.lists(st.integers(0, 3), max_size=30))
def test_identifiers_of_one_millisecond_all_differ(counts: list[int]) -> None:
    """However they are made: two events with one identifier would be taken for one, and one of them lost."""
    made: list[str] = []
    with time_machine.travel(datetime(2022, 1, 7, tzinfo=UTC), tick=False):
        for count in counts:
            made += ids.several("evt", count) if count else [ids.new("evt")]
    assert len(set(made)) == len(made)


@given(st.binary(min_size=16, max_size=16))
def test_text_of_an_identifier_is_that_of_the_library(sixteen: bytes) -> None:
    assert ids.ulid_text(sixteen) == str(ULID.from_bytes(sixteen)).lower()


@given(st.text(max_size=40))
def test_is_id_accepts_only_well_formed_identifiers(text: str) -> None:
    assert ids.is_id(text, "drv") == (text in {text[:4] + text[4:]} and _has_form(text, "drv"))


def _has_form(text: str, kind: str) -> bool:
    alphabet = set("0123456789abcdefghjkmnpqrstvwxyz")
    return len(text) == 30 and text[:4] == f"{kind}_" and text[4] in "01234567" and set(text[5:]) <= alphabet


scopes = st.lists(st.sampled_from(["pledges", "drives", "refunds"]), unique=True)


@given(st.text(min_size=1, max_size=30), scopes, st.sampled_from(["live", "test"]))
def test_signed_caller_round_trips(partner: str, granted: list[str], mode: str) -> None:
    header = sign_caller("secret", partner=partner, scopes=granted, mode=mode)[HEADER]  # type: ignore[arg-type]
    caller = verify_caller("secret", header)
    assert (caller.partner, caller.scopes, caller.mode) == (partner, frozenset(granted), mode)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_malformed_caller_header_is_unauthorized(header: str) -> None:
    with pytest.raises(Unauthorized):
        verify_caller("secret", header)


def test_caller_signed_with_another_or_no_secret_is_unauthorized() -> None:
    header = sign_caller("secret", partner="p", scopes=())[HEADER]
    for secret in ("other", ""):
        with pytest.raises(Unauthorized):
            verify_caller(secret, header)
    with pytest.raises(Unauthorized):
        verify_caller("", sign_caller("", partner="p", scopes=())[HEADER])


def test_missing_scope_is_forbidden_and_admin_has_every_scope() -> None:
    partner = verify_caller("s", sign_caller("s", partner="p", scopes=("pledges",))[HEADER])
    partner.require("pledges")
    with pytest.raises(Forbidden):
        partner.require("refunds")
    verify_caller("s", sign_caller("s", partner="p", scopes=("admin",))[HEADER]).require("refunds")
