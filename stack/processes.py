"""Processes that outlive the command that started them: a file each with its id, a log, an orderly end."""

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
_LOG_TAIL_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of a stack; `pid` is None while there is none."""

    name: str
    pid: int | None


def start(spec: ProcessSpec, run: Path, log: Path) -> ProcessRecord:
    """Start `spec` unless it runs; its id goes to `run`/<name>.json. Raises OSError where it cannot."""
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
    except OSError:  # nobody would ever end what is noted down nowhere
        process.kill()
        process.wait()
        raise
    return ProcessRecord(spec.name, process.pid)


def find(name: str, run: Path) -> ProcessRecord:
    """The process of that name, if the one noted down still is the one that was started."""
    noted = read_json(run / f"{name}.json")
    if not noted:
        return ProcessRecord(name, None)
    pid = int(noted["pid"])
    return ProcessRecord(name, pid if _is_alive(pid, noted["born"]) else None)


def stop(name: str, run: Path, signal_number: int) -> bool:
    """End it as it likes to be ended, by force after `STOP_S`; whether there was anything to end."""
    found = find(name, run)
    noted = run / f"{name}.json"
    if found.pid is None:
        noted.unlink(missing_ok=True)
        return False
    start_time = read_json(noted)["born"]
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal_number)
        # A stopped process hears nothing until it goes on.
        os.kill(found.pid, signal.SIGCONT)
    give_up = time.monotonic() + STOP_S
    while _is_alive(found.pid, start_time):
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    noted.unlink(missing_ok=True)
    return True


def log_tail(log: Path) -> str:
    """The end of a log, in one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return " | ".join(line[:300] for line in lines[-_LOG_TAIL_LINES:]) or "it said nothing"


def _is_alive(pid: int, start_time: str) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # one this very process started, and which has ended
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _start_time(pid)
    return now != "" and (now is None or now == start_time)


def _start_time(pid: int) -> str | None:
    """When the kernel started it, so that a number given anew is not mistaken; empty once it has ended.

    None where there is no /proc to ask.
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
