"""A database that is older than what lies beside it: what goes with each that is put back, by ``restore`` or by hand."""

from __future__ import annotations

import json
from pathlib import Path

from coxswain.audit import record
from coxswain.backup.replay import Replayed, replay
from coxswain.backup.revocations import RevocationLog, end_of, read_file
from coxswain.errors import Refused
from coxswain.messages.audit import Caller
from coxswain.store import Durability, Store
from coxswain.store.api import Tx
from coxswain.store.migrate import table_names

__all__ = ["doubt_what_was_acknowledged", "forget_what_was_under_way", "revoke_again"]

_CALLER = Caller("controller", "system")
_MOST_NAMED = 200


def revoke_again(store: Store, path: Path, now: float) -> Replayed | None:
    """At the start of the daemon, before anybody is let in: what ``path`` says was revoked, and a database that somebody put
    back past ``cox backup restore`` does not know. None: it is not older than the file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        noted = end_of(path)
        entries = read_file(path) if noted else []
    except Refused:
        return None  # the audit writer sets it aside and says so
    with store.write(Durability.ACKNOWLEDGED) as tx:
        newest = tx.execute("SELECT seq FROM audit_log ORDER BY seq DESC LIMIT 1")
        size: int = newest[0][0] if newest else 0
        if size >= noted:
            return None
        replayed = replay(tx, entries, now)
        forget_what_was_under_way(tx)
        doubt_what_was_acknowledged(tx)
        detail = {
            "audit_size": size,
            "noted": noted,
            "revoked_again": list(replayed.effects)[:_MOST_NAMED],
            "revocations": len(replayed.entries),
            "not_known": list(replayed.strangers)[:_MOST_NAMED],
        }
        record(tx, _CALLER, "backup.put_back", ("backup", ""), detail, now=now)
    RevocationLog(path).mark_restored(size, "", now)  # last: without it, all of this is done again
    return replayed


def doubt_what_was_acknowledged(tx: Tx) -> None:
    """Nodes were told other things since, and no look shows it: their policy, XRay's clients and decoy, where links lead.
    Each is told all of it once more; to one that has it already, that changes nothing.
    """
    for node_id, links in tx.execute("SELECT id, links_confirmed FROM nodes"):
        doubtful = {interface: f"{had.partition(':')[0]}:" for interface, had in json.loads(links).items()}
        tx.execute(
            "UPDATE nodes SET policy_confirmed = '', xray_confirmed = '', links_confirmed = ? WHERE id = ?",
            (json.dumps(doubtful), node_id),
        )


def forget_what_was_under_way(tx: Tx) -> None:
    """Logins end with a restore, and operations that were under way are not gone on with: they may be over long since."""
    ours = table_names()
    for table in ("login_sessions", "account_sessions"):
        if table in ours:
            tx.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
    tx.execute(
        "UPDATE operations SET state = 'failed', error = 'the controller was restored from a backup in the middle of this', "
        "remedy = 'Look at what it left, then retry or cancel it.' WHERE state IN ('queued', 'running', 'waiting')"
    )
