"""Whether a record is still as the author of a change saw it: compared in the transaction of the change."""

from __future__ import annotations

from coxswain.errors import NotFound, StaleVersion
from coxswain.messages.versions import Seen
from coxswain.store.api import Tx

__all__ = ["expect"]

_ROWS = {
    "node": ("nodes", "id"),
    "path": ("paths", "id"),
    "server": ("servers", "id"),
    "relay": ("relays", "id"),
    "operation": ("operations", "id"),
    "binding": ("device_exits", "device_id"),
}


def expect(tx: Tx, seen: Seen | None) -> None:
    """Holds the record as it was seen until the transaction ends. None: whatever it is.

    Raises ``StaleVersion``; ``NotFound``: it is gone.
    """
    if seen is None:
        return
    table, key = _ROWS[seen.kind]
    # An UPDATE that changes nothing: on Postgres it waits for whoever is changing the row, and holds it.
    held = tx.execute(
        f"UPDATE {table} SET version = version WHERE {key} = ? AND version = ? RETURNING version",  # noqa: S608 - our names
        (seen.id, seen.version),
    )
    if held:
        return
    present = tx.execute(f"SELECT version FROM {table} WHERE {key} = ?", (seen.id,))  # noqa: S608 - our names
    if present:
        raise StaleVersion.of(f"{seen.kind} {seen.name}", seen.version, present[0][0])
    if seen.kind != "binding":
        raise NotFound(f"{seen.kind} {seen.name}: is gone")
    if seen.version != 0:  # a device without one is on no path
        raise StaleVersion.of(f"binding {seen.name}", seen.version, 0)
