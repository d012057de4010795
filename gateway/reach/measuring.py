"""How wide a text is in the fonts of the pictures, and which characters they have.

A width is the sum of the advances of single letters. Arabic letters are drawn joined, which is narrower, so
that a text never takes more than its width.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

_ADVANCES: Final = Path(__file__).parent / "fonts" / "advances.json"
_JOINERS: Final = "\u200c\u200d"
ELLIPSIS: Final = "…"


@cache
def _advances() -> Mapping[str, int]:
    """The advance of each character that a font has, in thousandths of the font's size."""
    return {chr(int(code)): advance for code, advance in json.loads(_ADVANCES.read_text()).items()}


def drawable(text: str) -> str:
    """`text` in one line, without characters that no font has (emoji, other scripts) or that reorder text."""
    known = _advances()
    composed = unicodedata.normalize("NFC", text)
    kept = (
        one if one in _JOINERS or (one in known and unicodedata.category(one)[0] != "C") else _blank(one)
        for one in composed
    )
    found = " ".join("".join(kept).split())
    return found if found.strip(_JOINERS) else ""  # the joiners of emoji join nothing


def _blank(character: str) -> str:
    return " " if character.isspace() else ""


def width(text: str, size: float) -> float:
    """The most that `text` takes in a font of `size`, in the unit of `size`."""
    known = _advances()
    return sum(known.get(one, 0) for one in text) * size / 1000


def largest_size(text: str, sizes: range, most: float) -> int:
    """The first of the falling `sizes` in which `text` is at most `most` wide; the last one if none is."""
    return next((size for size in sizes if width(text, size) <= most), sizes[-1])


def lines(text: str, size: float, most: float, count: int) -> list[str]:
    """`text` in at most `count` lines of at most `most`; what does not fit ends with an ellipsis."""
    found: list[str] = []
    left = text
    while left and len(found) < count:
        line = _first_line(left, size, most)
        left = left[len(line) :].lstrip()
        found.append(line.rstrip())
    if left:
        found[-1] = _shortened(found[-1], size, most)
    return found


def _first_line(text: str, size: float, most: float) -> str:
    """The words of `text` that fit in a line; of a longer word, the letters that fit, at least one."""
    line, words = "", text.split(" ")
    for word in words:
        longer = f"{line} {word}" if line else word
        if width(longer, size) > most:
            break
        line = longer
    if line:
        return line
    end = 1
    while end < len(words[0]) and width(words[0][: end + 1], size) <= most:
        end += 1
    return words[0][:end]


def _shortened(line: str, size: float, most: float) -> str:
    while line and width(line + ELLIPSIS, size) > most:
        line = line[:-1]
    return line.rstrip() + ELLIPSIS
