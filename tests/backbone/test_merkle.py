"""Merkle trees, compared with the recursive definitions of RFC 9162, section 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.transparency import merkle
from backbone.transparency.merkle import Leaves, Node

SIZES = st.integers(1, 300)


def tree_hash(entries: Sequence[bytes]) -> bytes:
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return sha256(b"\x01" + tree_hash(entries[:k]) + tree_hash(entries[k:])).digest()


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), tree_hash(entries[k:])]
    return [*path(m - k, entries[k:]), tree_hash(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], whole: bool) -> list[bytes]:
    if m == len(entries):
        return [] if whole else [tree_hash(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole), tree_hash(entries[k:])]
    return [*subproof(m - k, entries[k:], False), tree_hash(entries[:k])]


def entries_of(size: int) -> list[bytes]:
    return [f"row {n}".encode() for n in range(size)]


def hash_of(leaves: Leaves, entries: Sequence[bytes]) -> bytes:
    def node(one: Node) -> bytes:
        first = one.number << one.level
        return merkle.complete_root(
            [merkle.leaf_hash(entry) for entry in entries[first : first + (1 << one.level)]]
        )

    return merkle.fold([node(one) for one in merkle.nodes_of(leaves)])


@given(SIZES)
def test_root_is_the_hash_of_the_recursive_definition(size: int) -> None:
    entries = entries_of(size)
    assert hash_of(Leaves(0, size), entries) == tree_hash(entries)


@given(SIZES, st.data())
def test_inclusion_proof_is_the_one_of_the_recursive_definition(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    entries = entries_of(size)
    proof = [hash_of(leaves, entries) for leaves in merkle.inclusion_ranges(index, size)]
    assert proof == path(index, entries)
    leaf, root = merkle.leaf_hash(entries[index]), tree_hash(entries)
    assert merkle.includes(leaf, index, size, proof, root)
    other = data.draw(st.integers(0, size - 1))
    assert merkle.includes(leaf, other, size, proof, root) == (other == index)
    assert not merkle.includes(merkle.leaf_hash(b"another"), index, size, proof, root)
    assert not merkle.includes(leaf, index, size, [*proof, root], root)


@given(SIZES, st.data())
def test_consistency_proof_is_the_one_of_the_recursive_definition(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, size))
    entries = entries_of(size)
    proof = [hash_of(leaves, entries) for leaves in merkle.consistency_ranges(old, size)]
    assert proof == ([] if old == 0 else subproof(old, entries, True))
    old_root, root = tree_hash(entries[:old]), tree_hash(entries)
    assert merkle.is_consistent(old, old_root, size, root, proof)
    if old:
        changed = [b"changed", *entries[1:]]
        assert not merkle.is_consistent(old, tree_hash(changed[:old]), size, root, proof)
    if old < size and old:
        assert not merkle.is_consistent(old, old_root, size, tree_hash([*entries[:-1], b"changed"]), proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3)])
def test_no_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_ranges(index, size)
    assert not merkle.includes(b"", index, size, [], b"")


def test_a_shorter_tree_is_not_consistent_with_a_longer_one() -> None:
    with pytest.raises(ValueError, match="prefix"):
        merkle.consistency_ranges(4, 3)
    assert not merkle.is_consistent(4, b"", 3, b"", [b""])
