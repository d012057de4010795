"""What becomes of a receipt. No I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

RETRY_AFTER_S: Final = (10, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400)
"""How long to wait after each failure: two days in all, as mail servers do; then it is given up."""


class ReceiptStatus(StrEnum):
    """Where a receipt stands: `due` until it is one of the others, and then for ever."""

    DUE = "due"
    SENT = "sent"
    NO_ADDRESS = "no_address"
    GIVEN_UP = "given_up"


def next_try_at(tries: int, now: datetime) -> datetime | None:
    """When to try again after `tries` failures; None: not any more."""
    if tries > len(RETRY_AFTER_S):
        return None
    return now + timedelta(seconds=RETRY_AFTER_S[tries - 1])
