"""No identifier and no prose uses a word that this code base has replaced by the field's standard term.

`python -m tests.test_language` prints how often each word occurs in each file, enforced or not.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = (
    "backbone",
    "services",
    "gateway",
    "rehearsal",
    "sandbox",
    "embedded",
    "stack",
    "bench",
    "tests",
)
PROSE_FILES: Final = ("*.md", "*.js", "*.css", "*.html", "*.toml", "*.yaml", "*.yml", "Makefile", "*.sh")
UNCHECKED: Final = (
    "tests/test_language.py",
    "*/migrations/versions/*",
    "*/fonts/*",
    "docs/contracts/*",
    "tests/*/examples/*",
)


KEPT: Final = frozenset({"heard_at"})
"""Names of columns, settings and wire fields, and of what libraries define: they stay."""


@dataclass(frozen=True)
class Word:
    """A word that has a standard replacement, and where it may stay."""

    text: str
    instead: str
    identifier: str = ""
    """A regular expression for one part of an identifier, such as `door` in `open_door`; empty: none."""
    prose: str = ""
    """A regular expression for comments, docstrings, messages and documents; empty: none."""
    enforced: bool = True
    allowed: dict[str, str] = field(default_factory=dict)
    """Globs of files where it may stay, each with the reason."""


def both(
    text: str, instead: str, pattern: str = "", enforced: bool = True, allowed: dict[str, str] | None = None
) -> Word:
    """A word to be kept out of identifiers and of prose."""
    pattern = pattern or f"{text}s?"
    return Word(text, instead, pattern, rf"\b(?:{pattern})\b", enforced, allowed or {})


def prose(text: str, instead: str, pattern: str) -> Word:
    """A word to be kept out of prose."""
    return Word(text, instead, "", pattern)


SESSIONS_COLUMN: Final = "the column `wish` of the sandbox's table `sessions`, which existing data files have"

DESK_FILES: Final = (
    *(
        "gateway/desk/*",
        "gateway/pages/static/desk*",
        "gateway/app.py",
        "gateway/tables.py",
        "tests/gateway/test_desk*.py",
    ),
    *("tests/gateway/test_presence.py", "tests/pledges/moderation/test_many_moderators.py"),
    *("tests/gateway/test_overlay_moderated_in_browser.py", "tests/journeys/test_alerts_in_browser.py"),
    *("docs/api-guide.md", "docs/decisions/0032-*", "CHANGELOG.md"),
)

WORDS: Final = (
    both("troupe", "process group"),
    both("desk", "worker", allowed=dict.fromkeys(DESK_FILES, "the page on which moderators decide")),
    prose("last words", "log tail", r"\blast words\b"),
    prose("second chance", "retry", r"\bsecond chances?\b"),
    prose("donors' words", "display texts", r"\bwords of (donors|people)\b|\b(donors'|people's) words\b"),
    prose("by our doing", "(a plain verb)", r"\bby our doing\b|\bof our doing\b"),
    both("door", "API, endpoint, route"),
    both(
        "wish",
        "request",
        r"wish(?:es)?",
        allowed={"sandbox/checkout.py": SESSIONS_COLUMN, "sandbox/journal.py": SESSIONS_COLUMN},
    ),
    both("keeper", "supervisor"),
    both("somebody's", "external", r"somebodys?|somebody's"),
    both("asleep", "stalled", r"asleep|sleepers?"),
    both("heard", "received, consumed", r"hears?|heard|hearing"),
    both("speaker", "producer", r"speakers?|speaks?|spoken"),
    both("town", "fake backend"),
    both("pace", "interval, rate limit", r"paces?|pacing"),
    prose("set aside", "quarantined", r"\bset(?:s|ting)? aside\b"),
    prose(
        "is away",
        "is unavailable",
        r"\b(?:is|are|was|were|be) away\b|\baway (?:database|server|Kafka)\b",
    ),
    prose("ever more patiently", "with exponential backoff", r"\bever more\b"),
    # Only counted, because they also have a legitimate use: Kafka's listeners, the metric label `stage`.
    # `python -m tests.test_language --files` lists where they occur.
    both("room", "package", enforced=False),
    both("peer", "service client", enforced=False),
    both("listener", "connection, subscriber", enforced=False),
    both("say", "publish, emit, report", r"says?|said|saying", enforced=False),
    both("tell", "publish, report", r"tells?|told|telling", enforced=False),
    both("gift", "donation", enforced=False),
    both("stage", "harness, fixtures", enforced=False),
    both("words", "display texts", "words", enforced=False),
    both("lane", "concurrency limit", enforced=False),
)


def files() -> list[str]:
    """Every tracked file, relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the files cannot be listed")
    found = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    return [name for name in found if not any(fnmatch(name, glob) for glob in UNCHECKED)]


