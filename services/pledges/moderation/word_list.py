"""Lists of words as regular expressions, and the list that every drive uses.

A word is found as a whole word, never within another: with the suffixes of English, with the prefixes and
suffixes of Arabic, with repeated letters ("fuuuck"), and with "*" in place of single letters.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from services.pledges.moderation.folding import fold, franco, readings, squeezed

_FILE: Final = Path(__file__).parent / "words.txt"
_ENGLISH_SUFFIXES: Final = "(?:s|es|ed|er|ers|in|ing|y|z)?"
_ARABIC_PREFIXES: Final = "[وف]?(?:يا|ال|بال|كال|لل|[بلك])?"
_ARABIC_SUFFIXES: Final = "(?:ي|ك|كم|كن|ه|ها|هم|هن|نا|ين|ون|ات|ان)?"
_AFTER_TA: Final = "(?:ه|ات|ين|ت(?:ي|ك|كم|ه|ها|هم|نا)?)"
"""The endings of a word in ta marbuta."""
_LETTERS: Final = 3
_ARABIC: Final = re.compile("[\u0600-\u06ff]")


class _Entry(NamedTuple):
    """A word's expression, and three letters that any text has in which the expression finds it."""

    letters: str
    pattern: re.Pattern[str]


class _Entries:
    """Expressions by their letters: most texts have those of none, and are not searched."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._by_letters: defaultdict[str, list[re.Pattern[str]]] = defaultdict(list)
        for entry in entries:
            self._by_letters[entry.letters].append(entry.pattern)
        self._short = {letters for letters in self._by_letters if len(letters) < _LETTERS}

    def is_any_in(self, words: str) -> bool:
        """Whether one of them finds something."""
        text = squeezed(words)
        letters = {text[start : start + _LETTERS] for start in range(len(text) - _LETTERS + 1)}
        due = self._by_letters if "*" in text else letters & self._by_letters.keys() | self._short
        return any(pattern.search(words) for each in due for pattern in self._by_letters[each])


class WordList:
    """Words and phrases to look for; see `words.txt` for the signs before them."""

    def __init__(self, words: Iterable[str], in_franco: Iterable[str] = ()) -> None:
        written = [word.strip() for word in words]
        self._signs = [word for word in written if word and not any(map(str.isalnum, word))]
        self._words = _Entries(_entry(word) for word in written if _only_words(word))
        self._franco = _Entries(map(_franco_entry, in_franco))

    def is_in(self, folded: str) -> bool:
        """Whether one of the words is in a folded text."""
        found = readings(folded)
        return (
            self._words.is_any_in(found.words)
            or self._franco.is_any_in(found.franco)
            or any(sign in folded for sign in self._signs)
        )


def _only_words(written: str) -> str:
    """A word or phrase as it is among the words of `readings`, without its sign."""
    return " ".join(re.sub(r"[^\w]+|_+", " ", fold(written)).split())


def _entry(written: str) -> _Entry:
    """How a word or phrase with its sign is found among the words of `readings`."""
    word = _only_words(written)
    if written.startswith("="):
        return _compiled(f" {word} ", f" {_repeatable(word)} ")
    if _ARABIC.search(word) is not None:
        stem, ending = (word[:-1], _AFTER_TA) if word.endswith("ه") else (word, _ARABIC_SUFFIXES)
        whole, letters = f" {_ARABIC_PREFIXES}{_repeatable(stem)}{ending} ", stem
    else:
        whole, letters = f" {_repeatable(word)}{_ENGLISH_SUFFIXES} ", f" {word}"
    if written.startswith("~"):
        return _compiled(word, f"{whole}|{_repeatable(word, wildcard=False)}")
    return _compiled(letters, whole)


def _franco_entry(written: str) -> _Entry:
    """How a word is found among the sounds of `readings`."""
    sounds = franco(fold(written.lstrip("=")))
    return _compiled(f" {sounds} ", f" {_repeatable(sounds, wildcard=False)} ")


def _compiled(letters: str, pattern: str) -> _Entry:
    return _Entry(squeezed(letters)[:_LETTERS], re.compile(pattern))


def _repeatable(word: str, *, wildcard: bool = True) -> str:
    """A word whose letters may be repeated, and of which "*" may replace each but the first.

    Neighbouring parts never match the same letter, so that a search takes linear time.
    """
    parts: list[str] = []
    for letter, run in groupby(word):
        count = len(list(run))
        letters = re.escape(letter) + (f"{{{count},}}" if count > 1 else "+")
        hidden = wildcard and bool(parts) and letter != " "
        parts.append(f"(?:{letters}|\\*{{{count}}})" if hidden else letters)
    return "".join(parts)


def _sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        if line.startswith("["):
            section = found[line.strip("[]")] = []
        else:
            section.append(line)
    return found


def _read() -> WordList:
    sections = _sections(_FILE.read_text(encoding="utf-8"))
    return WordList([*sections["english"], *sections["arabic"]], sections["franco"])


COMMON: Final = _read()
"""The words that hold a text in every drive that is moderated."""


@lru_cache(maxsize=16)
def _blocked(words: Sequence[str]) -> WordList:
    return WordList([word.lstrip("=~") or word for word in words])


def blocked_words(words: Iterable[str]) -> WordList:
    """A drive's own list; its entries have no signs. Built once for each list."""
    return _blocked(tuple(words))
