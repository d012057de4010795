"""The rules of sharing what a drive raised, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

WHOLE_BPS: Final = 10_000


def shares_of(beneficiaries: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """Ten-thousandths by name, in the drive's order; those of equal names are added."""
    shares: dict[str, int] = {}
    for one in beneficiaries:
        name, bps = str(one["name"]), one["share_bps"]
        assert isinstance(bps, int)
        shares[name] = shares.get(name, 0) + bps
    return shares


def share_out(units: int, shares: Mapping[str, int]) -> dict[str, int]:
    """What each is due of `units`: by largest remainder, so that the parts add up to `units` exactly.

    Of equal remainders, the earlier beneficiary gets the unit. Nothing is due of a negative sum.
    """
    units = max(0, units)
    parts = {name: units * bps // WHOLE_BPS for name, bps in shares.items()}
    by_remainder = sorted(shares, key=lambda name: -(units * shares[name] % WHOLE_BPS))
    for name in by_remainder[: units - sum(parts.values())]:
        parts[name] += 1
    return parts


def owed(units: int, shares: Mapping[str, int], paid: Mapping[str, int], name: str) -> int:
    """The most that may be paid to `name` now, of a drive's net `units` and what was `paid` by name.

    Never more than is left of the drive: as the net grows by one, largest remainders may take a unit from
    one beneficiary and give it to another, and the first may have been paid it before.
    """
    due = share_out(units, shares).get(name, 0) - paid.get(name, 0)
    return max(0, min(due, max(0, units) - sum(paid.values())))
