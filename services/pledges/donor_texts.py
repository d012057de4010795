"""Which names and messages of donors may be shown without human moderation, and in which form.

Each text is checked by itself, and at every read, so that an improved rule applies to stored texts too. A
text is shown if it contains no link, and without its invisible characters. A text wrongly hidden costs a
greeting; a text wrongly shown puts a stranger's link before every viewer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from services.pledges.links import has_link

MAX_MARKS: Final = 4
"""Nonspacing marks on one letter (UTS 39, section 5.4); more of them cover the lines above."""

_MARKS: Final = frozenset({"Mn", "Me"})

# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt) but for those in `_JOINERS`, the fillers
# in `_BLANK`; control, annotation, private-use and surrogate characters; noncharacters.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff0-\ufffc\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f"
    "\U000e0080-\U000e00ff\U000e01f0-\U000e0fff\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff\ufdd0-\ufdef"
    + "".join(f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0, 0xF0000, 0x10000))
    + "]"
)

# Blank and wide: line breaks and all spaces, Hangul's fillers, the empty Braille cell, an empty notehead,
# empty hieroglyphs.
_BLANK: Final = re.compile("[\\s\u115f\u1160\u2800\u3164\uffa0\U0001d159\U00013441\U00013442]+")

# Invisible, but they shape the characters beside them: emoji sequences and flags, Persian and Indic words,
# variants of CJK and Mongolian letters. Elsewhere they only make equal names differ.
_SHAPED: Final = (
    "\u0590-\u180a\u1810-\u1dff\u1f00-\u1fff\u2100-\u27ff\u2801-\u2fff\u3001-\u3163\u3165-\ufdff\ufe20-\ufefe"
    "\U00010000-\U000dffff"
)
_JOINERS: Final = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"  # flags of England, Texas, …
    f"|(?:(?<=[{_SHAPED}])|(?<=[{_SHAPED}]\ufe0f))[\u200c\u200d](?=[{_SHAPED}])"
    "|(?<=[\u1820-\u18aa])[\u180b-\u180f]"
    f"|(?<=[#*0-9©®{_SHAPED}])[\ufe00-\ufe0f]"
    "|(?<=[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef])"
    "|[\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]"
)


def normalized(text: str | None) -> str | None:
    """The text as it is stored: NFC, without surrounding space; None where nothing is left."""
    if text is None:
        return None
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.strip(" ") or None


def displayed(text: str | None) -> str | None:
    """The visible part of `text`, on one line; None where it is empty or contains a link."""
    if text is None:
        return None
    seen = visible(text)
    return None if not seen or has_link(seen) else seen


def visible(text: str) -> str:
    """`text` in NFC, without invisible characters and those that reorder the line; "" where nothing is left.

    Line breaks and blank characters become one space. A letter keeps at most `MAX_MARKS` marks; marks
    without a letter are removed. The function is idempotent.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = _BLANK.sub(" ", _INVISIBLE.sub("", text))
    text = unicodedata.normalize("NFC", _JOINERS.sub(lambda found: found[1] or "", text))
    kinds = set(map(unicodedata.category, text))
    if not kinds.isdisjoint(_MARKS):
        text = _limit_marks(text)
    # A category of Cn is not in this Python's Unicode: an emoji of a later version, most likely.
    seen = any(kind[0] in "LNPS" or kind == "Cn" for kind in kinds)
    return _BLANK.sub(" ", text).strip() if seen else ""


def _limit_marks(text: str) -> str:
    kept: list[str] = []
    marks = MAX_MARKS  # none before the first letter
    for letter in text:
        if unicodedata.category(letter) in _MARKS:
            marks += 1
            if marks > MAX_MARKS:
                continue
        else:
            marks = MAX_MARKS if letter == " " else 0
        kept.append(letter)
    return "".join(kept)
