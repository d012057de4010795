"""Frozen examples of every event can be decoded for ever, and the published schemas match the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbone.contracts import decode, wire_names
from backbone.contracts.__main__ import main as write_schemas

EXAMPLES = Path(__file__).parent / "examples"
SCHEMAS = Path(__file__).parents[2] / "docs" / "contracts"
WIRE_NAMES = sorted(name for name in wire_names() if not name.startswith("tests."))


FROZEN = sorted(EXAMPLES.rglob("*.json"))
"""Those in `later` and `offline` have fields that were added after the event's first example."""


@pytest.mark.parametrize("file", FROZEN, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_frozen_example_round_trips_with_defaults_for_later_fields(
    file: Path,
) -> None:
    frozen = json.loads(file.read_bytes())
    event = decode(file.stem, file.read_bytes())
    assert event is not None
    later = {name: one.default for name, one in type(event).model_fields.items() if name not in frozen}
    assert json.loads(event.to_bytes()) == frozen | later
    assert event.topic in {"pledges", "payments", "drive-log", "snapshots"}
    assert event.key == frozen[type(event).key_field]


def test_every_event_has_an_example_and_every_example_an_event() -> None:
    assert {file.stem for file in FROZEN} == set(WIRE_NAMES)


def test_unknown_field_is_ignored() -> None:
    name = "pledges.creator_changed.v1"
    frozen = json.loads((EXAMPLES / f"{name}.json").read_bytes())
    assert decode(name, json.dumps({**frozen, "from_the_future": 1}).encode()) is not None


def test_published_schemas_match_the_code(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    for name in WIRE_NAMES:
        published = (SCHEMAS / f"{name}.json").read_text()
        assert published == (tmp_path / f"{name}.json").read_text(), f"run make contracts: {name}"
