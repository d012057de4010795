"""Paths of tiles (C2SP tlog-tiles): `<L>/<N>[.p/<W>]` and `entries/<N>[.p/<W>]`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

FULL: Final = 256
_PATH: Final = re.compile(
    r"(?P<level>entries|[0-9]{1,2})/(?P<number>(?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/(?P<width>[0-9]{1,3}))?",
    re.ASCII,
)


class TileRef(NamedTuple):
    """A tile, or with no level a bundle of entries."""

    level: int | None
    number: int
    width: int

    @property
    def is_full(self) -> bool:
        """Whether it can never change."""
        return self.width == FULL


def parse(path: str) -> TileRef | None:
    """The tile that a path names; None for a path that is not exactly in the form of the specification."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    number = int(found["number"].replace("x", "").replace("/", ""))
    level = None if found["level"] == "entries" else int(found["level"])
    ref = TileRef(level, number, int(found["width"] or FULL))
    is_valid = (level is None or level < 64) and (found["width"] is None or 0 < ref.width < FULL)
    return ref if is_valid and path == format_path(ref) else None


def format_path(ref: TileRef) -> str:
    """The path of a tile."""
    digits = f"{ref.number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    level = "entries" if ref.level is None else str(ref.level)
    return f"{level}/{number}" if ref.is_full else f"{level}/{number}.p/{ref.width}"
