"""What matching pools gave, by pool: payments' rows compared with leaderboard's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select

from backbone.database.transaction import SyncTransaction
from services.payments.matching.tables import POOLS
from services.payments.proof.compare import Difference


class PoolFigures(NamedTuple):
    """A state of a pool: what gifts have used of it, in minor units of `currency`."""

    version: int
    used: int
    currency: str | None = None


def pools_of(transaction: SyncTransaction, drive_id: str) -> dict[str, PoolFigures]:
    """The pools of a drive, by id."""
    rows = transaction.execute(_OF_DRIVE, {"of_drive": drive_id})
    return {pool: PoolFigures(version, used, currency) for pool, version, used, currency in rows}


_OF_DRIVE: Final = select(POOLS.c.id, POOLS.c.version, POOLS.c.used, POOLS.c.currency).where(
    POOLS.c.drive_id == bindparam("of_drive")
)


def differing_pools(
    own: Mapping[str, PoolFigures], counted: Mapping[str, PoolFigures], due: Collection[str]
) -> Iterator[Difference]:
    """The pools of which leaderboard has another figure than payments.

    An older version at leaderboard is a difference only of pools that are `due`: leaderboard has handled
    everything that was announced before their `own` state was read. A newer one, which payments has lost, is
    one in any case: `own` was read again after `counted` where it was older (`ahead`).
    """
    for pool in sorted(own.keys() | counted.keys()):
        mine, theirs = own.get(pool), counted.get(pool)
        if mine and theirs and mine[:2] == theirs[:2]:
            continue
        in_transit = mine is not None and (theirs is None or theirs.version < mine.version)
        if not in_transit or pool in due:
            used = [0 if one is None else one.used for one in (mine, theirs)]
            figures = {"matching pools": mine and mine.used, "leaderboard": theirs and theirs.used}
            currency = mine.currency if mine else None
            yield Difference(None, f"matched by {pool}", figures, currency, abs(used[0] - used[1]))


def ahead(own: Mapping[str, PoolFigures], counted: Mapping[str, PoolFigures]) -> set[str]:
    """The pools of which leaderboard has a newer state than the one that was read."""
    return {pool for pool, each in counted.items() if pool not in own or own[pool].version < each.version}
