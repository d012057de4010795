"""Identifiers with their kind as a prefix, sortable by time: `plg_01j…` (a ULID in lower case)."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime
from threading import Lock
from typing import Final, Literal, NewType

from ulid import ULID

DriveId = NewType("DriveId", str)
CreatorId = NewType("CreatorId", str)
PledgeId = NewType("PledgeId", str)
PaymentId = NewType("PaymentId", str)
DonorId = NewType("DonorId", str)

Kind = Literal["drv", "crt", "plg", "pay", "rfd", "don", "dnr", "key", "whk", "evt"]

ULID_PATTERN: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_FORM: Final = re.compile(f"[a-z]{{3}}_{ULID_PATTERN}", re.ASCII)


def new(kind: Kind) -> str:
    """A new identifier of `kind`; later ones of a process sort after earlier ones."""
    bits = _generator.next()
    return f"{kind}_{''.join([_PAIRS[bits >> place & 1023] for place in _PLACES])}"


class _Generator:
    """ULIDs as numbers: 48 bits of time and 80 random ones, counted on within a millisecond.

    The library does the same; its conversions take most of its time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = 0

    def next(self) -> int:
        """The next one. The clock may go back: the time of the last one is kept until it is reached again."""
        with self._lock:
            ms = time.time_ns() // 1_000_000
            if ms > self._last >> 80:
                self._last = (ms << 80) | int.from_bytes(os.urandom(10))
            else:
                self._last += 1
            return self._last


_generator: Final = _Generator()
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _DIGITS for second in _DIGITS]
_PLACES: Final = range(120, -1, -10)


def is_id(text: str, kind: Kind) -> bool:
    """Whether `text` has the form of an identifier of `kind`."""
    return text.startswith(kind) and _FORM.fullmatch(text) is not None


def created_at(identifier: str) -> datetime:
    """When an identifier was created (UTC, milliseconds). Raises ValueError for any other text."""
    return ULID.from_str(identifier[4:].upper()).datetime
