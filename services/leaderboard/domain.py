"""The rules of what is shown: what a change of a payment means, the log's chain, milestones, percent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypedDict, TypeVar

from backbone.contracts.leaderboard import LogType
from backbone.contracts.pledges import DriveState

FIRST_HASH: Final = ""
"""What the first row of a log names as the row before it."""


class Versioned(Protocol):
    """An absolute state; a higher version replaces a lower one."""

    @property
    def version(self) -> int: ...


State = TypeVar("State", bound=Versioned)


def newest(events: Iterable[State], identity: Callable[[State], str]) -> list[State]:
    """The highest version of each thing, in the order in which those were given."""
    best: dict[str, State] = {}
    for event in events:
        known = best.get(identity(event))
        if known is None or event.version > known.version:
            best.pop(identity(event), None)
            best[identity(event)] = event
    return list(best.values())


class Figures(NamedTuple):
    """A payment's money in minor units, each cumulative."""

    captured: int = 0
    refunded: int = 0
    disputed: int = 0

    @property
    def net(self) -> int:
        """What is left of it."""
        return self.captured - self.refunded - self.disputed

    def since(self, old: Figures) -> Figures:
        """New minus old."""
        return Figures(*(now - before for now, before in zip(self, old, strict=True)))


NOTHING: Final = Figures()


def changes(was: Figures, now: Figures) -> list[tuple[LogType, int]]:
    """The log rows for a payment that counted `was` in a drive and now counts `now`, with each one's
    effect on `raised`.

    `donation.counted` is written when a payment starts to count in the drive; a capture that is later
    corrected upward is `donation.corrected`, so that counting these rows counts gifts. A payment that
    stops counting in the drive (it is held, or belongs to another drive) leaves as one refund of its net.
    """
    if now == NOTHING:
        return _leaving(was.net)
    captured, refunded, disputed = now.since(was)
    rows: list[tuple[LogType, int]] = [
        (_of_captured(captured, is_new=was.captured == 0), captured),
        ("donation.refunded" if refunded > 0 else "donation.refund_failed", -refunded),
        ("donation.disputed" if disputed > 0 else "donation.dispute_won", -disputed),
    ]
    return [row for row in rows if row[1]]


def _of_captured(more: int, *, is_new: bool) -> LogType:
    if more < 0:
        return "donation.refunded"
    return "donation.counted" if is_new else "donation.corrected"


def _leaving(net: int) -> list[tuple[LogType, int]]:
    if net == 0:
        return []
    return [("donation.refunded" if net > 0 else "donation.corrected", -net)]


MOVES: Final[Mapping[tuple[DriveState, DriveState], Sequence[LogType]]] = {
    (DriveState.DRAFT, DriveState.LIVE): ("drive.opened",),
    (DriveState.DRAFT, DriveState.PAUSED): ("drive.opened", "drive.paused"),
    (DriveState.DRAFT, DriveState.CLOSED): ("drive.closed",),
    (DriveState.LIVE, DriveState.PAUSED): ("drive.paused",),
    (DriveState.LIVE, DriveState.CLOSED): ("drive.closed",),
    (DriveState.PAUSED, DriveState.LIVE): ("drive.resumed",),
    (DriveState.PAUSED, DriveState.CLOSED): ("drive.closed",),
}
"""Which rows a drive's move writes; versions between may have been passed over."""


class IllegalTransition(ValueError):
    """A drive went where no drive can go: its speaker is wrong."""


def moves(old: DriveState | None, new: DriveState | None) -> Sequence[LogType]:
    """The rows of a move from `old` to `new`; none where nothing moved. Raises `IllegalTransition`.

    None is a state of a newer version. A move to it has no row here; one from it has the row of a move
    from `live`, if there is one.
    """
    if old == new or new is None:
        return ()
    if old is None:
        return MOVES.get((DriveState.LIVE, new), ())
    try:
        return MOVES[old, new]
    except KeyError:
        raise IllegalTransition(f"a drive cannot go from {old} to {new}") from None


class Milestone(TypedDict):
    """A sum to celebrate once, in minor units; `reached_at` in RFC 3339. Stored as it is."""

    title: Any
    amount: int
    reached_at: str | None


def carry_over(old: Sequence[Milestone], new: Iterable[tuple[Any, int]]) -> list[Milestone]:
    """The `new` (title, amount), lowest first, with what was reached of `old`: the amount is the identity."""
    reached = {milestone["amount"]: milestone["reached_at"] for milestone in old}
    kept = [Milestone(title=title, amount=amount, reached_at=reached.get(amount)) for title, amount in new]
    return sorted(kept, key=lambda one: one["amount"])


def percent(raised: int, goal: int) -> float:
    """How much of the goal is raised, in percent with one decimal, rounded down and never below 0.

    Rounded down, so that 100.0 is shown exactly when the goal is reached. `raised` is below 0 while a
    dispute was withdrawn in full after a partial refund; a share of the goal cannot be.
    """
    return max(0, raised) * 1000 // goal / 10 if goal > 0 else 0.0


def hash_row(drive_id: str, epoch: int, row: Mapping[str, Any], previous: str) -> str:
    """The hash of a row of a drive's log, chained to the hash of the row before it.

    SHA-256, in hexadecimal, of canonical JSON in UTF-8: one object of `drive`, `epoch`, `previous`
    and the row as `GET /v1/drives/{drive}/events` shows it without its `hash`; names sorted, no
    spaces, everything outside ASCII escaped. The first row of an epoch has "" for `previous`.
    """
    hashed = {name: value for name, value in row.items() if name != "hash"}
    hashed |= {"drive": drive_id, "epoch": epoch, "previous": previous}
    return hashlib.sha256(_CANONICAL(hashed).encode()).hexdigest()


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first row of a log that is not what it should be, and why."""

    sequence: int
    reason: str


def verify(
    drive_id: str, epoch: int, rows: Iterable[Mapping[str, Any]], previous: str = FIRST_HASH, after: int = 0
) -> Flaw | None:
    """The first flaw of a piece of a log that follows row `after`, whose hash is `previous`; None if none.

    Finds gaps, repeats, rows out of order, and every row or hash that was changed afterwards.
    """
    for row in rows:
        after += 1
        if row["sequence"] != after:
            return Flaw(after, f"row {row['sequence']} where {after} should be")
        if hash_row(drive_id, epoch, row, previous) != row["hash"]:
            return Flaw(after, "the row and its hash do not fit together")
        previous = row["hash"]
    return None
