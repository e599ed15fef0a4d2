"""A log that goes on from less than it had: after a restore from a backup, or a database put back by hand.

A checkpoint may never be contradicted by a later one of the same name. So the log gets a new name and a new key, and
its first record under them says what the old name was, how much was kept and which checkpoint was given up. Whoever
kept a later checkpoint of the old name learns from ``cox audit verify --against`` by which record it was abandoned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coxswain.audit.anchor import agreed_upto
from coxswain.audit.checkpoint_file import CheckpointFile
from coxswain.audit.keys import load_audit_key, new_signer, replace_audit_key
from coxswain.audit.log import Appended, append_outbox, record
from coxswain.audit.note import Signer
from coxswain.audit.settings import AuditPaths
from coxswain.audit.statements import Restarted, sign_restart
from coxswain.messages.audit import Caller
from coxswain.store.api import Durability, Store, Tx

__all__ = ["restart", "restart_restored"]


def restart(
    tx: Tx,
    keys: tuple[Signer, Signer],
    caller: Caller,
    action: str,
    detail: dict[str, Any],
    *,
    signed: Iterable[str],
    now: float,
) -> list[Appended]:
    """Appends the record. The caller writes the new key (``replace_audit_key``) *before* the commit: should only that have
    happened, the next start sees checkpoints of a key that is not its own, and says so.

    Args:
        tx: a writing transaction, ``ACKNOWLEDGED``.
        keys: the key until now, and the one from now on.
        caller: who did it.
        action: ``backup.restore`` or ``audit.restart``.
        detail: plain JSON values; the signed statement is added.
        signed: the checkpoints that are known, notes, oldest first; the last is given up.
        now: epoch seconds.

    Returns:
        What was appended; the last is the record itself.
    """
    old, new = keys
    appended: list[Appended] = []
    while more := append_outbox(tx):
        appended += more
    notes = list(signed)
    kept, abandoned = agreed_upto(tx, old.verifier, notes), notes[-1] if notes else ""
    statement = sign_restart(new, Restarted(old.verifier, kept, abandoned), now)
    described = detail | {"previous": old.verifier.name, "kept": kept, "statement": statement}
    record(tx, caller, action, ("audit", new.verifier.name), described, now=now)
    return appended + append_outbox(tx)


def restart_restored(store: Store, paths: AuditPaths, caller: Caller, detail: dict[str, Any], *, now: float) -> int:
    """Records a restore from a backup: called when database, keys and checkpoint file are in place, before the daemon
    starts.

    ``detail`` tells which backup it was (when it was made, of what), in plain JSON values. The checkpoint file beside
    the state may be newer than the database: that is how it is known what was given up. Returns the record's sequence
    number.

    Raises:
        NotFound: there is no audit key at ``paths.key``.
        CoxswainError: the store cannot be written.
    """
    old, new = load_audit_key(paths.key), new_signer()
    signed = list(CheckpointFile(paths.checkpoints).notes())
    with store.write(Durability.ACKNOWLEDGED) as tx:
        appended = restart(tx, (old, new), caller, "backup.restore", detail, signed=signed, now=now)
        replace_audit_key(paths.key, new)
    return appended[-1].seq
