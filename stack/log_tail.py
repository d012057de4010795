"""The end of a process's log, quoted in messages about its failure."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LINES: Final = 5
_LINE_LENGTH: Final = 300


def log_tail(log: Path) -> str:
    """The last lines of a log, joined to one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return " | ".join(line[:_LINE_LENGTH] for line in lines[-_LINES:]) or "its log is empty"
