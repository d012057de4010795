"""Processes that outlive the command that started them, each with a file of its process id and a log."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stack.layout import REPOSITORY, read_json, write_json
from stack.process_specs import ProcessSpec

STOP_S: Final = 30.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of a stack; `pid` is None while it does not run."""

    name: str
    pid: int | None


def start(spec: ProcessSpec, run: Path, log: Path) -> ProcessRecord:
    """Start `spec` unless it runs, and write its id to `run`/<name>.json. Raises OSError."""
    found = find(spec.name, run)
    if found.pid is not None:
        return found
    run.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            spec.command,
            env=dict(spec.environment),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        write_json(run / f"{spec.name}.json", {"pid": process.pid, "born": _start_time(process.pid) or ""})
    except OSError:  # no command could stop a process that is not recorded
        process.kill()
        process.wait()
        raise
    return ProcessRecord(spec.name, process.pid)


def find(name: str, run: Path) -> ProcessRecord:
    """Find the process of that name: its recorded id and start time must match a running process."""
    recorded = read_json(run / f"{name}.json")
    if not recorded:
        return ProcessRecord(name, None)
    pid = int(recorded["pid"])
    return ProcessRecord(name, pid if _is_alive(pid, recorded["born"]) else None)


def stop(name: str, run: Path, signal_number: int) -> bool:
    """Stop a process with a signal, SIGKILL after `STOP_S`; returns whether it was running."""
    found = find(name, run)
    file = run / f"{name}.json"
    if found.pid is None:
        file.unlink(missing_ok=True)
        return False
    start_time = read_json(file)["born"]
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal_number)
        # A process stopped by SIGSTOP handles the signal only after it continues.
        os.kill(found.pid, signal.SIGCONT)
    give_up = time.monotonic() + STOP_S
    while _is_alive(found.pid, start_time):
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    file.unlink(missing_ok=True)
    return True


def _is_alive(pid: int, start_time: str) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # reap a child of this process that has ended
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _start_time(pid)
    return now != "" and (now is None or now == start_time)


def _start_time(pid: int) -> str | None:
    """A process's start time, which distinguishes it from later ones with its id; empty once it has ended.

    None without /proc.
    """
    if not Path("/proc/self/stat").exists():
        return None
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state == "Z" else started
