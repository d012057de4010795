"""The forms in which words are compared: what a reader takes a disguised text for.

`fold` removes differences of writing: case, styles and widths of letters, marks, tatweel, the variants of
Arabic letters and letters of other scripts that look like Latin ones. `readings` gives the words of a folded
text in every way they may be meant: as written, with the punctuation inside words removed, with letters that
are spelled apart joined, with digits and signs in place of letters, and as Arabic in Latin letters.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

from services.pledges.links import LOOKALIKES

# After NFD and without marks, أ إ آ are ا, ؤ is و, ئ is ي. These are letters of Persian, Urdu and Kurdish,
# and those that are written in place of one another.
_ARABIC: Final = str.maketrans(
    "ٱىیېےکڪگپچڤژڕړڵۆۇۋەہھۀۃةڭ",
    "ا" + "ي" * 4 + "ك" * 3 + "بجفز" + "رر" + "ل" + "ووو" + "ه" * 6 + "ك",
    "ءـ",
)
_LEET: Final = str.maketrans("0134578@$!|+€£", "oieastbasiitel")
LEET_SIGNS: Final = frozenset("0134578@$!|+€£")

_STYLED: Final = {
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
    **dict(zip("ƒɡɑøđłսոօհցʋ", "fgaodlunohgv", strict=True)),
    **{
        chr(first + place): chr(ord("a") + place)
        for first in (0x1F150, 0x1F170, 0x1F1E6)
        for place in range(26)
    },
}
"""Small capitals, letters on dark circles and squares, those of flags, and others that NFKC keeps."""
_STYLES: Final = str.maketrans(_STYLED)
_CENSORED: Final = re.compile(r"(?<=[^\W\d_])[#%&^♥♡❤•●]+(?=[^\W\d_])")
"""Signs in place of a word's letters, as "*" is."""
_DIGITS_IN_ARABIC: Final = re.compile("(?<=[\u0621-\u064a])[2-9]+|[2-9]+(?=[\u0621-\u064a])")
_ARABIC_DIGITS: Final = str.maketrans("356789", "عخطحقق", "2")
"""What digits stand for in Arabic with Latin letters, and so within Arabic words."""

_FINAL_SIGNS: Final = re.compile(r"[!|+]+(?!\w)")
_SEPARATORS: Final = re.compile(r"[^\w*]+|_+")
_INNER_PUNCTUATION: Final = re.compile(r"(?<=\w)[^\w\s*]+(?=\w)|_+")
_SPELLED: Final = (
    re.compile(r"(?<!\S)\S(?: \S)+(?!\S)"),
    re.compile(r"(?<!\S)\S{1,2}(?: \S{1,2})+(?!\S)"),
)
"""Words spelled apart, by letters or by pieces of one and two."""
_APART: Final = re.compile(r"(?<!\S)\S(?: \S){2,}(?!\S)")
_REPEATED: Final = re.compile(r"(.)\1+", re.DOTALL)
_LATIN: Final = re.compile(r"[a-z]")

_FRANCO: Final = (
    *(("kh", "5"), ("7'", "5"), ("7’", "5"), ("gh", "8"), ("3'", "8"), ("3’", "8"), ("sh", "$"), ("ch", "$")),
    *(("th", "t"), ("ou", "o"), ("oo", "o"), ("u", "o"), ("ee", "i"), ("ea", "i"), ("ie", "i"), ("y", "i")),
    *(("e", "i"), ("6", "t"), ("9", "k"), ("q", "k"), ("2", ""), ("'", ""), ("’", "")),
)
"""Sounds of Arabic that Latin letters and digits write in several ways, in the order of replacement."""


class Readings(NamedTuple):
    """The words of a text, one space around each; `franco` is empty for a text without Latin letters."""

    words: str
    franco: str


def fold(text: str) -> str:
    """`text` without differences that a reader does not mind. The function is idempotent."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFD", text).translate(_LETTERS)


class _Letters(dict[int, str]):
    """The folded form of each letter, computed at its first use."""

    def __missing__(self, code: int) -> str:
        letter = self[code] = _folded(chr(code))
        return letter


_LETTERS: Final = _Letters()


def _folded(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind in ("Mn", "Me", "Cf"):
        return ""
    if kind == "Nd":
        return str(unicodedata.decimal(letter))
    return letter.translate(LOOKALIKES).translate(_STYLES).translate(_ARABIC)


def readings(folded: str) -> Readings:
    """What the words of a folded text may be meant as; alternatives are apart by " | "."""
    folded = _CENSORED.sub(lambda found: "*" * len(found[0]), folded)
    spelled = _spellings(folded)
    if not LEET_SIGNS.isdisjoint(folded):
        spelled += _spellings(_FINAL_SIGNS.sub(" ", folded).translate(_LEET))
    if _DIGITS_IN_ARABIC.search(folded) is not None:
        spelled += _spellings(_DIGITS_IN_ARABIC.sub(lambda found: found[0].translate(_ARABIC_DIGITS), folded))
    words = f" {' | '.join(dict.fromkeys(spelled))} "
    return Readings(words, f" {franco(folded)} " if _LATIN.search(folded) else "")


def _spellings(folded: str) -> list[str]:
    if folded.isalpha():
        return [folded]
    plain = _words(folded)
    together = [found[0].replace(" ", "") for apart in _SPELLED for found in apart.finditer(plain)]
    compact = [] if plain == folded else [_words(_INNER_PUNCTUATION.sub("", folded))]
    return [plain, *compact, *(word for word in together if len(word) > 2)]


def joined(folded: str) -> str:
    """A folded text with what is spelled apart, "e v i l . c o m", written together."""
    return _APART.sub(lambda found: found[0].replace(" ", ""), folded)


def _words(text: str) -> str:
    return _SEPARATORS.sub(" ", text).strip()


def franco(folded: str) -> str:
    """A folded text as its sounds in Arabic: "sharmoo6a" and "charmouta" become the same."""
    for written, sound in _FRANCO:
        folded = folded.replace(written, sound)
    return re.sub(r"[^\w$]+|_+", " ", folded).strip()


def squeezed(text: str) -> str:
    """`text` with one letter in place of several equal ones."""
    return _REPEATED.sub(r"\1", text)
