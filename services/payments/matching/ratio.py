"""Ratios of matching pools: decimal strings over HTTP and in events, integers of `RATIO_SCALE` inside."""

from __future__ import annotations

import re
from typing import Final

from services.payments.matching.domain import RATIO_SCALE

LARGEST: Final = 100 * RATIO_SCALE
RATIO_PATTERN: Final = "(0|[1-9][0-9]{0,2})[.][0-9]{2,4}"
"""The form of a ratio. Of these, 0.00 and those above 100.00 are refused."""
ACCEPTED_PATTERN: Final = (
    "[1-9][0-9]?[.][0-9]{2,4}|100[.]0{2,4}|0[.](0[1-9]|[1-9][0-9])[0-9]{0,2}|0[.]00(0?[1-9]|[1-9][0-9])"
)
"""Exactly those that are accepted, for the API's description."""

_DIGITS: Final = 4


def parse_ratio(text: str) -> int:
    """A ratio above 0 and up to 100 as a multiple of 1 / `RATIO_SCALE`. Raises `ValueError`."""
    if re.fullmatch(RATIO_PATTERN, text, re.ASCII) is None:
        raise ValueError("must be a decimal number such as 1.00, with two to four digits after the point")
    whole, part = text.split(".")
    ratio = int(whole) * RATIO_SCALE + int(part.ljust(_DIGITS, "0"))
    if not 0 < ratio <= LARGEST:
        raise ValueError("must be above 0 and at most 100.00")
    return ratio


def ratio_text(ratio: int) -> str:
    """The decimal string of a ratio, with two digits after the point, or more where they are not 0."""
    whole, part = divmod(ratio, RATIO_SCALE)
    digits = f"{part:0{_DIGITS}d}"
    return f"{whole}.{digits[:2]}{digits[2:].rstrip('0')}"
