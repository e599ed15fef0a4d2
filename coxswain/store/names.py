"""Names of users, devices and nodes for history, which has their ids and outlives them. Plain functions of a transaction.

Whoever deletes one of them keeps its name with ``keep_*`` in the same transaction: ``delete_user``, ``delete_device``,
``delete_node`` and ``delete_account`` do. Nothing is kept but the name, whose it was, and when and by whom it was removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coxswain.clock import rfc3339, to_micros
from coxswain.errors import CoxswainError, InvalidInput, NotFound
from coxswain.messages.names import FindNamed, Kind, ListRemoved, Named
from coxswain.store.api import Row, Tx, Value, containing, in_lists

__all__ = [
    "find_named",
    "forget",
    "keep_device",
    "keep_node",
    "keep_user",
    "list_removed",
    "names_of",
    "outlived",
    "purge",
    "was",
]

_TABLES: dict[str, tuple[Kind, str, str]] = {
    "usr": ("user", "users", "''"),
    "dev": ("device", "devices", "user_id"),
    "nod": ("node", "nodes", "''"),
}
"""By the prefix of ids: what it is, its table, and the column that says whose it is."""

_PREFIX = {kind: prefix for prefix, (kind, _, _) in _TABLES.items()}
_REMOVED = "id, kind, name, user_id, removed_at, removed_by"
_TOLD = 5
"""So many of those that have a name are told apart in an error."""


# -- keeping


def keep_user(tx: Tx, user_id: str, *, by: str, now: float) -> None:
    """And the names of its devices, which go with it."""
    _keep(tx, "usr", ("id", user_id), by, now)
    _keep(tx, "dev", ("user_id", user_id), by, now)


def keep_device(tx: Tx, device_id: str, *, by: str, now: float) -> None:
    _keep(tx, "dev", ("id", device_id), by, now)


def keep_node(tx: Tx, node_id: str, *, by: str, now: float) -> None:
    _keep(tx, "nod", ("id", node_id), by, now)


def _keep(tx: Tx, prefix: str, which: tuple[str, str], by: str, now: float) -> None:
    """What has no name (an admin may have none) leaves none. One that a backup brought back may be removed again."""
    kind, table, owner = _TABLES[prefix]
    column, key = which
    rows = tx.execute(f"SELECT id, name, {owner} FROM {table} WHERE {column} = ? AND name <> ''", (key,))  # noqa: S608 - our names
    tx.executemany(
        f"INSERT INTO removed_names ({_REMOVED}) VALUES (?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, user_id = excluded.user_id, "
        "removed_at = excluded.removed_at, removed_by = excluded.removed_by",
        ((row_id, kind, name, user_id, to_micros(now), by) for row_id, name, user_id in rows),
    )


# -- asking


def names_of(tx: Tx, ids: Iterable[str]) -> dict[str, Named]:
    """Those that are there, and those that were."""
    found: dict[str, Named] = {}
    wanted = set(ids)
    for prefix, (kind, table, owner) in _TABLES.items():
        for part, marks in in_lists(sorted(each for each in wanted if each.startswith(f"{prefix}_"))):
            rows = tx.execute(f"SELECT id, name, {owner} FROM {table} WHERE id IN ({marks})", part)  # noqa: S608
            found |= {row_id: Named(row_id, kind, name, user_id) for row_id, name, user_id in rows if name}
    for part, marks in in_lists(sorted(wanted - found.keys())):
        rows = tx.execute(f"SELECT {_REMOVED} FROM removed_names WHERE id IN ({marks})", part)  # noqa: S608
        found |= {row[0]: _named(row) for row in rows}
    return found


def was(tx: Tx, row_id: str) -> str:
    """For the end of the sentence that there is none with this id: what it was called before it was removed, and when that
    was. Empty: nobody knows of it.
    """
    found = names_of(tx, [row_id]).get(row_id)
    return f": it was {found.name!r}, which was removed at {rfc3339(found.removed_at)}" if found and found.removed_at else ""


def list_removed(tx: Tx, query: ListRemoved) -> list[Named]:
    """What was removed last comes first."""
    wheres, values = ["1 = 1"], list[Value]()
    if query.kind:
        wheres.append("kind = ?")
        values.append(query.kind)
    if query.wanted:
        found, more = containing(("name", "removed_by") if query.by_actor else ("name",), query.wanted)
        wheres.append(f"(id = ? OR user_id = ? OR {found})")
        values += (query.wanted, query.wanted, *more)
    if query.after:
        start = tx.execute("SELECT removed_at, id FROM removed_names WHERE id = ?", (query.after,))
        if not start:
            raise NotFound(f"after: there is no {query.after[:80]!r} in this list", remedy="Start from the first page.")
        wheres.append("(removed_at, id) < (?, ?)")
        values += start[0]
    rows = tx.execute(
        f"SELECT {_REMOVED} FROM removed_names WHERE {' AND '.join(wheres)} ORDER BY removed_at DESC, id DESC LIMIT ?",  # noqa: S608
        (*values, query.limit),
    )
    return [_named(row) for row in rows]


def find_named(tx: Tx, query: FindNamed) -> str:
    """See ``FindNamed``."""
    prefix = _PREFIX[query.kind]
    _, table, owner = _TABLES[prefix]
    if query.key in names_of(tx, [query.key]) and query.key.startswith(f"{prefix}_"):
        return query.key
    where, values = "name = ?", [query.key]
    if query.kind == "user":
        where += " AND role = 'user'"
        if query.by_contact:
            where, values = f"({where} OR email = ?)", [query.key, query.key.lower()]
    present = tx.execute(
        f"SELECT id, '{query.kind}', name, {owner}, 0, '' FROM {table} WHERE {where} "  # noqa: S608 - our own names
        f"AND (? = '' OR {owner} = ?) ORDER BY id LIMIT ?",
        (*values, query.user_id, query.user_id, _TOLD + 1),
    )
    found = present or tx.execute(
        f"SELECT {_REMOVED} FROM removed_names WHERE kind = ? AND name = ? AND (? = '' OR user_id = ?) "  # noqa: S608
        "ORDER BY removed_at DESC, id LIMIT ?",
        (query.kind, query.key, query.user_id, query.user_id, _TOLD + 1),
    )
    if len(found) == 1:
        first: str = found[0][0]
        return first
    if found:
        raise _ambiguous(tx, query, [_named(row) for row in found])
    if query.key.startswith(f"{prefix}_"):
        return query.key
    raise _unknown(query)


def _ambiguous(tx: Tx, query: FindNamed, found: Sequence[Named]) -> CoxswainError:
    owners = names_of(tx, [each.user_id for each in found if each.user_id])

    def told(each: Named) -> str:
        owner = owners.get(each.user_id)
        return each.id + (f" of {owner.name}" if owner else "") + (" (removed)" if each.removed_at else "")

    count = f"more than {_TOLD}" if len(found) > _TOLD else str(len(found))
    narrower = ", or say whose device it is as well" if query.kind == "device" and not query.user_id else ""
    return InvalidInput(
        f"{query.kind}: {count} {query.kind}s have the name {query.key[:80]!r}: {', '.join(map(told, found[:_TOLD]))}",
        remedy=f"Give the id of the one that is meant{narrower}.",
    )


def _unknown(query: FindNamed) -> CoxswainError:
    keys = "id, name or e-mail" if query.by_contact and query.kind == "user" else "id or name"
    whose = f" of user {query.user_id}" if query.user_id else ""
    return NotFound(
        f"{query.kind}: there is no {query.kind}{whose} with the {keys} {query.key[:80]!r}, and none that was removed",
        remedy=f"See: cox {query.kind}s list; for what was removed: cox removed",
    )


# -- forgetting


def forget(tx: Tx, row_id: str) -> int:
    """With the devices of a user. Returns how many names that were."""
    if not row_id:
        return 0
    gone = tx.execute("DELETE FROM removed_names WHERE id = ? OR user_id = ? RETURNING id", (row_id, row_id))
    return len(gone)


def outlived(tx: Tx, before: float, most: int) -> list[str]:
    """Ids of up to ``most`` names of what was removed before ``before`` (epoch seconds) and which nothing mentions any more:
    no session, no record, no total, no alert, and no name of a device.
    """
    rows = tx.execute(
        "SELECT r.id FROM removed_names r WHERE r.removed_at < ? "
        "AND NOT EXISTS (SELECT 1 FROM peer_sessions s WHERE s.device_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM peer_sessions s WHERE s.user_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM peer_sessions s WHERE s.node_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM connection_events e WHERE e.device_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM connection_events e WHERE e.user_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM connection_events e WHERE e.node_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM session_totals t WHERE t.device_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM session_totals t WHERE t.user_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM session_totals t WHERE t.node_id = r.id) "
        "AND NOT EXISTS (SELECT 1 FROM removed_names d WHERE d.user_id = r.id AND d.user_id <> '') "
        "AND r.id NOT IN (SELECT device_id FROM alerts UNION SELECT user_id FROM alerts UNION SELECT node_id FROM alerts) "
        "ORDER BY r.removed_at, r.id LIMIT ?",
        (to_micros(before), most),
    )
    return [row[0] for row in rows]


def purge(tx: Tx, ids: Sequence[str]) -> None:
    """Deletes these, which ``outlived`` named."""
    tx.executemany("DELETE FROM removed_names WHERE id = ?", ((each,) for each in ids))


def _named(row: Row) -> Named:
    return Named(row[0], row[1], row[2], row[3], row[4] / 1e6, row[5])
