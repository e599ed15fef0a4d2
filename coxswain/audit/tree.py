"""The Merkle tree as the store has it: leaves with the records, inner nodes in a table of their own.

Nothing here checks anything against the records (``coxswain.audit.verify`` does); it is what makes the tree's root and
proofs cheap: a few reads, however long the log is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coxswain.audit.merkle import STORED_LEVEL, CompactRange, hash_children
from coxswain.audit.proofs import consistency_proof, inclusion_proof, range_root
from coxswain.errors import Refused
from coxswain.messages.audit import AuditHead
from coxswain.store.api import Tx

__all__ = [
    "FAR",
    "StoredTree",
    "fill_nodes",
    "head",
    "leaves",
    "load_tree",
    "purged_upto",
    "root_at",
    "store_nodes",
]

FAR = 2**62
"""Beyond every sequence number and outbox id."""

_BLOCK = 1 << STORED_LEVEL
_PAGE = 4_096


def head(tx: Tx) -> AuditHead:
    """The newest record."""
    for table in ("audit_log", "audit_purged"):
        rows = tx.execute(f"SELECT seq, row_hash FROM {table} ORDER BY seq DESC LIMIT 1")  # noqa: S608
        if rows:
            return AuditHead(*rows[0])
    return AuditHead(0, "")


def purged_upto(tx: Tx) -> int:
    """The last record whose payload retention has taken; 0: none."""
    return tx.execute("SELECT coalesce(max(seq), 0) FROM audit_purged")[0][0] or 0


def leaves(tx: Tx, first: int, last: int) -> list[bytes]:
    """The leaf hashes of records ``first`` to ``last``, both included.

    Raises:
        Refused: one of them is missing.
    """
    rows = tx.execute(
        "SELECT seq, leaf_hash FROM audit_purged WHERE seq BETWEEN ? AND ? "
        "UNION ALL SELECT seq, leaf_hash FROM audit_log WHERE seq BETWEEN ? AND ? ORDER BY 1",
        (first, last, first, last),
    )
    if [row[0] for row in rows] != list(range(first, last + 1)):
        raise Refused(f"the audit log is damaged between records {first} and {last}", remedy="See: cox audit verify")
    return [row[1] for row in rows]


class StoredTree:
    """The complete subtrees of one reading transaction."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._block = (-1, [b""])

    def node_at(self, level: int, index: int) -> bytes:
        """See ``coxswain.audit.proofs.NodeAt``. A node that is not stored is made from those below it."""
        if level < STORED_LEVEL:
            return self._in_block(level, index)
        rows = self._tx.execute("SELECT hash FROM audit_node WHERE level = ? AND idx = ?", (level, index))
        if rows:
            found: bytes = rows[0][0]
            return found
        if level == STORED_LEVEL:
            return _fold(leaves(self._tx, index * _BLOCK + 1, (index + 1) * _BLOCK))
        return hash_children(self.node_at(level - 1, 2 * index), self.node_at(level - 1, 2 * index + 1))

    def root_at(self, size: int) -> bytes:
        """The root that the log had when it had ``size`` records."""
        return range_root(self.node_at, 0, size)

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """That record ``seq`` is in the tree of ``size`` records."""
        return inclusion_proof(self.node_at, seq - 1, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """That the tree of ``new`` records begins with that of ``old``."""
        return consistency_proof(self.node_at, old, new)

    def _in_block(self, level: int, index: int) -> bytes:
        number, found = (index << level) // _BLOCK, self._block
        if found[0] != number or len(found[1]) < _BLOCK:
            first = number * _BLOCK + 1
            last = min(first + _BLOCK - 1, head(self._tx).size)
            self._block = found = (number, leaves(self._tx, first, last))
        start = (index << level) % _BLOCK
        below = found[1][start : start + (1 << level)]
        if len(below) != 1 << level:
            raise Refused(f"the audit log ends before record {(index + 1) << level}", remedy="See: cox audit verify")
        return _fold(below)


def root_at(tx: Tx, size: int) -> bytes:
    """The root that the log had when it had ``size`` records."""
    return StoredTree(tx).root_at(size)


def load_tree(tx: Tx) -> CompactRange:
    """What it takes to go on with the log. Raises ``Refused`` if leaves are missing."""
    stored, size = StoredTree(tx), head(tx).size
    subtrees, done = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            subtrees.append(stored.node_at(level, done >> level))
            done += 1 << level
    return CompactRange(size, subtrees)


def store_nodes(tx: Tx, nodes: Iterable[tuple[int, int, bytes]]) -> None:
    """Keeps what ``CompactRange.append`` completed."""
    found = list(nodes)
    if found:
        tx.executemany(
            "INSERT INTO audit_node (level, idx, hash) VALUES (?, ?, ?) "
            "ON CONFLICT (level, idx) DO UPDATE SET hash = excluded.hash",
            found,
        )


def fill_nodes(tx: Tx) -> int:
    """Makes the inner nodes of a log that was begun by a release without them. Returns how many were missing."""
    complete = head(tx).size >> STORED_LEVEL
    stored = tx.execute("SELECT count(*) FROM audit_node WHERE level = ?", (STORED_LEVEL,))[0][0]
    if stored >= complete:
        return 0
    tree = CompactRange()
    for leaf in _all_leaves(tx, complete << STORED_LEVEL):
        store_nodes(tx, tree.append(leaf))
    return int(complete - stored)


def _all_leaves(tx: Tx, size: int) -> Iterator[bytes]:
    for first in range(1, size + 1, _PAGE):
        yield from leaves(tx, first, min(first + _PAGE - 1, size))


def _fold(level: list[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    while len(level) > 1:
        pairs = iter(level)
        level = [hash_children(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return level[0]
