"""Does the log in the store extend what was signed before? Asked at the start, and whenever the log was not what its
writer left.
"""

from __future__ import annotations

from collections.abc import Iterable

from coxswain.audit.checkpoint import Checkpoint, open_checkpoint, peek
from coxswain.audit.note import BadNote, Verifier
from coxswain.audit.tree import StoredTree, head
from coxswain.audit.verify import trusted
from coxswain.errors import CoxswainError
from coxswain.store.api import Tx
from coxswain.words import counted

__all__ = ["agreed_upto", "newest_stored", "not_extended", "save_checkpoint"]


def not_extended(tx: Tx, verifier: Verifier, notes: Iterable[str]) -> list[str]:
    """Sentences about checkpoints among ``notes`` that the log does not extend. It takes a few reads for each."""
    keys, restarts, problems = trusted(tx, verifier)
    found = [problem.why for problem in problems]
    size = head(tx).size
    for note in dict.fromkeys(notes):
        try:
            checkpoint = open_checkpoint(note, keys)
        except BadNote as error:
            found.append(_not_ours(note, verifier, error))
            continue
        kept = [r.kept for _, r in restarts if r.previous.name == checkpoint.origin]
        if kept and checkpoint.size > max(kept):
            continue  # given up, as a signed record says
        if checkpoint.size > size:
            found.append(
                f"the log has {counted(size, 'record')}, and a checkpoint says that it had {checkpoint.size}: "
                "the newest were cut off, or an older copy was put in its place"
            )
            continue
        try:
            root = StoredTree(tx).root_at(checkpoint.size)
        except CoxswainError as error:
            found.append(str(error))
            continue
        if root != checkpoint.root:
            found.append(
                f"the first {checkpoint.size} records are not those of the checkpoint of that size: they were rewritten"
            )
    return found


def agreed_upto(tx: Tx, verifier: Verifier, notes: Iterable[str]) -> int:
    """How many records are what the checkpoints of this key say: all, or those of the last checkpoint before the first
    that does not agree.
    """
    size, good = head(tx).size, 0
    tree = StoredTree(tx)
    for note in {note.partition("\n\n")[0]: note for note in notes}.values():
        try:
            checkpoint = open_checkpoint(note, [verifier])
        except BadNote:
            continue
        if checkpoint.size <= size:
            if tree.root_at(checkpoint.size) != checkpoint.root:
                return good
            good = checkpoint.size
    return size


def _not_ours(note: str, verifier: Verifier, error: BadNote) -> str:
    try:
        origin = peek(note).origin
    except BadNote:
        origin = "somebody"
    if origin == verifier.name:
        return f"a checkpoint that was kept here is not genuine: {error}"
    return (
        f"a checkpoint that was kept here is of {origin}, and the audit key is that of {verifier.name}: the key was replaced"
    )


def newest_stored(tx: Tx) -> str | None:
    """The newest checkpoint in the database."""
    rows = tx.execute("SELECT note FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
    return rows[0][0] if rows else None


def save_checkpoint(tx: Tx, checkpoint: Checkpoint) -> None:
    """Keeps it in the database; one of the same log takes the place of the newest, so that a quiet log does not grow
    by them.
    """
    rows = tx.execute("SELECT number, note FROM audit_checkpoint ORDER BY number DESC LIMIT 1")
    at = (checkpoint.at or 0) * 1_000_000
    if rows and rows[0][1].partition("\n\n")[0] == checkpoint.note.partition("\n\n")[0]:
        tx.execute("UPDATE audit_checkpoint SET at = ?, note = ? WHERE number = ?", (at, checkpoint.note, rows[0][0]))
        return
    number = rows[0][0] + 1 if rows else 1
    values = (number, checkpoint.size, at, checkpoint.note)
    tx.execute("INSERT INTO audit_checkpoint (number, size, at, note) VALUES (?, ?, ?, ?)", values)
