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
    original: int = 0
    base: int = 0
    units: int = 0
    postings: int = 0

    def target(self, net: int) -> int:
        """The share of a gift of which `net` is left: proportional, rounded down, never above the first."""
        return self.original * min(net, self.base) // self.base if net > 0 and self.base > 0 else 0


class Gift(NamedTuple):
    """The change of a payment: what is left of it, and whether it starts or stops to count in its drive."""

    payment_id: str
    drive_id: str
    creator_id: str | None
    captured_at: datetime
    net: int
    begins: bool
    ceases: bool


class Change(NamedTuple):
    """A change of what a pool gives to a payment; `units` is negative where it gets some back."""

    pool: Pool
    allocation: Allocation
    units: int


def rematch(
    pools: Sequence[Pool], allocations: Iterable[Allocation], gifts: Sequence[Gift]
) -> tuple[list[Change], list[Allocation]]:
    """Match gifts anew after they changed; `pools` (in their order) and `allocations` are updated in place.

    First the pools get back what was refunded, disputed or held. Then gifts take back what a failed refund
    or a won dispute restores, up to their first share and what is left in the same pool. Then new gifts are
    matched, in the order of their captures. Returns the changes of `used`, and the allocations to store.
    """
    by_id = {pool.id: pool for pool in pools}
    in_order = sorted(gifts, key=lambda one: (one.captured_at, one.payment_id))
    of_payment: dict[str, dict[str, Allocation]] = {gift.payment_id: {} for gift in gifts}
    for allocation in allocations:
        of_payment[allocation.payment_id][allocation.pool_id] = allocation
    changes = [
        *_resized(by_id, of_payment, in_order, gives_back=True),
        *_resized(by_id, of_payment, in_order, gives_back=False),
    ]
    closed: list[Allocation] = []
    for gift in in_order:
        others = [
            pool
            for pool in pools
            if pool.drive_id == gift.drive_id and pool.id not in of_payment[gift.payment_id]
        ]
        if gift.begins:
            changes += _first_shares(others, gift)
        elif gift.ceases:
            # Held after it counted: these rows keep it from being matched as a new gift once it is released.
            closed += [Allocation(gift.payment_id, pool.id) for pool in others]
    return changes, [*closed, *(change.allocation for change in changes)]


def _resized(
    by_id: Mapping[str, Pool],
    of_payment: Mapping[str, Mapping[str, Allocation]],
    gifts: Sequence[Gift],
    *,
    gives_back: bool,
) -> Iterator[Change]:
    """The changes of stored allocations: either those that return money to a pool, or those that take it."""
    for gift in gifts:
        known = of_payment[gift.payment_id]
        for pool in (by_id[pool_id] for pool_id in known):
            allocation = known[pool.id]
            counts = pool.drive_id == gift.drive_id and not gift.ceases
            units = (allocation.target(gift.net) if counts else 0) - allocation.units
            if (units < 0) == gives_back and (units := min(units, pool.remaining)):
                yield _give(pool, allocation, units)


def _first_shares(pools: Sequence[Pool], gift: Gift) -> Iterator[Change]:
    """What each of these pools gives to a gift that starts to count."""
    for pool in pools:
        is_for = pool.creator_id in (None, gift.creator_id) and pool.is_open_at(gift.captured_at)
        if is_for and (share := pool.share_of(max(0, gift.net))):
            yield _give(pool, Allocation(gift.payment_id, pool.id, share, gift.net), share)


def _give(pool: Pool, allocation: Allocation, units: int) -> Change:
    pool.used += units
    allocation.units += units
    allocation.postings += 1
    return Change(pool, allocation, units)
