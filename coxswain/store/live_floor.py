"""Above which number the events of the next run of the daemon must begin. In ``meta``, because it is one number."""

from __future__ import annotations

from coxswain.store.api import Tx

__all__ = ["read_floor", "write_floor"]

_KEY = "live_seq_floor"


def read_floor(tx: Tx) -> int:
    """0: no run noted one."""
    rows = tx.execute("SELECT value FROM meta WHERE key = ?", (_KEY,))
    return int(rows[0][0]) if rows else 0


def write_floor(tx: Tx, floor: int) -> None:
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_KEY, str(floor)),
    )
