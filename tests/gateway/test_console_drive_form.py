"""What the form of a drive keeps of the texts that it does not show."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.console.drive_form import ChangedMeanwhile, changes_of, fields_of, request_of, shown_of
from tests.gateway.harness import drive


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


def with_languages() -> dict[str, Any]:
    milestones = [
        {"title": {"en": "Half", "fr": "La moitié & plus", "ar-KW": "النص"}, "amount": usd("50.00")},
        {"title": {"fr": "Tout"}, "amount": usd("100.00")},
        {"title": "Plain", "amount": usd("120.00")},
    ]
    texts = {"en": "Winter", "fr": "Hiver"}
    return {
        **drive(),
        "title": texts,
        "description": {"en": "Heaters", "fr": "Chauffage"},
        "milestones": milestones,
    }


def edited(found: dict[str, Any], changes: dict[str, str]) -> dict[str, Any]:
    """The changes that a person makes by replacing these values in the form."""
    return changes_of(found, [(name, changes.get(value, value)) for name, value in fields_of(found)])


def test_form_that_nobody_touched_changes_nothing() -> None:
    assert edited(with_languages(), {}) == {}


def test_changed_milestones_keep_their_titles_in_other_languages() -> None:
    found = with_languages()
    changed = edited(found, {"Half": "Half way", "100.00": "110"})
    assert changed == {
        "milestones": [
            {"title": {**found["milestones"][0]["title"], "en": "Half way"}, "amount": usd("50.00")},
            {"title": {"fr": "Tout"}, "amount": usd("110.00")},
            {"title": {"en": "Plain"}, "amount": usd("120.00")},
        ]
    }


def test_removed_row_is_gone_with_all_its_languages_and_the_others_keep_theirs() -> None:
    found = with_languages()
    changed = edited(found, {"Half": "", "50.00": ""})
    assert changed["milestones"][0] == found["milestones"][1]
    assert len(changed["milestones"]) == 2


def test_removed_title_leaves_the_other_languages() -> None:
    changed = edited(with_languages(), {"Winter": "", "Heaters": ""})
    assert changed == {"title": {"fr": "Hiver"}, "description": {"fr": "Chauffage"}}


def test_milestone_without_any_title_is_passed_on_for_the_services_error() -> None:
    fields = [
        ("milestone_en", ""),
        ("milestone_ar", " "),
        ("milestone_amount", "5"),
        ("milestone_more", "&&"),
    ]
    assert request_of(fields, "USD")["milestones"] == [{"title": "", "amount": usd("5.00")}]


def test_form_of_an_older_state_changes_only_what_its_person_changed() -> None:
    shown = with_languages()
    form = [(name, "New" if value == "Winter" else value) for name, value in fields_of(shown)]
    now = {**shown, "goal": usd("500.00")}
    assert changes_of(now, [*form, ("shown", shown_of(shown))]) == {"title": {"en": "New", "fr": "Hiver"}}


def test_form_of_an_older_state_does_not_undo_what_another_person_changed() -> None:
    shown = with_languages()
    form = [(name, "New" if value == "Winter" else value) for name, value in fields_of(shown)]
    now = {**shown, "title": {"en": "Other", "fr": "Hiver"}}
    with pytest.raises(ChangedMeanwhile) as refused:
        changes_of(now, [*form, ("shown", shown_of(shown))])
    assert refused.value.fields == ["title"]


def test_form_that_was_saved_already_changes_nothing_when_it_is_sent_again() -> None:
    shown = with_languages()
    form = [(name, "New" if value == "Winter" else value) for name, value in fields_of(shown)]
    now = {**shown, "title": {"en": "New", "fr": "Hiver"}}
    assert changes_of(now, [*form, ("shown", shown_of(shown))]) == {}
