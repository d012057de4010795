"""Detection of links in texts that are shown on screens.

A full stop alone is no link ("Mr.Beast", "St.John"): what follows it must be the ending of a domain that
exists, by the Public Suffix List (https://publicsuffix.org) as installed; nothing is asked of the network.
Disguises a viewer would see through are folded first: full-width and styled letters, other scripts' dots,
letters that look like Latin ones, and dots that are spelled out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from publicsuffixlist import PublicSuffixList

_SUFFIXES: Final = PublicSuffixList(accept_unknown=False, accept_encoded_idn=False, only_icann=True)
"""Public suffixes of ICANN; private suffixes end with one of these."""

_SUSPICIOUS: Final = re.compile(r"[.:]|\bdot\b|,(?:com|net|org|info|xyz)\b", re.IGNORECASE)
"""An ASCII text without one of these contains no link."""

_SCHEME: Final = re.compile(r"[a-z0-9+.-]:/|\b(?:mailto|tel|javascript|data):", re.IGNORECASE)
_MAIL: Final = re.compile(r"[^\s@]@[^\s@.]+\.[^\s@]")  # also with a misspelt top-level domain
_HOST: Final = re.compile(r"\bwww\b\s*\.|\b\d{1,3}(?:\.\d{1,3}){3}\b|\.\s*xn--", re.IGNORECASE)

# Browsers read the first three as dots (UTS 46, section 4); the others look like one (UTS 39, confusables).
_DOTS: Final = str.maketrans(dict.fromkeys("。｡．․܁܂ꓸ꘎\U00010a50\U0001d16d۔", "."))
_SPELLED_DOT: Final = re.compile(
    r"\s*[\[({<]\s*(?:dot|دوت|نقطة|\.)\s*[\])}>]\s*|\s+(?:dot|دوت|نقطة)\s+", re.IGNORECASE
)
_SPACED_DOT: Final = re.compile(
    r"(?<=\w)\s*\.\s*(?=(?:com|net|org|info|biz|xyz|io|gg|tv|ly)(?!\w))", re.IGNORECASE
)
_OTHER_DOT: Final = re.compile(r"(?<=\w)[,،٫٬·•‧∙⋅⸱](?=(?:com|net|org|info|xyz)(?!\w))", re.IGNORECASE)
"""A comma or a raised dot in place of the full stop."""

MAX_FOLDED: Final = 400
"""A text that is longer than this in its compatible forms, and has a dot, counts as a link without a search.

A message has 280 letters; ﷺ alone becomes 18.
"""
MAX_DOTS: Final = 20
"""A text with more single dots than this within its words counts as a link: nobody writes so many."""
_MAX_SUFFIX: Final = 8
"""No public suffix has more labels."""

LOOKALIKES: Final = str.maketrans("аеорсухіјѕԁԛԝһӏмтвнкαορνικτυγı", "aeopcyxijsdqwhlmtbhkaopviktuyi")
"""Cyrillic and Greek letters and the Latin letters they resemble, for words that mix scripts."""

_JOINERS: Final = re.compile("[\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]")
_TATWEEL: Final = "\u0640"


def has_link(text: str) -> bool:
    """Whether `text` names a web, mail or IP address, or anything a browser's address bar would take."""
    if text.isascii() and _SUSPICIOUS.search(text) is None:
        return False
    folded = _fold(text)
    if ":" in folded and _SCHEME.search(folded) is not None:
        return True
    if "." not in folded:
        return False
    if len(folded) > MAX_FOLDED:
        return True
    if _HOST.search(folded) is not None or ("@" in folded and _MAIL.search(folded) is not None):
        return True
    runs = list(_dotted_runs(folded))
    return sum(run.count(".") for run in runs) > MAX_DOTS or any(map(_is_domain, runs))


def _fold(text: str) -> str:
    """`text` as a viewer might type it into an address bar."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _JOINERS.sub("", text).translate(_DOTS)).casefold()
    return _OTHER_DOT.sub(".", _SPACED_DOT.sub(".", _SPELLED_DOT.sub(".", text)))


def _dotted_runs(folded: str) -> Iterator[str]:
    """Runs of letters, marks, digits, hyphens and single dots, with a dot inside."""
    for word in folded.replace("..", " ").split():
        if "." not in word[1:-1]:
            continue
        spaced = "".join(letter if letter in ".-" or _category(letter) in "LMN" else " " for letter in word)
        yield from (run for run in spaced.split() if "." in run[1:-1])


def _is_domain(run: str) -> bool:
    if _begins_with_a_domain(run):
        return True
    mixed = not run.isascii() and any(map(_is_latin, run))
    return mixed and _begins_with_a_domain(run.translate(LOOKALIKES))


def _begins_with_a_domain(run: str) -> bool:
    """Whether the labels of `run`, or the first few of them, end with a known suffix."""
    labels = run.strip(".").split(".")
    return any(
        _SUFFIXES.publicsuffix(".".join([*labels[max(0, last - _MAX_SUFFIX) : last], ending])) is not None
        for last in range(1, len(labels))
        for ending in _endings(labels[last].rstrip("-"))
    )


def _endings(label: str) -> set[str]:
    """Readings of `label`: itself, without marks, and the Latin letters before another script in it."""
    readings = {
        label,
        "".join(letter for letter in unicodedata.normalize("NFD", label) if not _is_ornament(letter)),
    }
    latin = "".join(takewhile(_is_latin, label))
    rest = label[len(latin) :]
    if latin and rest and _category(rest[0]) == "L":  # "comزوروا"; digits would belong to the word: "com2"
        readings.add(latin)
    return readings


def _category(letter: str) -> str:
    return unicodedata.category(letter)[0]


def _is_ornament(letter: str) -> bool:
    return letter == _TATWEEL or unicodedata.category(letter) == "Mn"


def _is_latin(letter: str) -> bool:
    if letter.isascii():
        return letter.isalpha()
    return unicodedata.name(letter, "").startswith("LATIN ")
