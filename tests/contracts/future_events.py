"""Frozen events of a future version, with values that this version does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backbone import ids
from backbone.bus.protocol import Message
from backbone.contracts import Event, decode, wire_names

FUTURE = Path(__file__).parent / "future"
WIRE_NAMES = sorted(name for name in wire_names() if not name.startswith("tests."))


def future_fields(name: str, **changes: Any) -> dict[str, Any]:
    """The fields of the frozen event of this wire name."""
    fields: dict[str, Any] = json.loads((FUTURE / f"{name}.json").read_bytes())
    return fields | changes


def future_event(name: str, **changes: Any) -> Event:
    """The event as this version decodes it."""
    event = decode(name, json.dumps(future_fields(name, **changes)).encode())
    assert event is not None
    return event


def future_message(name: str, **changes: Any) -> Message:
    """The event as a newer version would publish it."""
    kind, fields = wire_names()[name], future_fields(name, **changes)
    return Message(kind.topic, fields[kind.key_field], ids.new("evt"), name, json.dumps(fields).encode())