def python_parts(source: str) -> tuple[list[str], list[str]]:
    """The words that identifiers are made of, and the prose: comments, docstrings and messages.

    A string without a space is a value (a wire name, a key, a column) and not prose; SQL is not either.
    """
    names, texts = [], []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string not in KEPT:
            names += parts(token.string)
        elif token.type == tokenize.COMMENT:
            texts.append(token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            texts.append(node.value)
    return names, [without_code(text) for text in texts]


def parts(name: str) -> list[str]:
    """`open_door`, `OPEN_DOOR` and `OpenDoor` are `open` and `door`."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def without_code(text: str) -> str:
    """Prose without what stands in backticks and without addresses: names that may have to stay."""
    return re.sub(r"`[^`]*`|\bhttps?://\S+|\S*[/_]\S*", " ", text)


def occurrences(word: Word, name: str, cache: dict[str, tuple[list[str], list[str]]]) -> int:
    """How often a file uses a word."""
    if name not in cache:
        source = (ROOT / name).read_text(errors="replace")
        if name.endswith(".py"):
            cache[name] = python_parts(source)
        else:
            fenced = re.sub(r"```.*?```", " ", source, flags=re.DOTALL)
            cache[name] = [], [without_code(line) for line in fenced.splitlines()]
    names, texts = cache[name]
    count = sum(bool(word.identifier and re.fullmatch(word.identifier, part)) for part in names)
    if word.prose:
        count += sum(len(re.findall(word.prose, text, re.IGNORECASE)) for text in texts)
    stem = Path(name).stem
    return count + any(bool(word.identifier and re.fullmatch(word.identifier, part)) for part in parts(stem))


def checked() -> Iterator[str]:
    """The files with identifiers or prose of ours."""
    for name in files():
        python = name.endswith(".py") and name.split("/")[0] in (*PACKAGES, "deploy")
        if python or any(fnmatch(name.rpartition("/")[2], glob) for glob in PROSE_FILES):
            yield name


CACHE: Final[dict[str, tuple[list[str], list[str]]]] = {}


@pytest.mark.parametrize("word", [word for word in WORDS if word.enforced], ids=lambda word: word.text)
def test_replaced_word_is_not_used(word: Word) -> None:
    found = {
        name: count
        for name in checked()
        if not any(fnmatch(name, glob) for glob in word.allowed)
        if (count := occurrences(word, name, CACHE))
    }
    assert found == {}, f"use {word.instead}"


def test_word_is_found_in_identifiers_and_prose_and_not_in_values() -> None:
    source = '"""The public door."""\nclass OpenDoor: ...\nx = "door"  # `door` stays\nDOOR = door_s = 1\n'
    names, texts = python_parts(source)
    assert names.count("door") == 3
    assert sum("door" in text for text in texts) == 1


def main() -> None:
    """Print the report."""
    for word in WORDS:
        found = Counter({name: occurrences(word, name, CACHE) for name in checked()})
        total = sum(found.values())
        print(f"{word.text}: {total}{'' if word.enforced else ' (not enforced)'}")  # noqa: T201
        for name, count in found.most_common() if "--files" in sys.argv else ():
            if count:
                print(f"    {count:4} {name}")  # noqa: T201


if __name__ == "__main__":
    main()
