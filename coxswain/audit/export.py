"""The log and its proofs as text that needs neither database nor daemon to be checked (``coxswain.audit.offline``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from coxswain.audit.checkpoint import Checkpoint
from coxswain.audit.note import Verifier
from coxswain.audit.tree import FAR, StoredTree, leaves
from coxswain.errors import NotFound
from coxswain.messages.audit import AuditEntry
from coxswain.store.api import Tx
from coxswain.words import counted

__all__ = ["ENTRY_FIELDS", "consistency", "footer_lines", "header_line", "inclusion", "record_lines"]

ENTRY_FIELDS = (
    "id", "at", "actor", "actor_kind", "action", "target_type", "target_id", "source_ip", "detail", "result", "error",
)  # fmt: skip
_ENTRY = ", ".join(ENTRY_FIELDS)


def header_line(verifier: Verifier, findings: Sequence[str] = ()) -> str:
    """The first line of an export. ``findings``: what the controller itself knows to be wrong with it."""
    found = {"type": "coxswain-audit-export", "version": 1, "origin": verifier.name, "public_key": str(verifier)}
    return _line(found | ({"findings": list(findings)} if findings else {}))


def record_lines(tx: Tx, first: int, last: int) -> list[str]:
    """A line for each record from ``first`` to ``last``. Texts are as they are hashed: ``at`` in microseconds,
    ``detail`` unread.

    A record whose payload retention took has its hashes alone.
    """
    found = [
        _line({"type": "purged", "seq": row[0], "row_hash": row[1]})
        for row in tx.execute("SELECT seq, row_hash FROM audit_purged WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))
    ]
    rows = tx.execute(
        f"SELECT seq, {_ENTRY}, prev_hash, row_hash FROM audit_log WHERE seq BETWEEN ? AND ? ORDER BY seq",  # noqa: S608
        (first, last),
    )
    return found + [_record_line(row) for row in rows]


def footer_lines(tx: Tx, fresh: Checkpoint | None) -> list[str]:
    """The checkpoints: one for each size that was signed, and the one over the whole export last. None: it cannot be
    signed.
    """
    rows = tx.execute(
        "SELECT note FROM audit_checkpoint WHERE number IN (SELECT max(number) FROM audit_checkpoint GROUP BY size) "
        "AND size < ? ORDER BY number",
        (fresh.size if fresh else FAR,),
    )
    notes = [row[0] for row in rows] + ([fresh.note] if fresh else [])
    return [_line({"type": "checkpoint", "note": note}) for note in notes]


def inclusion(tx: Tx, seq: int, head: Checkpoint, verifier: Verifier) -> dict[str, Any]:
    """That record ``seq`` is in the log that ``head`` signs. Raises ``NotFound``."""
    if not 1 <= seq <= head.size:
        raise NotFound(f"the log has no record {seq}; it has 1 to {head.size}")
    record = [json.loads(line) for line in record_lines(tx, seq, seq)]
    return {
        "type": "coxswain-audit-inclusion",
        "version": 1,
        "public_key": str(verifier),
        "seq": seq,
        "leaf": _b64(leaves(tx, seq, seq)[0]),
        "record": record[0],
        "path": [_b64(node) for node in StoredTree(tx).inclusion(seq, head.size)],
        "checkpoint": head.note,
    }


def consistency(tx: Tx, old: int, head: Checkpoint, verifier: Verifier) -> dict[str, Any]:
    """That the log that ``head`` signs begins with its first ``old`` records as they were. Raises ``NotFound``."""
    if not 0 <= old <= head.size:
        raise NotFound(f"the log never had {counted(old, 'record')}; it has {head.size}")
    tree = StoredTree(tx)
    kept = tx.execute("SELECT note FROM audit_checkpoint WHERE size = ? ORDER BY number DESC LIMIT 1", (old,))
    return {
        "type": "coxswain-audit-consistency",
        "version": 1,
        "public_key": str(verifier),
        "old": old,
        "old_root": _b64(tree.root_at(old)),
        "old_checkpoint": kept[0][0] if kept else None,
        "path": [_b64(node) for node in tree.consistency(old, head.size)],
        "checkpoint": head.note,
    }


def _record_line(row: tuple[Any, ...]) -> str:
    entry = AuditEntry(*row[1:-2])
    fields = {name: getattr(entry, name) for name in ENTRY_FIELDS}
    return _line({"type": "record", "seq": row[0], **fields, "prev_hash": row[-2], "row_hash": row[-1]})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
