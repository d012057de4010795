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
from stack.parts import Part

STOP_S: Final = 30.0
_LOOK_S: Final = 0.05
_LAST_WORDS: Final = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A process of a stack; `pid` is None while there is none."""

    name: str
    pid: int | None


def start(part: Part, run: Path, log: Path) -> Running:
    """Start `part` unless it runs; its id goes to `run`/<name>.json. Raises OSError where it cannot."""
    found = look(part.name, run)
    if found.pid is not None:
        return found
    run.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            part.command,
            env=dict(part.environment),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        write_json(run / f"{part.name}.json", {"pid": process.pid, "born": _born(process.pid) or ""})
    except OSError:  # nobody would ever end what is noted down nowhere
        process.kill()
        process.wait()
        raise
    return Running(part.name, process.pid)


def look(name: str, run: Path) -> Running:
    """The process of that name, if the one noted down still is the one that was started."""
    noted = read_json(run / f"{name}.json")
    if not noted:
        return Running(name, None)
    pid = int(noted["pid"])
    return Running(name, pid if _lives(pid, noted["born"]) else None)


def stop(name: str, run: Path, signal_number: int) -> bool:
    """End it as it likes to be ended, by force after `STOP_S`; whether there was anything to end."""
    found = look(name, run)
    noted = run / f"{name}.json"
    if found.pid is None:
        noted.unlink(missing_ok=True)
        return False
    born = read_json(noted)["born"]
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal_number)
        # A stopped process hears nothing until it goes on.
        os.kill(found.pid, signal.SIGCONT)
    give_up = time.monotonic() + STOP_S
    while _lives(found.pid, born):
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        time.sleep(_LOOK_S)
    noted.unlink(missing_ok=True)
    return True


def last_words(log: Path) -> str:
    """The end of a log, in one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return " | ".join(line[:300] for line in lines[-_LAST_WORDS:]) or "it said nothing"


def _lives(pid: int, born: str) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # one this very process started, and which has ended
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _born(pid)
    return now != "" and (now is None or now == born)


def _born(pid: int) -> str | None:
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
