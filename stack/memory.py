"""How much memory a process and its children hold, shared pages divided among those who share them."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Proportional set size of `pid` and all below it; 0 where there is no /proc to ask."""
    return sum(own_bytes(one) for one in _process_tree(pid))


def _process_tree(pid: int) -> list[int]:
    found, unseen = [], [pid]
    while unseen:
        one = unseen.pop()
        found.append(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                unseen.extend(int(child) for child in children.read_text(encoding="ascii").split())
            except OSError:
                continue  # it ended meanwhile
    return found


def own_bytes(pid: int) -> int:
    """The same of `pid` alone."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # ended, or another user's
        for line in text.splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0
