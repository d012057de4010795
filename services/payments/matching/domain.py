"""The rules of matching pools, without I/O: which pool gives how much to which gift.

The rules are stated in docs/architecture.md, "Matching pools".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

RATIO_SCALE: Final = 10_000
"""A ratio of 1.00 is stored as this: ratios have up to four decimals."""

PoolState = Literal["scheduled", "active", "exhausted", "ended"]


@dataclass(slots=True)
class Pool:
    """A pool as it is read, changed and written back; see `tables.MatchingPool`."""

    number: int
    id: str
    drive_id: str
    version: int
    sponsor: str
    currency: str
    cap: int
    used: int
    ratio: int
    per_gift_cap: int | None
    creator_id: str | None
    starts_at: datetime
    ends_at: datetime | None
    ended_at: datetime | None

    @property
    def remaining(self) -> int:
        """What is left to give."""
        return self.cap - self.used

    def is_open_at(self, moment: datetime) -> bool:
        """Whether gifts captured at `moment` are matched: from the start until before the end."""
        return self.starts_at <= moment and all(
            end is None or moment < end for end in (self.ends_at, self.ended_at)
        )

    def share_of(self, net: int) -> int:
        """What the pool gives to a new gift of `net`."""
        share = net * self.ratio // RATIO_SCALE
        if self.per_gift_cap is not None:
            share = min(share, self.per_gift_cap)
        return min(share, self.remaining)


def state_of(pool: Pool, now: datetime) -> PoolState:
    """The pool's state at `now`."""
    if any(end is not None and end <= now for end in (pool.ends_at, pool.ended_at)):
        return "ended"
    if pool.remaining == 0:
        return "exhausted"
    return "active" if pool.starts_at <= now else "scheduled"


@dataclass(slots=True)
class Allocation:
    """What a pool gives to a payment; see `tables.MatchingAllocation`."""

    payment_id: str
    pool_id: str
    original: int
    base: int
    units: int = 0
    postings: int = 0

    def target(self, net: int | None) -> int:
        """The share of a gift of which `net` is left: proportional, rounded down, never above the first."""
        return self.original * min(net, self.base) // self.base if net is not None and net > 0 else 0


class Gift(NamedTuple):
    """The change of a payment: its net `before` and `after`, None where it does not count in its drive.

    `is_new`: it starts to count. One that counted before, was held and is released does not.
    """

    payment_id: str
    drive_id: str
    creator_id: str | None
    captured_at: datetime
    before: int | None
    after: int | None
    is_new: bool


class Change(NamedTuple):
    """A change of what a pool gives to a payment; `units` is negative where it gets some back."""

    pool: Pool
    allocation: Allocation
    units: int


def rematch(pools: Sequence[Pool], allocations: Iterable[Allocation], gifts: Sequence[Gift]) -> list[Change]:
    """Match gifts anew after they changed; `pools` (in their order) and `allocations` are updated in place.

    First the pools get back what was refunded, disputed or held. Then gifts take back what a failed refund
    or a won dispute restores of their first share, as far as it is left in the same pool. Then new gifts are
    matched, in the order of their captures.
    """
    by_id = {pool.id: pool for pool in pools}
    in_order = sorted(gifts, key=lambda one: (one.captured_at, one.payment_id))
    of_payment: dict[str, dict[str, Allocation]] = {gift.payment_id: {} for gift in gifts}
    for allocation in allocations:
        of_payment[allocation.payment_id][allocation.pool_id] = allocation
    return [
        *_returned(by_id, of_payment, in_order),
        *_taken_back(by_id, of_payment, in_order),
        *(
            change
            for gift in in_order
            if gift.is_new
            for change in _first_shares(pools, of_payment[gift.payment_id], gift)
        ),
    ]


def _returned(
    by_id: Mapping[str, Pool], of_payment: Mapping[str, Mapping[str, Allocation]], gifts: Sequence[Gift]
) -> Iterator[Change]:
    """What pools get back: a share is never more than what is left of its gift justifies."""
    for gift in gifts:
        for allocation in of_payment[gift.payment_id].values():
            pool = by_id[allocation.pool_id]
            net = gift.after if pool.drive_id == gift.drive_id else None
            if (excess := allocation.units - allocation.target(net)) > 0:
                yield _give(pool, allocation, -excess)


def _taken_back(
    by_id: Mapping[str, Pool], of_payment: Mapping[str, Mapping[str, Allocation]], gifts: Sequence[Gift]
) -> Iterator[Change]:
    """What gifts take back from what remains: at most what the rise of their net restores of their shares."""
    for gift in gifts:
        for allocation in of_payment[gift.payment_id].values():
            pool = by_id[allocation.pool_id]
            target = allocation.target(gift.after)
            restored = min(target - allocation.target(gift.before), target - allocation.units, pool.remaining)
            if restored > 0 and pool.drive_id == gift.drive_id:
                yield _give(pool, allocation, restored)


def _first_shares(pools: Sequence[Pool], known: Mapping[str, Allocation], gift: Gift) -> Iterator[Change]:
    """What each open pool of its drive gives to a gift that starts to count.

    A pool that gave to it before gives nothing more: the payment left the drive and came back.
    """
    net = max(0, gift.after or 0)
    for pool in pools:
        if pool.id in known:
            continue
        is_for = pool.drive_id == gift.drive_id and pool.creator_id in (None, gift.creator_id)
        if is_for and pool.is_open_at(gift.captured_at) and (share := pool.share_of(net)):
            yield _give(pool, Allocation(gift.payment_id, pool.id, share, net), share)


def _give(pool: Pool, allocation: Allocation, units: int) -> Change:
    pool.used += units
    allocation.units += units
    allocation.postings += 1
    return Change(pool, allocation, units)
