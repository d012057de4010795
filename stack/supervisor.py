"""The process that starts again what died of a stack, and says so; it gives up what keeps dying.

`up` starts it last and `down` ends it first. It touches nothing while a command holds the stack's lock.
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
from stack.process_specs import SUPERVISOR, ProcessSpec

POLL_S: Final = 0.5
CRASHES_ALLOWED: Final = 10
CRASH_WINDOW_S: Final = 600.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_FILE: Final = "kept.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """What the keeper of a stack has done: restarts by part, and what it gave up. `pid` is its own."""

    pid: int = 0
    restarts: Mapping[str, int] | None = None
    given_up: Sequence[str] = ()

    def restarts_of(self, name: str) -> int:
        """How often a part was started again since the stack was last down."""
        return (self.restarts or {}).get(name, 0)


def read_supervisor_state(directory: Path) -> SupervisorState:
    """What is noted down in a stack's directory."""
    try:
        return SupervisorState(**json.loads((directory / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return SupervisorState()


def forget_state(directory: Path) -> None:
    """Begin to count anew."""
    (directory / _FILE).unlink(missing_ok=True)


def pause_s(crashes: int) -> float:
    """How long to wait after so many deaths of late: not after the first, then ever longer."""
    return 0.0 if crashes == 1 else min(_FIRST_PAUSE_S * 2.0 ** (crashes - 2), _LONGEST_PAUSE_S)


class Supervisor:
    """Looks after `specs`, which log to what `log_of` says, in a stack's `directory`."""

    def __init__(self, specs: Sequence[ProcessSpec], directory: Path, log_of: Callable[[str], Path]) -> None:
        self._specs = specs
        self._directory = directory
        self._run = directory / "run"
        self._log_of = log_of
        self._crashes = {spec.name: CrashHistory(CRASHES_ALLOWED, CRASH_WINDOW_S) for spec in specs}
        self._due: dict[str, float] = {}
        self._given_up: list[str] = []
        self._restarts = dict(read_supervisor_state(directory).restarts or {})
        self._note()

    def keep(self, registered_within_s: float = 10.0) -> None:
        """Look again and again, until this process is ended, or is no longer the stack's keeper.

        That it is not where its directory was deleted, and where another was started. Who started it notes
        that down a moment later: `registered_within_s`.
        """
        give_up = time.monotonic() + registered_within_s
        while not self.is_current() and time.monotonic() < give_up:
            time.sleep(POLL_S)
        log.info("keeper.looks_after", specs=[spec.name for spec in self._specs])
        while self.is_current():
            try:
                self.find(time.monotonic())
            except OSError as error:  # a full disk, no more processes: it may pass, and who else would try
                log.error("keeper.hindered", error=f"{type(error).__name__}: {error}")
                time.sleep(_FIRST_PAUSE_S)
            time.sleep(POLL_S)
        log.error("keeper.not_called", directory=str(self._directory))

    def is_current(self) -> bool:
        """Whether this process is the one the stack's directory names as its keeper."""
        return read_json(self._run / f"{SUPERVISOR}.json").get("pid") == str(os.getpid())

    def find(self, now: float) -> None:
        """Note what died, and start again what is due. A command that is at work is left to it."""
        dead = {spec.name for spec in self._crashed()}
        self._due = {name: due for name, due in self._due.items() if name in dead}
        if not dead:
            return
        with suppress(Busy), exclusive_lock(self._directory):
            for spec in self._crashed():
                if spec.name not in self._due:
                    self._handle_crash(spec, now)
                if self._due.get(spec.name, now + 1) <= now:
                    self._start(spec)

    def _crashed(self) -> list[ProcessSpec]:
        looked_after = [spec for spec in self._specs if spec.name not in self._given_up]
        return [spec for spec in looked_after if processes.find(spec.name, self._run).pid is None]

    def _handle_crash(self, spec: ProcessSpec, now: float) -> None:
        crashes = self._crashes[spec.name].note(now)
        words = processes.log_tail(self._log_of(spec.name))
        if self._crashes[spec.name].too_many():
            self._given_up.append(spec.name)
            self._note()
            log.error(
                "keeper.gave_up",
                spec=spec.name,
                crashes=crashes,
                within_s=CRASH_WINDOW_S,
                log_tail=words,
                advice="it stays dead until make stack is run again",
            )
            return
        self._due[spec.name] = now + pause_s(crashes)
        log.warning("keeper.died", spec=spec.name, again_in_s=pause_s(crashes), log_tail=words)

    def _start(self, spec: ProcessSpec) -> None:
        del self._due[spec.name]
        started = processes.start(spec, self._run, self._log_of(spec.name))
        self._restarts[spec.name] = self._restarts.get(spec.name, 0) + 1
        self._note()
        log.warning("keeper.started_again", spec=spec.name, pid=started.pid)

    def _note(self) -> None:
        noted = {"pid": os.getpid(), "restarts": self._restarts, "given_up": self._given_up}
        write_json(self._directory / _FILE, noted)
