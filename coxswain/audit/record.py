"""The bytes of an audit record and its place in the chain. Pure.

The row hash is exactly that of management-plane.md 9.2, so that existing verifiers work on our log.
"""

from __future__ import annotations

import hashlib
import struct

from coxswain.audit.merkle import hash_leaf
from coxswain.messages.audit import AuditEntry

__all__ = ["canonical_bytes", "leaf_hash", "row_hash"]

_LEAF_VERSION = 1


def canonical_bytes(entry: AuditEntry) -> bytes:
    """The record as it is hashed: texts as 8-byte big-endian length and UTF-8, the time as 8-byte signed nanoseconds."""
    texts = (
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
    at = struct.pack(">q", entry.at * 1000)
    return _text(entry.id) + at + b"".join(_text(text) for text in texts)


def row_hash(prev_hash: str, entry: AuditEntry) -> str:
    """Lower hex SHA-256 over the previous row's hash (as text; empty for the first) and the record."""
    return hashlib.sha256(prev_hash.encode("ascii") + canonical_bytes(entry)).hexdigest()


def leaf_hash(seq: int, digest: str) -> bytes:
    """The record's leaf in the Merkle tree: over a version byte, the sequence number (8 bytes, big-endian) and the row hash.

    The row hash stands for the record, so that the leaf can still be checked when retention has taken the record's text.
    """
    return hash_leaf(struct.pack(">BQ", _LEAF_VERSION, seq) + bytes.fromhex(digest))


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack(">Q", len(raw)) + raw
