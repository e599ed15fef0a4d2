"""The outbox and the log: what was changed is recorded in the same transaction, and moved into the chain exactly once."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from coxswain.audit.merkle import CompactRange
from coxswain.audit.record import leaf_hash, row_hash
from coxswain.clock import to_micros
from coxswain.ids import new_id
from coxswain.messages.audit import AuditEntry, AuditHead, Caller
from coxswain.store.api import Row, Tx

__all__ = [
    "BrokenAt",
    "append_outbox",
    "enqueue",
    "head",
    "list_entries",
    "record",
    "seq_of",
    "tree",
    "verify",
    "waiting",
]

_ENTRY = "id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error"
_BATCH = 1_000
_FAR = 2**62
"""Beyond every sequence number and outbox id."""


def enqueue(tx: Tx, entry: AuditEntry) -> int:
    """Writes a record to the outbox, in the transaction that makes the change. Returns its outbox id.

    Ids grow in commit order, because the writers of a process take turns. They have gaps where a transaction was rolled
    back; the log, which numbers records itself, has none.
    """
    rows = tx.execute(
        f"INSERT INTO audit_outbox ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING outbox_id",  # noqa: S608
        _values(entry),
    )
    outbox_id: int = rows[0][0]
    return outbox_id


def record(
    tx: Tx,
    caller: Caller,
    action: str,
    target: tuple[str, str],
    detail: dict[str, Any],
    *,
    now: float,
    error: str = "",
) -> int:
    """Makes and enqueues the record of a change.

    Args:
        tx: the transaction that makes the change.
        caller: who asked for it.
        action: e.g. ``node.add`` (management-plane.md 9.7).
        target: type and id of what is changed.
        detail: plain JSON values, no secrets.
        now: epoch seconds.
        error: what went wrong, if it did.

    Returns:
        The outbox id.
    """
    return enqueue(
        tx,
        AuditEntry(
            id=new_id("aud"),
            at=to_micros(now),
            actor=caller.actor,
            actor_kind=caller.kind,
            action=action,
            target_type=target[0],
            target_id=target[1],
            source_ip=caller.source_ip,
            detail=json.dumps(detail, sort_keys=True, separators=(",", ":")),
            result="error" if error else "ok",
            error=error[:500],
        ),
    )


def append_outbox(tx: Tx, *, upto: int | None = None, limit: int = _BATCH) -> int:
    """Moves records from the outbox to the end of the log, in order. Returns how many.

    Both ends in one transaction: a crash leaves a record either here or there, never in both or in neither. Should two
    writers ever meet, one of them fails on the sequence number, and nothing of it is kept.

    Args:
        tx: a writing transaction, ``ACKNOWLEDGED``.
        upto: the last outbox id to move; None: all.
        limit: at most so many.
    """
    moving = tx.execute(
        f"SELECT outbox_id, {_ENTRY} FROM audit_outbox WHERE outbox_id <= ? ORDER BY outbox_id LIMIT ?",  # noqa: S608
        (upto if upto is not None else _FAR, limit),
    )
    if not moving:
        return 0
    newest = head(tx)
    seq, previous = newest.size, newest.row_hash
    appended = []
    for outbox_id, *values in moving:
        seq += 1
        digest = row_hash(previous, AuditEntry(*values))
        appended.append((seq, *values, previous, digest, leaf_hash(seq, digest), outbox_id))
        previous = digest
    tx.executemany(
        f"INSERT INTO audit_log (seq, {_ENTRY}, prev_hash, row_hash, leaf_hash, outbox_id) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        appended,
    )
    tx.executemany("DELETE FROM audit_outbox WHERE outbox_id = ?", ((row[0],) for row in moving))
    return len(moving)


def waiting(tx: Tx) -> bool:
    """Whether anything is in the outbox."""
    return bool(tx.execute("SELECT 1 FROM audit_outbox LIMIT 1"))


def seq_of(tx: Tx, outbox_id: int) -> int | None:
    """The number in the log of the record that was enqueued as ``outbox_id``; None: it is not in the log."""
    rows = tx.execute("SELECT seq FROM audit_log WHERE outbox_id = ?", (outbox_id,))
    return rows[0][0] if rows else None


def head(tx: Tx) -> AuditHead:
    """The newest record."""
    rows = tx.execute("SELECT seq, row_hash FROM audit_log ORDER BY seq DESC LIMIT 1")
    return AuditHead(*rows[0]) if rows else AuditHead(0, "")


def list_entries(tx: Tx, *, limit: int, before: int | None = None) -> list[tuple[int, AuditEntry]]:
    """Newest first, those older than sequence number ``before``."""
    rows = tx.execute(
        f"SELECT seq, {_ENTRY} FROM audit_log WHERE seq < ? ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (before if before is not None else _FAR, limit),
    )
    return [(row[0], AuditEntry(*row[1:])) for row in rows]


def tree(tx: Tx, known: CompactRange | None = None) -> CompactRange:
    """The Merkle tree over the whole log. ``known`` is an earlier one to go on from; it grows in place."""
    grown = CompactRange() if known is None else known
    while True:
        rows = tx.execute("SELECT leaf_hash FROM audit_log WHERE seq > ? ORDER BY seq LIMIT ?", (grown.size, _BATCH))
        for row in rows:
            grown.append(row[0])
        if len(rows) < _BATCH:
            return grown


@dataclass(frozen=True, slots=True)
class BrokenAt:
    """The first record that is not what it was."""

    seq: int
    why: str


def verify(tx: Tx) -> tuple[int, BrokenAt | None]:
    """Walks the whole log. Returns how many records are good, and where it breaks, if it does.

    A cut tail, or an older copy put back, is whole in itself: only a root that was kept elsewhere tells (``tree``). The
    column ``outbox_id`` is bookkeeping and no part of the record.
    """
    expected, previous = 1, ""
    while True:
        rows = tx.execute(
            f"SELECT seq, {_ENTRY}, prev_hash, row_hash, leaf_hash FROM audit_log "  # noqa: S608
            "WHERE seq >= ? ORDER BY seq LIMIT ?",
            (expected if expected > 1 else -_FAR, _BATCH),
        )
        if not rows:
            return expected - 1, None
        for row in rows:
            broken = _check(row, expected, previous)
            if broken is not None:
                return expected - 1, broken
            expected, previous = expected + 1, row[-2]


def _check(row: Row, expected: int, previous: str) -> BrokenAt | None:
    seq, *values, prev_hash, stored, leaf = row
    if seq != expected:
        return BrokenAt(expected, f"record {expected} is missing" if seq > expected else f"there is a record {seq}")
    if prev_hash != previous:
        return BrokenAt(seq, f"record {seq} does not follow the record before it")
    try:
        intact = row_hash(prev_hash, AuditEntry(*values)) == stored and leaf_hash(seq, stored) == leaf
    except (TypeError, ValueError, AttributeError, struct.error):
        intact = False  # a value of another kind, which SQLite would keep in any column
    return None if intact else BrokenAt(seq, f"record {seq} was changed")


def _values(entry: AuditEntry) -> tuple[str | int, ...]:
    return (
        entry.id,
        entry.at,
        entry.actor,
        entry.actor_kind,
        entry.action,
        entry.target_type,
        entry.target_id,
        entry.source_ip,
        entry.detail,
        entry.result,
        entry.error,
    )
