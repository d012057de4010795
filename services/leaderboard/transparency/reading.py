"""Reads a log's tree: roots, proofs, tiles and entries, from its tiles and at most 255 rows after them.

The work of a proof grows with the logarithm of the log.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select

from backbone.database.transaction import Transaction
from backbone.transparency.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Leaves,
    Node,
    complete_root,
    consistency_ranges,
    fold,
    inclusion_ranges,
    leaf_hash,
    nodes_of,
)
from services.leaderboard.tables import drive_log
from services.leaderboard.transparency.entries import Row, bundle, entry_of, rows_after
from services.leaderboard.transparency.tables import log_trees, logged_gifts
from services.leaderboard.transparency.tiling import (
    READ_TILE,
    TILE,
    Log,
    TilesDamaged,
    split,
    tile_key,
)

MAX_REMEMBERED: Final = 16_384
_BITS: Final = 8
"""Levels of the tree in a tile."""


class Gift(NamedTuple):
    """A row that counts a gift, with the index and the hash of its leaf."""

    row: Row
    position: int
    leaf: bytes


_OF_LOG: Final = (log_trees.c.drive_id == bindparam("of_drive"), log_trees.c.epoch == bindparam("of_epoch"))
_TILED: Final = select(log_trees.c.tiled).where(*_OF_LOG)
_GIFT: Final = select(logged_gifts.c.sequence).where(
    logged_gifts.c.pledge_id == bindparam("of_pledge"),
    logged_gifts.c.drive_id == bindparam("of_drive"),
    logged_gifts.c.epoch == bindparam("of_epoch"),
)


_LOG_ROWS: Final = (
    drive_log.c.drive_id == bindparam("of_drive"),
    drive_log.c.epoch == bindparam("of_epoch"),
    drive_log.c.sequence > bindparam("after"),
)
_UNTILED_GIFT: Final = (
    select(drive_log.c.sequence)
    .where(
        *_LOG_ROWS,
        drive_log.c.sequence <= bindparam("last"),
        drive_log.c.pledge_id == bindparam("of_pledge"),
        drive_log.c.type == "donation.counted",
    )
    .order_by(drive_log.c.sequence)
    .limit(1)
)
_CHAIN: Final = select(drive_log.c.hash).where(*_LOG_ROWS).order_by(drive_log.c.sequence).limit(TILE - 1)

_LEAVES: Final[OrderedDict[str, bytes]] = OrderedDict()
"""Leaf hashes of recent rows by the rows' own hashes, which cover the log and everything before them."""


async def _hash_tail(session: Transaction, of: Log, tiled: int) -> list[bytes]:
    """The leaf hashes of the rows that are in no tile; most of them were computed for an earlier proof."""
    values = {"of_drive": of[0], "of_epoch": of[1], "after": tiled}
    chain = [row.hash for row in await session.execute(_CHAIN, values)]
    known = next((n for n, one in enumerate(chain) if one not in _LEAVES), len(chain))
    found = [_LEAVES[one] for one in chain[:known]]
    for row in (
        await rows_after(session, *of, tiled + known, len(chain) - known) if known < len(chain) else ()
    ):
        leaf = _LEAVES[row["hash"]] = leaf_hash(entry_of(row))
        found.append(leaf)
    while len(_LEAVES) > MAX_REMEMBERED:
        _LEAVES.popitem(last=False)
    return found


class LogTreeReader:
    """A log's tree as one transaction sees it.

    `size` may be less than the length of the log: the rows that are in no tile yet are hashed when they are
    needed, and no more than 255 of them.
    """

    def __init__(self, session: Transaction, of: Log, tiled: int, tail: list[bytes]) -> None:
        self._session = session
        self._of = of
        self._tiled = tiled
        self._tiles: dict[tuple[int, int], list[bytes]] = {(0, tiled // TILE): tail}
        self.size = tiled + len(tail)

    @classmethod
    async def open(cls, session: Transaction, of: Log) -> LogTreeReader:
        """The tree as the transaction sees it."""
        values = {"of_drive": of[0], "of_epoch": of[1]}
        tiled = (await session.execute(_TILED, values)).scalar_one_or_none() or 0
        return cls(session, of, tiled, await _hash_tail(session, of, tiled))

    async def root(self, size: int) -> bytes:
        """The root of the first `size` rows, which are at most those of the tree."""
        return await self._hash(Leaves(0, size)) if size else EMPTY_ROOT

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The inclusion path of a leaf in the tree of `size`."""
        return [await self._hash(leaves) for leaves in inclusion_ranges(index, size)]

    async def consistency(self, old: int, size: int) -> list[bytes]:
        """The proof that the tree of `old` is a prefix of the tree of `size`."""
        return [await self._hash(leaves) for leaves in consistency_ranges(old, size)]

    async def _hash(self, leaves: Leaves) -> bytes:
        return fold([await self._node(node) for node in nodes_of(leaves)])

    async def _node(self, node: Node) -> bytes:
        level, within = divmod(node.level, _BITS)
        number, first = divmod(node.number << within, TILE)
        hashes = (await self._tile(level, number))[first : first + (1 << within)]
        if len(hashes) != 1 << within:
            raise TilesDamaged(f"tile {level}/{number} of {self._of[0]}, epoch {self._of[1]}, is too short")
        return complete_root(hashes)

    async def _tile(self, level: int, number: int) -> list[bytes]:
        kept = self._tiles.get((level, number))
        if kept is None:
            found = await self._session.execute(READ_TILE, tile_key(self._of, level, number))
            kept = self._tiles[level, number] = split(found.scalar_one_or_none() or b"")
        return kept

    def width(self, level: int, number: int) -> int:
        """How many hashes a tile of this tree has."""
        # No log reaches level 8; the bound keeps a request from computing with huge numbers.
        return 0 if level >= _BITS else max(0, min(TILE, (self.size >> _BITS * level) - number * TILE))

    async def tile(self, level: int, number: int, width: int) -> bytes | None:
        """The first `width` hashes of a tile; None where it has fewer."""
        if not 0 < width <= self.width(level, number):
            return None
        tile = b"".join((await self._tile(level, number))[:width])
        if len(tile) != width * HASH_BYTES:
            raise TilesDamaged(f"tile {level}/{number} of {self._of[0]}, epoch {self._of[1]}, is too short")
        return tile

    async def entries(self, number: int, width: int) -> bytes | None:
        """The first `width` entries of a bundle; None where it has fewer."""
        if not 0 < width <= self.width(0, number):
            return None
        return bundle(await rows_after(self._session, *self._of, number * TILE, width))

    async def gift(self, pledge_id: str) -> Gift | None:
        """The row that counts a pledge's first payment, if the log has one."""
        values = {"of_drive": self._of[0], "of_epoch": self._of[1], "of_pledge": pledge_id}
        sequence = (await self._session.execute(_GIFT, values)).scalar_one_or_none()
        if sequence is None:
            untiled = {"after": self._tiled, "last": self.size}
            sequence = (await self._session.execute(_UNTILED_GIFT, values | untiled)).scalar_one_or_none()
        if sequence is None:
            return None
        (row,) = await rows_after(self._session, *self._of, sequence - 1, 1)
        return Gift(row, sequence - 1, leaf_hash(entry_of(row)))
