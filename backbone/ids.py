"""Identifiers with their kind as a prefix, sortable by time: `plg_01j…` (a ULID in lower case)."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NewType

from ulid import ULID

DriveId = NewType("DriveId", str)
CreatorId = NewType("CreatorId", str)
PledgeId = NewType("PledgeId", str)
PaymentId = NewType("PaymentId", str)
DonorId = NewType("DonorId", str)
MatchingPoolId = NewType("MatchingPoolId", str)

Kind = Literal[
    "drv", "crt", "plg", "pay", "rfd", "don", "dnr", "key", "whk", "evt", "ofg", "ctb", "dsb", "mch"
]

ULID_PATTERN: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_FORM: Final = re.compile(f"[a-z]{{3}}_{ULID_PATTERN}", re.ASCII)


_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS: Final = range(120, -1, -10)


def new(kind: Kind) -> str:
    """A new identifier of `kind`; later ones sort after earlier ones (to the millisecond)."""
    return f"{kind}_{ulid_text(ULID().bytes)}"


def several(kind: Kind, count: int) -> list[str]:
    """`count` new identifiers of `kind`, each the successor of the one before, in a tenth of the time.

    They begin at a random place of their own: the successors of `ULID()` are the library's, which gives them
    to the next calls within the same millisecond.
    """
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(79)  # the other bit: none is carried over
    head, tail = divmod(number, len(_PAIRS))
    made: list[str] = []
    while len(made) < count:
        begin = f"{kind}_{_text(head, _SHIFTS[1:])}"
        made += [begin + end for end in _PAIRS[tail : tail + count - len(made)]]
        head, tail = head + 1, 0
    return made


def lowest(kind: Kind, at: datetime) -> str:
    """The lowest identifier that can be created at `at`, to the millisecond; `at` is after 1970."""
    return f"{kind}_{ulid_text((int(at.timestamp() * 1000) << 80).to_bytes(16, 'big'))}"


def ulid_text(sixteen: bytes) -> str:
    """The text of a ULID, in lower case: what `str(ULID.from_bytes(sixteen)).lower()` is, in a third of its
    time."""
    return _text(int.from_bytes(sixteen, "big"), _SHIFTS)


def _text(number: int, shifts: Sequence[int]) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in shifts])


def is_id(text: str, kind: Kind) -> bool:
    """Whether `text` has the form of an identifier of `kind`."""
    return text.startswith(kind) and _FORM.fullmatch(text) is not None


def created_at(identifier: str) -> datetime:
    """When an identifier was created (UTC, milliseconds). Raises ValueError for any other text."""
    return ULID.from_str(identifier[4:].upper()).datetime
