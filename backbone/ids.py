"""Identifiers with their kind as a prefix, sortable by time: `plg_01j…` (a ULID in lower case)."""

from __future__ import annotations

import re
from datetime import datetime
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
    """A new identifier of `kind`; later ones sort after earlier ones (to the millisecond)."""
    return f"{kind}_{str(ULID()).lower()}"


def is_id(text: str, kind: Kind) -> bool:
    """Whether `text` has the form of an identifier of `kind`."""
    return text.startswith(kind) and _FORM.fullmatch(text) is not None


def created_at(identifier: str) -> datetime:
    """When an identifier was created (UTC, milliseconds). Raises ValueError for any other text."""
    return ULID.from_str(identifier[4:].upper()).datetime
