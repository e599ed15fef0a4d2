"""Rows of control paths. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses

from coxswain.clock import to_micros
from coxswain.control_path.model import ControlPath
from coxswain.errors import NotFound, StaleVersion
from coxswain.store.api import Row, Tx

__all__ = ["delete_control_path", "insert_control_path", "list_control_paths", "update_control_path"]

_COLUMNS = "id, name, hops, is_active, version, created_at, updated_at"


def list_control_paths(tx: Tx) -> list[ControlPath]:
    """Oldest first."""
    return [_path(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM control_paths ORDER BY created_at, id")]  # noqa: S608


def insert_control_path(tx: Tx, path: ControlPath) -> None:
    """Raises ``UniqueViolation`` if the name is taken."""
    tx.execute(
        f"INSERT INTO control_paths ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            path.id,
            path.name,
            ",".join(path.hops),
            int(path.is_active),
            path.version,
            to_micros(path.created_at),
            to_micros(path.updated_at),
        ),
    )


def update_control_path(tx: Tx, path: ControlPath, now: float) -> ControlPath:
    """Over the version that is at hand. The one that is active has to be set inactive first: the index holds one. Raises
    ``StaleVersion``, ``NotFound``.
    """
    rows = tx.execute(
        "UPDATE control_paths SET name = ?, hops = ?, is_active = ?, version = version + 1, updated_at = ? "
        "WHERE id = ? AND version = ? RETURNING version",
        (path.name, ",".join(path.hops), int(path.is_active), to_micros(now), path.id, path.version),
    )
    if rows:
        return dataclasses.replace(path, version=rows[0][0], updated_at=now)
    present = tx.execute("SELECT version FROM control_paths WHERE id = ?", (path.id,))
    if not present:
        raise NotFound(f"control path: there is none with the id {path.id!r}")
    raise StaleVersion.of(f"control path {path.name}", path.version, present[0][0])


def delete_control_path(tx: Tx, path_id: str) -> None:
    tx.execute("DELETE FROM control_paths WHERE id = ?", (path_id,))


def _path(row: Row) -> ControlPath:
    id_, name, hops, active, version, created_at, updated_at = row
    ids = tuple(hop for hop in hops.split(",") if hop)
    return ControlPath(id_, name, ids, bool(active), version, created_at / 1e6, updated_at / 1e6)
