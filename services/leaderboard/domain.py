"""Rules of the public figures: log rows of a payment's change, hash chain, milestones, percent."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NotRequired, Protocol, TypedDict, TypeVar
from urllib.parse import unquote

from backbone.contracts.leaderboard import LogType
from backbone.contracts.pledges import DriveState, Source
from backbone.ids import ulid_text


class Versioned(Protocol):
    """A complete state; a higher version replaces a lower one."""

    @property
    def version(self) -> int: ...


State = TypeVar("State", bound=Versioned)


def newest(events: Iterable[State], identity: Callable[[State], str]) -> list[State]:
    """The highest version for each identity, in the order in which those versions were given."""
    best: dict[str, State] = {}
    for event in events:
        key = identity(event)
        known = best.get(key)
        if known is None:
            best[key] = event
        elif event.version > known.version:
            del best[key]
            best[key] = event
    return list(best.values())


class Figures(NamedTuple):
    """Cumulative amounts of a payment, in minor units."""

    captured: int = 0
    refunded: int = 0
    disputed: int = 0

    @property
    def net(self) -> int:
        """Captured minus refunded and disputed."""
        return self.captured - self.refunded - self.disputed

    def since(self, old: Figures) -> Figures:
        """These amounts minus the old ones."""
        if old is NOTHING:
            return self
        return Figures(
            self.captured - old.captured, self.refunded - old.refunded, self.disputed - old.disputed
        )


NOTHING: Final = Figures()


def changes(was: Figures, now: Figures) -> list[tuple[LogType, int]]:
    """The log rows of a payment whose figures in a drive change from `was` to `now`.

    Each row is a pair of its type and its effect on `raised`. `donation.counted` is logged when a payment
    starts to count in the drive. A later increase of the captured amount is `donation.corrected`, so the
    number of `donation.counted` rows is the number of donations. A payment that stops counting in the drive
    (it is held, or belongs to another drive) is logged as one refund of its net.
    """
    if now == NOTHING:
        return _leaving(was.net)
    captured, refunded, disputed = now.since(was)
    rows: list[tuple[LogType, int]] = []
    if captured:
        rows.append((_of_captured(captured, is_new=was.captured == 0), captured))
    if refunded:
        rows.append(("donation.refunded" if refunded > 0 else "donation.refund_failed", -refunded))
    if disputed:
        rows.append(("donation.disputed" if disputed > 0 else "donation.dispute_won", -disputed))
    return rows


def reported_changes(was: Figures, now: Figures, value: Callable[[int], int]) -> list[tuple[LogType, int]]:
    """The rows of a change that is given in another currency than the drive's, each with its effect in that.

    `value` is what a net is worth in the drive's currency, rounded; a larger net is worth no less. The rows
    are applied one after the other, and the effect of each is the difference of the values of two nets. So
    their sum is that of the whole change, each has the sign of its type, and what did not change has no row.
    What is worth no minor unit has none either.
    """
    rows: list[tuple[LogType, int]] = []
    net, worth = was.net, value(was.net)
    for type_, moved in changes(was, now):
        net += moved
        effect = value(net) - worth
        worth += effect
        if effect:
            rows.append((type_, effect))
    return rows


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
"""The rows of each change of state. Events may skip versions, so a change may need two rows."""


class IllegalTransition(ValueError):
    """A drive made a change of state that is not allowed: the event's producer is wrong."""


def moves(old: DriveState | None, new: DriveState | None) -> Sequence[LogType]:
    """The rows of a change from `old` to `new`; none if they are equal. Raises `IllegalTransition`.

    None is a state known only to a newer version of this service. A change to it has no row, and a change
    from it has the rows of a change from `live`, if there are any.
    """
    if old == new or new is None:
        return ()
    if old is None:
        return MOVES.get((DriveState.LIVE, new), ())
    try:
        return MOVES[old, new]
    except KeyError:
        raise IllegalTransition(f"a drive cannot change from {old} to {new}") from None


class Milestone(TypedDict):
    """An amount in minor units, announced once when it is raised; `reached_at` is RFC 3339.

    One that was reached and then removed from the drive is kept as `removed`, so that it is not announced
    again if it comes back.
    """

    title: Any
    amount: int
    reached_at: str | None
    removed: NotRequired[bool]


def carry_over(old: Sequence[Milestone], new: Iterable[tuple[Any, int]]) -> list[Milestone]:
    """The `new` (title, amount), with `reached_at` of the `old` one of the same amount, and the removed ones.

    They are sorted by amount.
    """
    reached = {milestone["amount"]: milestone["reached_at"] for milestone in old}
    kept = [Milestone(title=title, amount=amount, reached_at=reached.get(amount)) for title, amount in new]
    amounts = {milestone["amount"] for milestone in kept}
    kept += [
        Milestone(title=one["title"], amount=one["amount"], reached_at=one["reached_at"], removed=True)
        for one in old
        if one["reached_at"] is not None and one["amount"] not in amounts
    ]
    return sorted(kept, key=lambda one: one["amount"])


def percent(raised: int, goal: int) -> float:
    """The raised share of the goal in percent with one decimal, rounded down and never negative.

    Rounding down shows 100.0 exactly when the goal is reached. `raised` is negative while the full amount of
    a partially refunded payment is disputed.
    """
    return max(0, raised) * 1000 // goal / 10 if goal > 0 else 0.0


def source_key(source: Source | None) -> str | None:
    """The text that names a source: its platform, `platform/campaign`, or `/campaign`; None without either.

    `%` and `/` in the names are percent-encoded.
    """
    if source is None or (source.platform is None and source.campaign is None):
        return None
    platform, campaign = _escaped(source.platform), _escaped(source.campaign)
    return platform if source.campaign is None else f"{platform}/{campaign}"


def _escaped(name: str | None) -> str:
    return (name or "").replace("%", "%25").replace("/", "%2F")


def source_names(key: str) -> tuple[str | None, str | None]:
    """The platform and campaign that `source_key` put together."""
    platform, slash, campaign = (part and unquote(part) for part in key.partition("/"))
    return platform or None, campaign if slash else None


def alias_of_donor(salt: str, donor_id: str) -> str:
    """The public id of a donor's unnamed gifts in the drive with this salt: the same for all of them.

    Without the salt it cannot be connected with the donor's id.
    """
    digest = hmac.digest(salt.encode(), donor_id.encode(), "sha256")
    return f"dnr_{ulid_text(digest[:16])}"


def alias_of_payment(payment_id: str) -> str:
    """The public id of whoever gave a payment without a donor."""
    return f"dnr_{payment_id.removeprefix('pay_')}"
