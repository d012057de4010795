"""Frozen examples of every event decode for ever, and the published schema is the code's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbone.contracts import decode, wire_names
from backbone.contracts.__main__ import main as write_schemas

EXAMPLES = Path(__file__).parent / "examples"
SCHEMAS = Path(__file__).parents[2] / "docs" / "contracts"
OURS = sorted(name for name in wire_names() if not name.startswith("tests."))


@pytest.mark.parametrize("name", OURS)
def test_every_event_has_a_frozen_example_that_decodes_and_encodes_to_itself(name: str) -> None:
    frozen = (EXAMPLES / f"{name}.json").read_bytes()
    event = decode(name, frozen)
    assert event is not None
    assert json.loads(event.to_bytes()) == json.loads(frozen)
    assert event.topic in {"pledges", "payments", "drive-log", "snapshots"}
    assert event.key == json.loads(frozen)[type(event).key_field]


def test_no_example_is_of_an_event_that_is_gone() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.json")} <= set(OURS)


def test_a_field_unknown_to_this_version_is_passed_over() -> None:
    name = "pledges.creator_changed.v1"
    frozen = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    assert decode(name, json.dumps({**frozen, "from_the_future": 1}).encode()) is not None


def test_the_published_schemas_are_the_codes(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    for name in OURS:
        published = (SCHEMAS / f"{name}.json").read_text()
        assert published == (tmp_path / f"{name}.json").read_text(), f"run make contracts: {name}"
