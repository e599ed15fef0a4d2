"""The outbox and the log: what was changed is recorded in the same transaction, and moved into the chain exactly once."""

from __future__ import annotations

import getpass
import json
from dataclasses import dataclass
from typing import Any

from coxswain.audit.merkle import CompactRange
from coxswain.audit.record import leaf_hash, row_hash
from coxswain.audit.tree import FAR, head, load_tree, store_nodes
from coxswain.clock import to_micros
from coxswain.ids import new_id
from coxswain.messages.audit import AuditEntry, Caller
from coxswain.store.api import Tx

__all__ = ["Appended", "append_outbox", "enqueue", "local_caller", "record", "seq_of", "waiting"]

_ENTRY = "id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error"
_BATCH = 1_000


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


@dataclass(frozen=True, slots=True)
class Appended:
    """A record that has just got its place in the log."""

    seq: int
    outbox_id: int
    row_hash: str
    entry: AuditEntry


def append_outbox(
    tx: Tx, tree: CompactRange | None = None, *, upto: int | None = None, limit: int = _BATCH, damaged: bool = False
) -> list[Appended]:
    """Moves records from the outbox to the end of the log, in order. Returns them.

    Both ends in one transaction: a crash leaves a record either here or there, never in both or in neither. Should two
    writers ever meet, one of them fails on the sequence number, and nothing of it is kept.

    Args:
        tx: a writing transaction, ``ACKNOWLEDGED``.
        tree: that of the log as it is; grows with it. When the commit fails it is worth nothing. None: read from the store.
        upto: the last outbox id to move; None: all.
        limit: at most so many.
        damaged: the log's tree cannot be read; no inner nodes are kept.
    """
    moving = tx.execute(
        f"SELECT outbox_id, {_ENTRY} FROM audit_outbox WHERE outbox_id <= ? ORDER BY outbox_id LIMIT ?",  # noqa: S608
        (upto if upto is not None else FAR, limit),
    )
    if not moving:
        return []
    newest = head(tx)
    seq, previous = newest.size, newest.row_hash
    grown = CompactRange() if damaged else load_tree(tx) if tree is None else tree
    rows, nodes, appended = [], [], []
    for outbox_id, *values in moving:
        seq += 1
        entry = AuditEntry(*values)
        digest = row_hash(previous, entry)
        leaf = leaf_hash(seq, digest)
        rows.append((seq, *values, previous, digest, leaf, outbox_id))
        nodes += grown.append(leaf)
        appended.append(Appended(seq, outbox_id, digest, entry))
        previous = digest
    tx.executemany(
        f"INSERT INTO audit_log (seq, {_ENTRY}, prev_hash, row_hash, leaf_hash, outbox_id) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    if not damaged:
        store_nodes(tx, nodes)
    tx.executemany("DELETE FROM audit_outbox WHERE outbox_id = ?", ((row[0],) for row in moving))
    return appended


def waiting(tx: Tx) -> bool:
    """Whether anything is in the outbox."""
    return bool(tx.execute("SELECT 1 FROM audit_outbox LIMIT 1"))


def seq_of(tx: Tx, outbox_id: int) -> int | None:
    """The number in the log of the record that was enqueued as ``outbox_id``; None: it is not in the log."""
    rows = tx.execute("SELECT seq FROM audit_log WHERE outbox_id = ?", (outbox_id,))
    return rows[0][0] if rows else None


def local_caller() -> Caller:
    """Whoever runs a command that works without the daemon (management-plane.md 2: the OS user, else ``cli``)."""
    try:
        return Caller(getpass.getuser(), "cli")
    except (KeyError, OSError):
        return Caller("cli", "cli")


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
