"""The stack's supervisor: restarts crashed processes with exponential backoff, abandons one after 10 crashes.

`up` starts it last and `down` stops it first. It changes nothing while a command holds the stack's lock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from stack import processes
from stack.crash_history import CrashHistory
from stack.exclusive_lock import Busy, exclusive_lock
from stack.layout import read_json, write_json
from stack.log_tail import log_tail
from stack.process_specs import SUPERVISOR, ProcessSpec

POLL_S: Final = 0.5
CRASHES_ALLOWED: Final = 10
CRASH_WINDOW_S: Final = 600.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_FILE: Final = "supervisor.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The supervisor's process id, its restarts by process, and the processes it has abandoned."""

    pid: int = 0
    restarts: Mapping[str, int] | None = None
    given_up: Sequence[str] = ()

    def restarts_of(self, name: str) -> int:
        """How many times a process was restarted since the last `down`."""
        return (self.restarts or {}).get(name, 0)


def read_supervisor_state(directory: Path) -> SupervisorState:
    """Read the state from a stack's directory."""
    try:
        return SupervisorState(**json.loads((directory / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return SupervisorState()


def forget_state(directory: Path) -> None:
    """Delete the state, so that counting begins anew."""
    (directory / _FILE).unlink(missing_ok=True)


def pause_s(crashes: int) -> float:
    """Seconds to wait before a restart: none after the first recent crash, then 1, 2, 4 … 30."""
    return 0.0 if crashes == 1 else min(_FIRST_PAUSE_S * 2.0 ** (crashes - 2), _LONGEST_PAUSE_S)


class Supervisor:
    """Supervises the processes of `specs` in a stack's `directory`; `log_of(name)` is a process's log."""

    def __init__(self, specs: Sequence[ProcessSpec], directory: Path, log_of: Callable[[str], Path]) -> None:
        self._specs = specs
        self._directory = directory
        self._run = directory / "run"
        self._log_of = log_of
        self._crashes = {spec.name: CrashHistory(CRASHES_ALLOWED, CRASH_WINDOW_S) for spec in specs}
        self._due: dict[str, float] = {}
        self._given_up: list[str] = []
        self._restarts = dict(read_supervisor_state(directory).restarts or {})
        self._write_state()

    def run(self, registered_within_s: float = 10.0) -> None:
        """Check repeatedly, until this process is no longer the stack's supervisor.

        It is not once its directory is deleted or another supervisor was started. The command that starts it
        registers it a moment later, within `registered_within_s`.
        """
        give_up = time.monotonic() + registered_within_s
        while not self.is_current() and time.monotonic() < give_up:
            time.sleep(POLL_S)
        log.info("supervisor.started", processes=[spec.name for spec in self._specs])
        while self.is_current():
            try:
                self.check(time.monotonic())
            except OSError as error:  # a full disk, for example: it may be transient
                log.error("supervisor.check_failed", error=f"{type(error).__name__}: {error}")
                time.sleep(_FIRST_PAUSE_S)
            time.sleep(POLL_S)
        log.error("supervisor.replaced", directory=str(self._directory))

    def is_current(self) -> bool:
        """Whether the stack's directory names this process as its supervisor."""
        return read_json(self._run / f"{SUPERVISOR}.json").get("pid") == str(os.getpid())

    def check(self, now: float) -> None:
        """Record crashes and restart what is due; does nothing while a command holds the lock."""
        crashed = {spec.name for spec in self._crashed()}
        self._due = {name: due for name, due in self._due.items() if name in crashed}
        if not crashed:
            return
        with suppress(Busy), exclusive_lock(self._directory):
            for spec in self._crashed():
                if spec.name not in self._due:
                    self._handle_crash(spec, now)
                if self._due.get(spec.name, now + 1) <= now:
                    self._start(spec)

    def _crashed(self) -> list[ProcessSpec]:
        active = [spec for spec in self._specs if spec.name not in self._given_up]
        return [spec for spec in active if processes.find(spec.name, self._run).pid is None]

    def _handle_crash(self, spec: ProcessSpec, now: float) -> None:
        crashes = self._crashes[spec.name].add(now)
        tail = log_tail(self._log_of(spec.name))
        if self._crashes[spec.name].too_many():
            self._given_up.append(spec.name)
            self._write_state()
            log.error(
                "supervisor.abandoned",
                process=spec.name,
                crashes=crashes,
                within_s=CRASH_WINDOW_S,
                log_tail=tail,
                advice="run make stack to start it again",
            )
            return
        self._due[spec.name] = now + pause_s(crashes)
        log.warning("supervisor.crashed", process=spec.name, restart_in_s=pause_s(crashes), log_tail=tail)

    def _start(self, spec: ProcessSpec) -> None:
        del self._due[spec.name]
        started = processes.start(spec, self._run, self._log_of(spec.name))
        self._restarts[spec.name] = self._restarts.get(spec.name, 0) + 1
        self._write_state()
        log.warning("supervisor.restarted", process=spec.name, pid=started.pid)

    def _write_state(self) -> None:
        state = {"pid": os.getpid(), "restarts": self._restarts, "given_up": self._given_up}
        write_json(self._directory / _FILE, state)
