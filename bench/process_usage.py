"""CPU and memory of processes, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.memory import own_bytes


def cpu_s(pid: int, *, deep: bool) -> float:
    """Seconds of user and system time of a process, with its descendants where `deep`; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + (sum(cpu_s(child, deep=True) for child in children_of(pid)) if deep else 0.0)


def children_of(pid: int) -> list[int]:
    """The process ids of its children."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def memory_mb(pid: int, *, deep: bool = False) -> float:
    """The memory of a process in MB (proportional set size), with its descendants where `deep`."""
    return own_bytes(pid) / 1e6 + (sum(memory_mb(one, deep=True) for one in children_of(pid)) if deep else 0)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of named processes at one time."""

    at: float
    cpu_s: Mapping[str, float]

    @classmethod
    def of(cls, processes: Mapping[str, int], *, shallow: Collection[str] = ()) -> Usage:
        """Of `processes`, with their descendants except for those in `shallow`."""
        return cls(
            time.time(), {name: cpu_s(pid, deep=name not in shallow) for name, pid in processes.items()}
        )

    def cores_since(self, before: Usage) -> dict[str, float]:
        """The mean number of cores that each process used since `before`."""
        spent_s = max(self.at - before.at, 1e-9)
        return {name: (used - before.cpu_s.get(name, 0.0)) / spent_s for name, used in self.cpu_s.items()}
