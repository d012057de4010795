"""The states of a receipt and its retry schedule. No I/O."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

RETRY_AFTER_S: Final = (10, 60, 300, 1_800, 7_200, 18_000, 36_000, 86_400)
"""The delay after each failure, about two days in all: mail servers are often down for hours."""


class ReceiptStatus(StrEnum):
    """A receipt is `due` until it reaches one of the other states, which are final."""

    DUE = "due"
    SENT = "sent"
    NO_ADDRESS = "no_address"
    GIVEN_UP = "given_up"


def retry_after(failures: int) -> timedelta | None:
    """The delay before the next try after so many failures; None: the receipt is given up."""
    if failures > len(RETRY_AFTER_S):
        return None
    return timedelta(seconds=RETRY_AFTER_S[failures - 1])
