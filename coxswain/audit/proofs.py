"""Proofs over the Merkle tree: that a record is in it, and that a later tree has an earlier one as its beginning. Pure.

Making them: RFC 6962 sections 2.1.1 and 2.1.2. Checking them: RFC 9162 sections 2.1.3.2 and 2.1.4.2. Leaves are numbered
from 0 here, records from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coxswain.audit.merkle import EMPTY_ROOT, hash_children

__all__ = ["NodeAt", "consistency_proof", "inclusion_proof", "is_consistent", "range_root", "root_from_inclusion"]

NodeAt = Callable[[int, int], bytes]
"""Gives the root of the complete subtree number ``index`` of ``2**level`` leaves."""


def range_root(node_at: NodeAt, start: int, end: int) -> bytes:
    """The root over leaves ``start`` to ``end`` (exclusive); ``start`` must be a multiple of a power of two ≥ their
    number.
    """
    count = end - start
    if count <= 0:
        return EMPTY_ROOT
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node_at(level, start >> level)
    split = start + _left(count)
    return hash_children(range_root(node_at, start, split), range_root(node_at, split, end))


def inclusion_proof(node_at: NodeAt, index: int, size: int) -> list[bytes]:
    """From the leaf upwards. Needs ``0 <= index < size``."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _left(end - start)
        if index < split:
            path.append(range_root(node_at, split, end))
            end = split
        else:
            path.append(range_root(node_at, start, split))
            start = split
    return path[::-1]


def consistency_proof(node_at: NodeAt, old: int, new: int) -> list[bytes]:
    """Needs ``0 <= old <= new``. Of equal sizes, and from an empty tree, there is nothing to prove."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves was never a tree of {old}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        split = start + _left(end - start)
        if old <= split:
            path.append(range_root(node_at, split, end))
            end = split
        else:
            path.append(range_root(node_at, start, split))
            start, whole = split, False
    if not whole:
        path.append(range_root(node_at, start, end))
    return path[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that the proof leads to; None: it is no proof for this place in a tree of this size."""
    if not 0 <= index < size:
        return None
    position, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            found = hash_children(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = hash_children(found, sibling)
        position, last = position >> 1, last >> 1
    return found if last == 0 else None


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree of size ``new`` begins with that of size ``old``."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    if not path:
        return False
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first, second = hash_children(step, first), hash_children(step, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = hash_children(second, step)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _left(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1
