"""Identifiers carry their kind and sort by time; a caller is who the gateway says, or nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone import ids
from backbone.http.caller import HEADER, sign_caller, verify_caller
from backbone.http.problems import Forbidden, Unauthorized


def test_identifiers_are_unique_carry_their_kind_and_sort_by_time() -> None:
    made = [ids.new("plg") for _ in range(2000)]
    assert len(set(made)) == 2000
    assert all(ids.is_id(one, "plg") for one in made)
    stamps = [one[4:14] for one in made]
    assert stamps == sorted(stamps)


@given(st.text(max_size=40))
def test_only_what_has_the_form_is_an_identifier(text: str) -> None:
    assert ids.is_id(text, "drv") == (text in {text[:4] + text[4:]} and _has_form(text, "drv"))


def _has_form(text: str, kind: str) -> bool:
    alphabet = set("0123456789abcdefghjkmnpqrstvwxyz")
    return len(text) == 30 and text[:4] == f"{kind}_" and text[4] in "01234567" and set(text[5:]) <= alphabet


scopes = st.lists(st.sampled_from(["pledges", "drives", "refunds"]), unique=True)


@given(st.text(min_size=1, max_size=30), scopes, st.sampled_from(["live", "test"]))
def test_what_the_gateway_signs_is_what_a_service_reads(partner: str, granted: list[str], mode: str) -> None:
    header = sign_caller("secret", partner=partner, scopes=granted, mode=mode)[HEADER]  # type: ignore[arg-type]
    caller = verify_caller("secret", header)
    assert (caller.partner, caller.scopes, caller.mode) == (partner, frozenset(granted), mode)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_nothing_else_is_a_caller(header: str) -> None:
    with pytest.raises(Unauthorized):
        verify_caller("secret", header)


def test_another_secret_or_no_secret_lets_nobody_in() -> None:
    header = sign_caller("secret", partner="p", scopes=())[HEADER]
    for secret in ("other", ""):
        with pytest.raises(Unauthorized):
            verify_caller(secret, header)
    with pytest.raises(Unauthorized):
        verify_caller("", sign_caller("", partner="p", scopes=())[HEADER])


def test_a_scope_is_needed_and_admin_has_all() -> None:
    partner = verify_caller("s", sign_caller("s", partner="p", scopes=("pledges",))[HEADER])
    partner.require("pledges")
    with pytest.raises(Forbidden):
        partner.require("refunds")
    verify_caller("s", sign_caller("s", partner="p", scopes=("admin",))[HEADER]).require("refunds")
