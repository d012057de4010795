"""Republishing of unchanged drives, a few at a time, so that changed ones do not wait behind all of them."""

from __future__ import annotations

import math
from collections.abc import Collection


class Rotation:
    """Hands out a set of drives in `parts` of equal size."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._size = 0
        self._left: list[str] = []

    def begin(self, drive_ids: Collection[str]) -> None:
        """Begin a round with these drives; what is left of the round before is dropped."""
        self._left = list(drive_ids)
        self._size = math.ceil(len(self._left) / self._parts)

    def next_part(self) -> list[str]:
        """The drives whose turn it is; none once the round is over."""
        part, self._left = self._left[: self._size], self._left[self._size :]
        return part
