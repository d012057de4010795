"""Merkle trees (RFC 9162, section 2.1): hashes, the subtrees that a proof needs, and verification.

A node `(level, number)` is the root of the complete subtree of the leaves from `number * 2**level` until
before `(number + 1) * 2**level`. A proof is computed in two steps, because nodes come from a database: the
ranges of leaves it consists of, then for each range the nodes that `fold` combines.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves."""


class Node(NamedTuple):
    """A complete subtree."""

    level: int
    number: int


class Leaves(NamedTuple):
    """The leaves from `begin` until before `end`, as RFC 9162 splits a tree."""

    begin: int
    end: int


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node with these children."""
    return sha256(b"\1" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash of a range, from those of its `nodes_of`, left to right."""
    *before, folded = hashes
    for left in reversed(before):
        folded = node_hash(left, folded)
    return folded


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a complete tree of these leaf or node hashes, whose number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def nodes_of(leaves: Leaves) -> list[Node]:
    """The complete subtrees that a range consists of, the largest first."""
    begin, end = leaves
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append(Node(level, begin >> level))
        begin += 1 << level
    return found


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[Leaves]:
    """The ranges whose hashes prove that leaf `index` is in a tree of `size`, from the leaf up.

    Raises ValueError where it is not.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    begin, end = 0, size
    found = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            found.append(Leaves(middle, end))
            end = middle
        else:
            found.append(Leaves(begin, middle))
            begin = middle
    return found[::-1]


def consistency_ranges(old: int, size: int) -> list[Leaves]:
    """The ranges whose hashes prove that the tree of `old` leaves is a prefix of the one of `size`.

    Empty for equal sizes, and for an empty old tree, which is a prefix of each.
    """
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {old} cannot be a prefix of one of {size}")
    if old in (0, size):
        return []
    begin, end = 0, size
    found = []
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            found.append(Leaves(middle, end))
            end = middle
        else:
            found.append(Leaves(begin, middle))
            begin = middle
    if begin:
        found.append(Leaves(begin, end))
    return found[::-1]


def includes(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the tree has this leaf hash at `index` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, hashed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            hashed = node_hash(sibling, hashed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and hashed == root


def is_consistent(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the old tree is a prefix of the new one (RFC 9162, section 2.1.4.2)."""
    if old == size:
        return not path and old_root == root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    if not 0 < old < size or not path:
        return False
    rest = list(path) if old & (old - 1) else [old_root, *path]
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = rest[0]
    for sibling in rest[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and before == old_root and after == root
