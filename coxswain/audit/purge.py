"""Retention: payloads of old records go, their hashes stay, and the log says so itself."""

from __future__ import annotations

import datetime as dt

from coxswain.audit.log import record
from coxswain.audit.note import Signer
from coxswain.audit.statements import PURGE, Purged, sign_purge
from coxswain.audit.tree import head, purged_upto, root_at
from coxswain.clock import to_micros
from coxswain.messages.audit import Caller
from coxswain.store.api import Tx

__all__ = ["RETENTION", "purge"]

RETENTION = Caller("retention", "system")


def purge(tx: Tx, signer: Signer, *, before: float, now: float, most: int) -> int:
    """Takes the payloads of the oldest records, and enqueues the record that says so.

    The caller appends it (``append_outbox``) in the same transaction: a log without it would look like one under attack.

    Only the beginning of the log goes: it ends at the first record that is young enough, whatever stands behind it. So
    what was purged is one number, and a single missing payload anywhere else is an attack.

    Args:
        tx: a writing transaction, ``ACKNOWLEDGED``.
        signer: the audit key; its signature keeps others from passing off a deletion as retention.
        before: epoch seconds; payloads of records from before go.
        now: epoch seconds.
        most: at most so many at once.

    Returns:
        How many payloads it took.
    """
    first = purged_upto(tx) + 1
    rows = tx.execute("SELECT coalesce(min(seq), 0) FROM audit_log WHERE seq >= ? AND at >= ?", (first, to_micros(before)))
    last = min(rows[0][0] - 1 if rows[0][0] else head(tx).size, first + most - 1)
    if last < first:
        return 0
    purged = Purged(last, tx.execute("SELECT row_hash FROM audit_log WHERE seq = ?", (last,))[0][0], root_at(tx, last))
    tx.execute(
        "INSERT INTO audit_purged (seq, row_hash, leaf_hash) "
        "SELECT seq, row_hash, leaf_hash FROM audit_log WHERE seq BETWEEN ? AND ?",
        (first, last),
    )
    tx.execute("DELETE FROM audit_log WHERE seq BETWEEN ? AND ?", (first, last))
    detail = {
        "first": first,
        "last": last,
        "before": dt.datetime.fromtimestamp(before, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "statement": sign_purge(signer, purged, now),
    }
    record(tx, RETENTION, PURGE, ("audit", signer.verifier.name), detail, now=now)
    return last - first + 1
