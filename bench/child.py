"""Starts a server of the bench as a process, and waits until it says on which port it listens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.systems import ROOT, CannotStart, stop


@dataclass(frozen=True, slots=True)
class Child:
    """A running server: its process id, its port, and the port of its metrics if it has one."""

    pid: int
    port: int
    metrics_port: int = 0


@contextmanager
def running(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """`python -m module arguments`, which prints its port once it listens; ended on exit.

    Raises CannotStart where it ends before that.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**own, **(environment or {})},
        stdout=subprocess.PIPE,
        text=False,
    )
    try:
        ports = process.stdout.readline().split() if process.stdout else []
        if not ports:
            raise CannotStart(f"{module} {' '.join(arguments)} does not start")
        yield Child(process.pid, *map(int, ports))
    finally:
        stop(process)
        if process.stdout:
            process.stdout.close()


def announce(*ports: int) -> None:
    """Say on which ports this process listens."""
    sys.stdout.write(" ".join(map(str, ports)) + "\n")
    sys.stdout.flush()
