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
from stack.alone import Busy, alone
from stack.deaths import Deaths
from stack.layout import read_json, write_json
from stack.parts import KEEPER, Part

LOOK_S: Final = 0.5
DEATHS_ALLOWED: Final = 10
DEATHS_WITHIN_S: Final = 600.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_FILE: Final = "kept.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """What the keeper of a stack has done: restarts by part, and what it gave up. `pid` is its own."""

    pid: int = 0
    restarts: Mapping[str, int] | None = None
    given_up: Sequence[str] = ()

    def restarts_of(self, name: str) -> int:
        """How often a part was started again since the stack was last down."""
        return (self.restarts or {}).get(name, 0)


def read_kept(directory: Path) -> Kept:
    """What is noted down in a stack's directory."""
    try:
        return Kept(**json.loads((directory / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Kept()


def forget(directory: Path) -> None:
    """Begin to count anew."""
    (directory / _FILE).unlink(missing_ok=True)


def pause_s(deaths: int) -> float:
    """How long to wait after so many deaths of late: not after the first, then ever longer."""
    return 0.0 if deaths == 1 else min(_FIRST_PAUSE_S * 2.0 ** (deaths - 2), _LONGEST_PAUSE_S)


class Keeper:
    """Looks after `parts`, which log to what `log_of` says, in a stack's `directory`."""

    def __init__(self, parts: Sequence[Part], directory: Path, log_of: Callable[[str], Path]) -> None:
        self._parts = parts
        self._directory = directory
        self._run = directory / "run"
        self._log_of = log_of
        self._deaths = {part.name: Deaths(DEATHS_ALLOWED, DEATHS_WITHIN_S) for part in parts}
        self._due: dict[str, float] = {}
        self._given_up: list[str] = []
        self._restarts = dict(read_kept(directory).restarts or {})
        self._note()

    def keep(self, called_within_s: float = 10.0) -> None:
        """Look again and again, until this process is ended, or is no longer the stack's keeper.

        That it is not where its directory was deleted, and where another was started. Who started it notes
        that down a moment later: `called_within_s`.
        """
        give_up = time.monotonic() + called_within_s
        while not self.is_called() and time.monotonic() < give_up:
            time.sleep(LOOK_S)
        log.info("keeper.looks_after", parts=[part.name for part in self._parts])
        while self.is_called():
            try:
                self.look(time.monotonic())
            except OSError as error:  # a full disk, no more processes: it may pass, and who else would try
                log.error("keeper.hindered", error=f"{type(error).__name__}: {error}")
                time.sleep(_FIRST_PAUSE_S)
            time.sleep(LOOK_S)
        log.error("keeper.not_called", directory=str(self._directory))

    def is_called(self) -> bool:
        """Whether this process is the one the stack's directory names as its keeper."""
        return read_json(self._run / f"{KEEPER}.json").get("pid") == str(os.getpid())

    def look(self, now: float) -> None:
        """Note what died, and start again what is due. A command that is at work is left to it."""
        dead = {part.name for part in self._dead()}
        self._due = {name: due for name, due in self._due.items() if name in dead}
        if not dead:
            return
        with suppress(Busy), alone(self._directory):
            for part in self._dead():
                if part.name not in self._due:
                    self._mourn(part, now)
                if self._due.get(part.name, now + 1) <= now:
                    self._start(part)

    def _dead(self) -> list[Part]:
        looked_after = [part for part in self._parts if part.name not in self._given_up]
        return [part for part in looked_after if processes.look(part.name, self._run).pid is None]

    def _mourn(self, part: Part, now: float) -> None:
        deaths = self._deaths[part.name].note(now)
        words = processes.last_words(self._log_of(part.name))
        if self._deaths[part.name].too_many():
            self._given_up.append(part.name)
            self._note()
            log.error(
                "keeper.gave_up",
                part=part.name,
                deaths=deaths,
                within_s=DEATHS_WITHIN_S,
                last_words=words,
                advice="it stays dead until make stack is run again",
            )
            return
        self._due[part.name] = now + pause_s(deaths)
        log.warning("keeper.died", part=part.name, again_in_s=pause_s(deaths), last_words=words)

    def _start(self, part: Part) -> None:
        del self._due[part.name]
        started = processes.start(part, self._run, self._log_of(part.name))
        self._restarts[part.name] = self._restarts.get(part.name, 0) + 1
        self._note()
        log.warning("keeper.started_again", part=part.name, pid=started.pid)

    def _note(self) -> None:
        noted = {"pid": os.getpid(), "restarts": self._restarts, "given_up": self._given_up}
        write_json(self._directory / _FILE, noted)
