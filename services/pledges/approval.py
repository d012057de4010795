"""Which words may be shown on a screen before a person has looked at them.

Until moderation is built: names and messages without links, control or bidi characters are approved
on arrival; the rest show as anonymous without message. Erring towards silence costs a greeting,
erring the other way shows a stranger's link to 698,000 viewers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSHOWN: Final = frozenset({"Cc", "Cs", "Co", "Zl", "Zp"})
_DOTS: Final = str.maketrans({"。": ".", "｡": ".", "．": ".", "․": ".", "‧": "."})

_LINK: Final = re.compile(
    r"""
    [a-z][a-z0-9+.-]{0,20}:/   # a scheme
    | \b(?:mailto|tel|javascript|data):
    | \bwww\b\s*\.
    | [^\W_]\.[^\W\d_]{2,}     # a name with something like a top-level domain: t.me, example.com
    | \b\d{1,3}(?:\.\d{1,3}){3}\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def normal(text: str | None) -> str | None:
    """The text as it is kept: NFC, without surrounding space; None where nothing is left."""
    if text is None:
        return None
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.strip(" ") or None


def may_be_shown(text: str | None) -> bool:
    """Whether `text` (in NFC) has no links, control or bidi characters; nothing at all has none."""
    if text is None:
        return True
    if text.isascii() and text.isprintable():
        return ("." not in text and ":" not in text) or _LINK.search(text) is None
    if any(letter in _BIDI or unicodedata.category(letter) in _UNSHOWN for letter in text):
        return False
    return _LINK.search(_skeleton(text)) is None


def _skeleton(text: str) -> str:
    """The text as a reader might retype it: no invisible characters, full-width forms folded."""
    seen = "".join(letter for letter in text.translate(_DOTS) if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", seen)
