"""Who has a drive's desk open, which message they look at, and what they decided last.

Kept in memory by each gateway: moderators who reach different gateways see each other's decisions, but not
which message the other looks at. A conflicting decision is refused by pledges in any case.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

GONE_S: Final = 5.0
"""Without a poll a desk is closed."""
MAX_DRIVES: Final = 1_000
MAX_DESKS: Final = 50
"""Desks of a drive that are shown to each other."""
MAX_DECISIONS: Final = 30
MAX_NAME: Final = 40


@dataclass(slots=True)
class Desk:
    """One open page: the name its moderator gave, the message they look at, and when it polled last."""

    name: str
    looking: str
    seen_at: float


@dataclass(slots=True)
class _Drive:
    desks: OrderedDict[str, Desk] = field(default_factory=OrderedDict)
    decisions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_DECISIONS))
    decided: int = 0


class Presence:
    """The open desks of every drive; `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.process = secrets.token_hex(4)
        """Names this process, whose decisions the numbers count."""
        self._now = now
        self._drives: OrderedDict[str, _Drive] = OrderedDict()

    def see(self, drive: str, desk: str, name: str, looking: str) -> list[dict[str, str]]:
        """Note that a desk is open; the other open ones."""
        desks, now = self._drive(drive).desks, self._now()
        desks[desk] = Desk(visible_name(name), looking, now)
        desks.move_to_end(desk)
        while len(desks) > MAX_DESKS or next(iter(desks.values())).seen_at < now - GONE_S:
            desks.popitem(last=False)
        return [
            {"desk": key, "name": one.name, "looking": one.looking}
            for key, one in desks.items()
            if key != desk
        ]

    def decide(self, drive: str, desk: str, pledge: str, state: str) -> None:
        """Note a decision for the other desks."""
        found = self._drive(drive)
        found.decided += 1
        known = found.desks.get(desk)
        name = known.name if known else ""
        found.decisions.append(
            {"number": found.decided, "desk": desk, "name": name, "pledge": pledge, "state": state}
        )

    def decisions(self, drive: str) -> list[dict[str, Any]]:
        """The newest decisions, oldest first, each with a number that rises."""
        return list(self._drive(drive).decisions)

    def _drive(self, drive: str) -> _Drive:
        found = self._drives.setdefault(drive, _Drive())
        self._drives.move_to_end(drive)
        while len(self._drives) > MAX_DRIVES:
            self._drives.popitem(last=False)
        return found


def visible_name(name: str) -> str:
    """A moderator's name without control and bidirectional characters."""
    return "".join(letter for letter in name if letter.isprintable())[:MAX_NAME].strip()
