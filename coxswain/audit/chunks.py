"""The records of a part of the log, each against its own hashes and against the one before it.

All the work there is in verifying a long log. Parts can be checked apart from each other, in several processes;
``coxswain.audit.verify`` puts them together again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from coxswain.audit.merkle import STORED_LEVEL
from coxswain.audit.record import leaf_hash, row_hash
from coxswain.audit.tree import purged_upto
from coxswain.messages.audit import AuditEntry
from coxswain.store.api import Row, Tx

__all__ = ["BLOCK", "CHUNK", "BrokenAt", "Chunk", "check_chunk", "strays"]

BLOCK = 1 << STORED_LEVEL
CHUNK = 1 << 13
"""Records that are checked in one go, in some 50 ms: small enough that several processes end together. A multiple of a
block.
"""

_PAGE = 4_096
_ENTRY = "id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error"


@dataclass(frozen=True, slots=True)
class BrokenAt:
    """The first record that is not what it was."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What checking a part of the log gave; plain values, so that it can come from another process.

    Attributes:
        first: its first record.
        last: its last.
        previous: the row hash that its first record follows; None: that record has no payload, and does not say.
        row_hash: of its last record.
        blocks: roots of its complete blocks of 256 records.
        tails: for each size that was asked for, the leaves of its last block up to there.
        broken: the first record that is not what it was.
    """

    first: int
    last: int
    previous: str | None
    row_hash: str
    blocks: tuple[bytes, ...]
    tails: dict[int, tuple[bytes, ...]]
    broken: BrokenAt | None


def check_chunk(tx: Tx, first: int, last: int, marks: Iterable[int] = ()) -> Chunk:
    """Checks records ``first`` to ``last``, each against its own hashes and against the one before it.

    Args:
        tx: a reading transaction.
        first: one more than a multiple of 256.
        last: at most the log's size.
        marks: sizes in this chunk whose roots will be needed.
    """
    previous: str | None = None
    before: str | None = None
    expected, broken = first, None
    leaves: list[bytes] = []
    blocks: list[bytes] = []
    tails: dict[int, tuple[bytes, ...]] = {}
    wanted = sorted({m for m in marks if first <= m <= last and m % BLOCK} | ({last} if last % BLOCK else set()))
    while expected <= last and broken is None:
        end = min(expected + _PAGE - 1, last)
        purged = tx.execute(
            "SELECT seq, row_hash, leaf_hash FROM audit_purged WHERE seq BETWEEN ? AND ? ORDER BY seq", (expected, end)
        )
        for seq, digest, leaf in purged:
            broken = _check_purged(seq, digest, leaf, expected)
            if broken is not None:
                break
            before = digest
            leaves.append(leaf)
            expected += 1
        if broken is None and expected <= end:
            rows = tx.execute(
                f"SELECT seq, {_ENTRY}, prev_hash, row_hash, leaf_hash FROM audit_log "  # noqa: S608
                "WHERE seq BETWEEN ? AND ? ORDER BY seq",
                (expected, end),
            )
            if rows and expected == first and before is None:
                previous = before = rows[0][-3] if isinstance(rows[0][-3], str) else ""
            good, broken = _check_rows(rows, expected, before or "", leaves)
            if good:
                before = rows[good - 1][-2]
            expected += good
            if broken is None and expected <= end:
                broken = BrokenAt(expected, f"record {expected} is missing")
        while wanted and wanted[0] < expected:
            mark = wanted.pop(0)
            start = (mark - mark % BLOCK) - (first - 1) - len(blocks) * BLOCK
            tails[mark] = tuple(leaves[start : start + mark % BLOCK])
        whole = len(leaves) // BLOCK * BLOCK
        blocks += [_fold(leaves[i : i + BLOCK]) for i in range(0, whole, BLOCK)]
        del leaves[:whole]
    return Chunk(first, expected - 1, previous, before or "", tuple(blocks), tails, broken)


def _check_purged(seq: int, digest: Any, leaf: Any, expected: int) -> BrokenAt | None:
    if seq != expected:
        return BrokenAt(expected, f"record {expected} is missing")
    try:
        intact = leaf_hash(seq, digest) == leaf
    except (TypeError, ValueError, AttributeError):
        intact = False
    return None if intact else BrokenAt(seq, f"the hashes of record {seq}, whose payload is gone, were changed")


class _Framed(dict[str, str]):
    """A text to its length and bytes, as characters of one byte each: a frame of the canonical form
    (management-plane.md 9.2).

    PERF: most fields of most records are the same few texts.
    """

    def __missing__(self, text: str) -> str:
        framed = _frame(text)
        if len(self) > 50_000:
            self.clear()
        self[text] = framed
        return framed


_SHORT = 2_048
_LENGTHS = tuple(n.to_bytes(8, "big").decode("latin-1") for n in range(_SHORT))


def _frame(text: str) -> str:
    raw = text.encode()
    return len(raw).to_bytes(8, "big").decode("latin-1") + raw.decode("latin-1")


_framed = _Framed()

_LEAF = struct.Struct(">HQ32s")
"""What is hashed for a leaf: the prefix and the version, the sequence number, the row hash (``record.leaf_hash``)."""


def _check_rows(rows: Sequence[Row], expected: int, previous: str, leaves: list[bytes]) -> tuple[int, BrokenAt | None]:
    """Returns how many are good, and what is wrong with the next. Good leaves are appended to ``leaves``.

    PERF: this is all the work there is in verifying a long log. What does not look right here is looked at again by
    ``_why``, which is the definition.
    """
    framed, lengths, in_leaf, add = _framed, _LENGTHS, _LEAF.pack, leaves.append
    good = 0
    try:
        for seq, id_, at, actor, kind, action, t_type, t_id, ip, detail, result, error, prev, stored, leaf in rows:
            own = f"{id_}{t_id}{detail}"
            if own.isascii() and len(own) < _SHORT:
                first, target, told = lengths[len(id_)] + id_, lengths[len(t_id)] + t_id, lengths[len(detail)] + detail
            else:
                first, target, told = _frame(id_), _frame(t_id), _frame(detail)
            digest = sha256(
                (
                    f"{prev}{first}{(at * 1000).to_bytes(8, 'big', signed=True).decode('latin-1')}{framed[actor]}"
                    f"{framed[kind]}{framed[action]}{framed[t_type]}{target}{framed[ip]}{told}{framed[result]}{framed[error]}"
                ).encode("latin-1")
            ).digest()
            if (
                seq != expected
                or prev != previous
                or digest.hex() != stored
                or sha256(in_leaf(1, seq, digest)).digest() != leaf
            ):
                break
            add(leaf)
            previous = stored
            expected += 1
            good += 1
    except (TypeError, ValueError, AttributeError, OverflowError, struct.error):
        pass  # a value of another kind, which SQLite would keep in any column
    return good, _why(rows[good], expected, previous) if good < len(rows) else None


def _why(row: Row, expected: int, previous: str) -> BrokenAt:
    seq, *values, prev_hash, stored, leaf = row
    if seq != expected:
        return BrokenAt(expected, f"record {expected} is missing")
    if prev_hash != previous:
        return BrokenAt(seq, f"record {seq} does not follow the record before it")
    try:
        intact = row_hash(prev_hash, AuditEntry(*values)) == stored and leaf_hash(seq, stored) == leaf
    except (TypeError, ValueError, AttributeError, struct.error):
        intact = False
    if intact:
        raise AssertionError(f"the two ways to check record {seq} do not agree; this is our bug")
    return BrokenAt(seq, f"record {seq} was changed")


def _fold(level: list[bytes]) -> bytes:
    """PERF: by levels, which costs half of what appending one by one does."""
    while len(level) > 1:
        pairs = iter(level)
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return level[0]


def strays(tx: Tx) -> BrokenAt | None:
    """Records where none can be."""
    for table in ("audit_log", "audit_purged"):
        rows = tx.execute(f"SELECT min(seq) FROM {table}")  # noqa: S608
        if rows[0][0] is not None and rows[0][0] < 1:
            return BrokenAt(1, f"there is a record {rows[0][0]}")
    upto = purged_upto(tx)
    rows = tx.execute("SELECT min(seq) FROM audit_log WHERE seq <= ?", (upto,))
    return None if rows[0][0] is None else BrokenAt(rows[0][0], f"record {rows[0][0]} is there with and without its payload")
