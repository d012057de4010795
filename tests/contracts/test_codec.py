"""Events read and written with msgspec are the events that pydantic reads and writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from backbone.contracts import PaymentChanged, decode, wire_names
from backbone.contracts.codec import Codec
from backbone.contracts.event import codec_of

FROZEN = sorted(Path(__file__).parent.rglob("*.json"))
NAME = PaymentChanged.wire_name
FIELDS: dict[str, Any] = json.loads((Path(__file__).parent / "examples" / f"{NAME}.json").read_bytes())

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+02:00", "2026-01-02T03:04:05", "12"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["minor_units", "currency", "platform", "x"]), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@pytest.mark.parametrize("file", FROZEN, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_frozen_events_are_read_and_written_without_pydantic(file: Path) -> None:
    kind = wire_names()[file.stem]
    event, same = codec_of(kind).decode(file.read_bytes()), kind.model_validate_json(file.read_bytes())
    assert event == same
    assert event.model_fields_set == same.model_fields_set
    assert event.to_bytes() == same.model_dump_json().encode()


@given(
    st.dictionaries(st.sampled_from(sorted(FIELDS)), values, max_size=3),
    st.sets(st.sampled_from(sorted(FIELDS))),
)
def test_any_content_is_accepted_or_refused_as_pydantic_does(
    changed: dict[str, Any], left_out: set[str]
) -> None:
    sent = {name: value for name, value in (FIELDS | changed).items() if name not in left_out}
    value = json.dumps(sent).encode()
    try:
        expected = PaymentChanged.model_validate_json(value)
    except ValidationError as error:
        with pytest.raises(ValidationError) as refused:
            decode(NAME, value)
        assert str(refused.value) == str(error)  # noqa: PT017
    else:
        event = decode(NAME, value)
        assert event == expected
        assert event is not None
        assert event.to_bytes() == expected.model_dump_json().encode()


def test_event_of_valid_fields_equals_a_validated_one_and_has_its_defaults() -> None:
    known = PaymentChanged.model_validate_json(json.dumps(FIELDS))
    fields = {name: value for name, value in known if name != "anonymous"}
    assert PaymentChanged.of_valid(**fields) == PaymentChanged(**fields)


class _Later(BaseModel):
    """An event as a later version may declare it."""

    name: str
    seen_at: datetime | None = None


def test_an_optional_moment_may_be_absent() -> None:
    codec = Codec(_Later)
    assert codec.decode(b'{"name": "one"}') == _Later(name="one")
    assert codec.decode(b'{"name": "one", "seen_at": "2022-01-07T12:00:00Z"}') == _Later(
        name="one", seen_at=datetime(2022, 1, 7, 12, tzinfo=UTC)
    )
