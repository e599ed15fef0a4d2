"""The log as a Merkle tree: hashing of RFC 6962 section 2.1, and a compact range that grows by one leaf at a time. Pure.

A chain alone does not notice a cut tail or an older copy put back; a root that was kept elsewhere does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["EMPTY_ROOT", "STORED_LEVEL", "CompactRange", "hash_children", "hash_leaf", "root_of"]

EMPTY_ROOT = hashlib.sha256(b"").digest()

STORED_LEVEL = 8
"""Roots of complete subtrees of at least ``2**STORED_LEVEL`` leaves are kept in the store."""


def hash_leaf(data: bytes) -> bytes:
    """The hash of one leaf; its prefix keeps it apart from that of an inner node."""
    return hashlib.sha256(b"\x00" + data).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The roots of the complete subtrees that a tree of ``size`` leaves is made of: log2(size) hashes.

    That is all it takes to append, and to know the root. Not thread-safe.
    """

    def __init__(self, size: int = 0, subtrees: Iterable[bytes] = ()) -> None:
        """``subtrees`` are the largest first, one for each 1 bit of ``size``; raises ``ValueError`` otherwise."""
        self._size = size
        self._subtrees = list(subtrees)
        if size < 0 or len(self._subtrees) != size.bit_count():
            raise ValueError(f"{size} leaves make {max(size, 0).bit_count()} subtrees, not {len(self._subtrees)}")

    @property
    def size(self) -> int:
        """Leaves."""
        return self._size

    @property
    def subtrees(self) -> tuple[bytes, ...]:
        """The largest first; with ``size``, what it takes to go on later."""
        return tuple(self._subtrees)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Adds a leaf, given as its hash. Returns the nodes that it completes and that are to be stored: level, index,
        hash.
        """
        carried, size, level = leaf, self._size, 0
        completed = []
        while size & 1:
            carried = hash_children(self._subtrees.pop(), carried)
            size >>= 1
            level += 1
            if level >= STORED_LEVEL:
                completed.append((level, size, carried))
        self._subtrees.append(carried)
        self._size += 1
        return completed

    def copy(self) -> CompactRange:
        """One that grows on its own."""
        return CompactRange(self._size, self._subtrees)

    def root(self) -> bytes:
        """The root of the tree; of an empty one, the hash of nothing."""
        if not self._subtrees:
            return EMPTY_ROOT
        *rest, found = self._subtrees
        for subtree in reversed(rest):
            found = hash_children(subtree, found)
        return found


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over hashes of leaves, in order."""
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()
