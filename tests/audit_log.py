"""A log with its key and its checkpoint file, and somebody who can write its database."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coxswain import audit
from coxswain.audit.anchor import newest_stored, not_extended, save_checkpoint
from coxswain.audit.checkpoint import Checkpoint, make_checkpoint
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import ensure_audit_key
from coxswain.audit.merkle import CompactRange
from coxswain.audit.note import Signer
from coxswain.audit.settings import AuditPaths
from coxswain.audit.tree import store_nodes
from coxswain.audit.verify import Report, verify
from coxswain.messages.audit import AuditEntry, Caller
from coxswain.store import Store, Tx

CALLER = Caller("root", "cli", "192.0.2.1")
NOON = 1_767_225_600.0
TABLES = {
    "audit_log": (
        "seq, id, at, actor, actor_kind, action, target_type, target_id, source_ip, detail, result, error, "
        "prev_hash, row_hash, leaf_hash, outbox_id"
    ),
    "audit_purged": "seq, row_hash, leaf_hash",
    "audit_node": "level, idx, hash",
    "audit_checkpoint": "number, size, at, note",
}


class SignedLog:
    """What the audit writer does, without the actor."""

    def __init__(self, store: Store, state_dir: Path) -> None:
        self.store = store
        self.paths = AuditPaths.in_state(state_dir)
        self.signer, _ = ensure_audit_key(self.paths.key)
        self.file = CheckpointFile(self.paths.checkpoints)

    def write(self, count: int) -> None:
        """Appends so many records."""
        with self.store.write() as tx:
            size = audit.head(tx).size
            for number in range(size + 1, size + count + 1):
                audit.record(tx, CALLER, "node.add", ("node", str(number)), {"n": number}, now=NOON + number)
            while audit.append_outbox(tx):
                pass

    def checkpoint(self, at: float = NOON) -> Checkpoint:
        """Signs the log as it is; keeps that in both places."""
        with self.store.write() as tx:
            made = self.sign(tx, at)
            save_checkpoint(tx, made)
        self.file.append(made.note)
        return made

    def sign(self, tx: Tx, at: float = NOON) -> Checkpoint:
        tree = audit.load_tree(tx)
        return make_checkpoint(self.signer, tree.size, tree.root(), at)

    def report(self, *against: Checkpoint) -> Report:
        with self.store.read() as tx:
            return self.verify(tx, *against)

    def verify(self, tx: Tx, *against: Checkpoint) -> Report:
        return verify(tx, self.signer.verifier, tuple(self.file.notes()), tuple(c.note for c in against))

    def at_start(self) -> list[str]:
        """What the writer says when it starts."""
        with self.store.read() as tx:
            notes = [note for note in (newest_stored(tx), self.file.newest()) if note is not None]
            return not_extended(tx, self.signer.verifier, notes)


# -- what somebody can do who has the database


def take_copy(tx: Tx) -> dict[str, list[Any]]:
    return {table: tx.execute(f"SELECT {columns} FROM {table}") for table, columns in TABLES.items()}


def put_back(tx: Tx, copy: dict[str, list[Any]]) -> None:
    for table, columns in TABLES.items():
        tx.execute(f"DELETE FROM {table}")
        marks = ", ".join("?" * len(columns.split(",")))
        if copy[table]:
            tx.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", copy[table])


def rewrite(tx: Tx, entries: Iterable[AuditEntry]) -> None:
    """Makes the whole log anew from these records, with every hash and every inner node as it should be."""
    for table in ("audit_log", "audit_node", "audit_purged"):
        tx.execute(f"DELETE FROM {table}")
    previous, tree = "", CompactRange()
    for seq, entry in enumerate(entries, 1):
        digest = audit.row_hash(previous, entry)
        leaf = audit.leaf_hash(seq, digest)
        store_nodes(tx, tree.append(leaf))
        row = (
            seq, entry.id, entry.at, entry.actor, entry.actor_kind, entry.action, entry.target_type, entry.target_id,
            entry.source_ip, entry.detail, entry.result, entry.error, previous, digest, leaf, seq,
        )  # fmt: skip
        tx.execute(f"INSERT INTO audit_log ({TABLES['audit_log']}) VALUES ({', '.join('?' * len(row))})", row)
        previous = digest


def entries_of(tx: Tx) -> list[AuditEntry]:
    """Oldest first."""
    return [entry for _, entry in audit.list_entries(tx, limit=10**6)[::-1]]


def sign_anew(tx: Tx, file: CheckpointFile, signer: Signer, sizes: Iterable[int]) -> None:
    """With a stolen key: replaces every checkpoint in the database and in the file."""
    tx.execute("DELETE FROM audit_checkpoint")
    leaves = [row[0] for row in tx.execute("SELECT leaf_hash FROM audit_log ORDER BY seq")]
    file.path.unlink()
    for size in sizes:
        made = make_checkpoint(signer, size, audit.root_of(leaves[:size]), NOON)
        save_checkpoint(tx, made)
        file.append(made.note)
