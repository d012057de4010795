"""A form that was posted after its session had ended: the login page carries it, and shows it again after.

The fields pass through hidden fields of the login form. Nothing of them is stored, and none is in an address.
Only a form of the gateway's own pages is carried: one of another site would else be shown to a person, after
the login, with a button that sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote_plus

Fields = Sequence[tuple[str, str]]

_PREFIX: Final = "kept_"
_MOST_FIELDS: Final = 480
_MOST_BYTES: Final = 60_000
"""More does not surely fit into the form of the login, which has 500 fields and 64 KiB at most."""


def carried(fields: Fields) -> list[tuple[str, str]]:
    """The hidden fields of the login form that carry a posted form; none if it is too large."""
    kept = [(f"{_PREFIX}{name}", value) for name, value in fields if name != "csrf"]
    size = sum(_sent_bytes(name) + _sent_bytes(value) + 2 for name, value in kept)
    return kept if len(kept) <= _MOST_FIELDS and size <= _MOST_BYTES else []


def carried_in(fields: Fields) -> list[tuple[str, str]]:
    """The posted form that the login form's fields carry; empty if they carry none."""
    return [(name.removeprefix(_PREFIX), value) for name, value in fields if name.startswith(_PREFIX)]


def _sent_bytes(text: str) -> int:
    return len(quote_plus(text, errors="replace"))
