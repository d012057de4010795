"""The memory of a process and its children, with shared pages divided among the processes that map them."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Proportional set size of `pid` and its descendants in bytes; 0 without /proc."""
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
                continue  # it has ended meanwhile
    return found


def own_bytes(pid: int) -> int:
    """Proportional set size of `pid` alone in bytes; 0 without /proc."""
    for name, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue  # it has ended, or belongs to another user
        for line in text.splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0
