"""Rows of paths, links between nodes, and bindings. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from coxswain.cascade.types import Binding, Detour, NodeLink, Path, Phase
from coxswain.clock import to_micros
from coxswain.errors import NotFound, StaleVersion
from coxswain.model import Obfuscation, Protocol
from coxswain.store.api import Tx

__all__ = [
    "begin_links",
    "bindings",
    "delete_link",
    "delete_path",
    "device_bindings",
    "entries",
    "insert_link",
    "insert_path",
    "is_revoked",
    "links",
    "paths",
    "paths_of_node",
    "peers_at",
    "put_detour",
    "put_exit",
    "put_fallbacks",
    "remove_exit",
    "touch_device",
    "touch_profiles_over",
    "tunnels_at",
    "update_link",
    "update_path",
    "users_of_path",
]

_LINK_COLUMNS = (
    "id, entry_node_id, exit_node_id, slot, mtu, obfuscation, preshared_key, color, version, created_at, updated_at"
)
_OWN = (
    "FROM peers p LEFT JOIN credentials c ON c.id = p.credential_id "
    "LEFT JOIN profile_specs s ON s.id = c.profile_id AND s.path_id IS NOT NULL "
    "WHERE p.device_id = ? AND p.node_id = ? AND p.enabled = 1 AND s.id IS NULL"
)


# -- paths


def paths(tx: Tx) -> dict[str, Path]:
    """All of them by id, in the order of their names."""
    hops: dict[str, list[str]] = {}
    for path_id, node_id in tx.execute("SELECT path_id, node_id FROM path_hops ORDER BY path_id, hop_index"):
        hops.setdefault(path_id, []).append(node_id)
    fallbacks: dict[str, list[str]] = {}
    for path_id, node_id in tx.execute("SELECT path_id, node_id FROM path_fallbacks ORDER BY path_id, place"):
        fallbacks.setdefault(path_id, []).append(node_id)
    away = _detours(tx) if fallbacks else {}
    rows = tx.execute("SELECT id, name, color, version, created_at, updated_at FROM paths")
    found = [
        Path(
            r[0],
            r[1],
            tuple(hops.get(r[0], ())),
            r[2],
            r[3],
            r[4] / 1e6,
            r[5] / 1e6,
            tuple(fallbacks.get(r[0], ())),
            away.get(r[0], Detour()),
        )
        for r in rows
    ]
    return {path.id: path for path in sorted(found, key=lambda path: path.name)}


def _detours(tx: Tx) -> dict[str, Detour]:
    rows = tx.execute("SELECT path_id, exit_node_id, next_node_id, phase, automatic, reason, moved_at FROM path_exits")
    return {r[0]: Detour(r[1] or "", r[2] or "", Phase(r[3]), bool(r[4]), r[5], r[6] / 1e6) for r in rows}


def put_detour(tx: Tx, path_id: str, detour: Detour) -> None:
    """Writes where a path leaves; one that is settled at its own exit has no row. Raises ``MissingReference``."""
    if not detour.exit and detour.phase is Phase.SETTLED:
        tx.execute("DELETE FROM path_exits WHERE path_id = ?", (path_id,))
        return
    tx.execute(
        "INSERT INTO path_exits (path_id, exit_node_id, next_node_id, phase, automatic, reason, moved_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path_id) DO UPDATE SET exit_node_id = excluded.exit_node_id, "
        "next_node_id = excluded.next_node_id, phase = excluded.phase, automatic = excluded.automatic, "
        "reason = excluded.reason, moved_at = excluded.moved_at",
        (
            path_id,
            detour.exit or None,
            detour.next_exit or None,
            detour.phase.value,
            int(detour.automatic),
            detour.reason,
            to_micros(detour.moved_at),
        ),
    )


def put_fallbacks(tx: Tx, path_id: str, node_ids: Sequence[str]) -> None:
    """Instead of those that it had. Raises ``MissingReference``, ``UniqueViolation``."""
    tx.execute("DELETE FROM path_fallbacks WHERE path_id = ?", (path_id,))
    tx.executemany(
        "INSERT INTO path_fallbacks (path_id, place, node_id) VALUES (?, ?, ?)",
        ((path_id, place, node_id) for place, node_id in enumerate(node_ids)),
    )


def touch_profiles_over(tx: Tx, path_id: str) -> None:
    """What devices have to know of this path is another now."""
    tx.execute(
        "UPDATE devices SET profile_revision = profile_revision + 1 "
        "WHERE id IN (SELECT device_id FROM profile_specs WHERE path_id = ? "
        "UNION SELECT device_id FROM device_exits WHERE path_id = ?)",
        (path_id, path_id),
    )


def entries(tx: Tx) -> dict[str, str]:
    """The node at which each path begins, by path id."""
    return dict(tx.execute("SELECT path_id, node_id FROM path_hops WHERE hop_index = 0"))


def insert_path(tx: Tx, path: Path) -> None:
    """Raises ``UniqueViolation`` for a taken name, ``MissingReference`` for a node that is not there."""
    at = to_micros(path.created_at)
    tx.execute(
        "INSERT INTO paths (id, name, color, version, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
        (path.id, path.name, path.color, path.version, at, at),
    )
    tx.executemany(
        "INSERT INTO path_hops (path_id, hop_index, node_id) VALUES (?, ?, ?)",
        ((path.id, index, node_id) for index, node_id in enumerate(path.hops)),
    )
    if path.fallbacks:
        put_fallbacks(tx, path.id, path.fallbacks)


def update_path(tx: Tx, path: Path, *, expected_version: int, now: float) -> Path:
    """Writes name and colour, if the row still has ``expected_version``; returns it as it is now.

    Raises ``NotFound``, ``StaleVersion``, ``UniqueViolation``.
    """
    changed = tx.execute(
        "UPDATE paths SET name = ?, color = ?, version = version + 1, updated_at = ? WHERE id = ? AND version = ? "
        "RETURNING version",
        (path.name, path.color, to_micros(now), path.id, expected_version),
    )
    if changed:
        return dataclasses.replace(path, version=changed[0][0], updated_at=now)
    present = tx.execute("SELECT version FROM paths WHERE id = ?", (path.id,))
    if not present:
        raise NotFound(f"path: there is no path with the id {path.id!r}")
    raise StaleVersion.of(f"path {path.name}", expected_version, present[0][0])


def delete_path(tx: Tx, path_id: str) -> None:
    """With its hops. Raises ``MissingReference`` while a device is bound to it."""
    tx.execute("DELETE FROM paths WHERE id = ?", (path_id,))


def paths_of_node(tx: Tx, node_id: str) -> list[str]:
    """Names of the paths over it, and of those that fall back on it."""
    rows = tx.execute(
        "SELECT name FROM paths WHERE id IN (SELECT path_id FROM path_hops WHERE node_id = ? "
        "UNION SELECT path_id FROM path_fallbacks WHERE node_id = ?) ORDER BY name",
        (node_id, node_id),
    )
    return [row[0] for row in rows]


# -- links


def links(tx: Tx) -> dict[str, NodeLink]:
    """All of them, by id."""
    rows = tx.execute(f"SELECT {_LINK_COLUMNS} FROM node_links ORDER BY entry_node_id, slot")  # noqa: S608
    return {
        r[0]: NodeLink(
            r[0], r[1], r[2], r[3], r[4], Obfuscation(**json.loads(r[5])), r[6], r[7], r[8], r[9] / 1e6, r[10] / 1e6
        )
        for r in rows
    }


def insert_link(tx: Tx, link: NodeLink) -> None:
    """Raises ``UniqueViolation`` if the edge has one, or the place on the entry is taken."""
    at = to_micros(link.created_at)
    tx.execute(
        f"INSERT INTO node_links ({_LINK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            link.id,
            link.entry_node_id,
            link.exit_node_id,
            link.index,
            link.mtu,
            _text(link.obfuscation),
            link.preshared_key,
            link.color,
            link.version,
            at,
            at,
        ),
    )


def update_link(tx: Tx, link: NodeLink, *, now: float) -> NodeLink:
    """Writes where it is on its entry, and what it is made for."""
    tx.execute(
        "UPDATE node_links SET slot = ?, mtu = ?, obfuscation = ?, version = version + 1, updated_at = ? WHERE id = ?",
        (link.index, link.mtu, _text(link.obfuscation), to_micros(now), link.id),
    )
    return dataclasses.replace(link, version=link.version + 1, updated_at=now)


def delete_link(tx: Tx, link_id: str) -> None:
    tx.execute("DELETE FROM node_links WHERE id = ?", (link_id,))


def begin_links(tx: Tx, node_id: str, confirmed: Mapping[str, str], revision: int) -> int:
    """Writes what is about to be in doubt on a node; returns the revision to send, greater than all before it and at least
    ``revision``. Raises ``NotFound``.
    """
    rows = tx.execute(
        "UPDATE nodes SET links_confirmed = ?, "
        "link_revision = CASE WHEN link_revision + 1 > ? THEN link_revision + 1 ELSE ? END WHERE id = ? "
        "RETURNING link_revision",
        (json.dumps(dict(confirmed)), revision, revision, node_id),
    )
    if not rows:
        raise NotFound(f"node: there is no node with the id {node_id!r}")
    return int(rows[0][0])


# -- bindings


def device_bindings(tx: Tx) -> dict[str, Binding]:
    """The devices that are bound, by id, without addresses."""
    rows = tx.execute("SELECT device_id, path_id, next_path_id, phase, version FROM device_exits ORDER BY device_id")
    return {r[0]: Binding(r[0], r[0], r[1] or "", r[2] or "", Phase(r[3]), version=r[4]) for r in rows}


def bindings(tx: Tx, entries: Mapping[str, str]) -> list[Binding]:
    """Everybody whose traffic goes over a path, with their addresses; devices first, then profiles.

    A device that is bound takes along what it has on an entry that belongs to no profile of a path; those have a binding
    of their own.

    Args:
        tx: the transaction.
        entries: of each path, the entry node.
    """
    bound = device_bindings(tx)
    profiles = _profile_bindings(tx)
    if not bound and not profiles:
        return []
    addresses: dict[tuple[str, str], list[str]] = {}
    proxied: set[tuple[str, str]] = set()
    for device_id, profile_id, node_id, allowed_ips, protocol in tx.execute(
        "SELECT p.device_id, s.id, p.node_id, p.allowed_ips, p.protocol "
        "FROM peers p LEFT JOIN credentials c ON c.id = p.credential_id "
        "LEFT JOIN profile_specs s ON s.id = c.profile_id AND s.path_id IS NOT NULL WHERE p.enabled = 1 "
        "AND (s.id IS NOT NULL OR p.device_id IN (SELECT device_id FROM device_exits)) ORDER BY p.created_at, p.id",
    ):
        if protocol != int(Protocol.AMNEZIAWG):
            proxied.add((profile_id or device_id, node_id))
            continue
        addresses.setdefault((profile_id or device_id, node_id), []).extend(json.loads(allowed_ips))
    active = {
        row[0]
        for row in tx.execute(
            "SELECT d.id FROM devices d JOIN users u ON u.id = d.user_id WHERE d.status = 'active' AND u.status = 'active'"
        )
    }
    return [
        dataclasses.replace(
            binding,
            active=binding.device_id in active,
            xray=binding.xray or (binding.id, entries.get(binding.next_route or binding.route, "")) in proxied,
            addresses={
                entry: tuple(map(_cidr, addresses.get((binding.id, entry), ())))
                for entry in {entries[path] for path in (binding.route, binding.next_route) if path in entries}
            },
        )
        for binding in (*bound.values(), *profiles)
    ]


def _profile_bindings(tx: Tx) -> list[Binding]:
    rows = tx.execute(
        "SELECT id, device_id, path_id, protocol FROM profile_specs WHERE path_id IS NOT NULL ORDER BY created_at, id"
    )
    return [Binding(r[0], r[1], r[2], xray=r[3] != "amneziawg", tunnel=r[3] != "xray-reality") for r in rows]


def peers_at(tx: Tx, device_id: str, node_id: str) -> tuple[int, int]:
    """How many AmneziaWG and XRay peers a device has on a node, leaving aside those of profiles that lead over a path."""
    rows = tx.execute(
        f"SELECT p.protocol, count(*) {_OWN} GROUP BY p.protocol",
        (device_id, node_id),
    )
    counts = {row[0]: int(row[1]) for row in rows}
    return counts.get(int(Protocol.AMNEZIAWG), 0), counts.get(int(Protocol.XRAY_REALITY), 0)


def tunnels_elsewhere(tx: Tx, device_id: str, route: Sequence[str]) -> dict[str, list[str]]:
    """Other nodes than the entry of ``route`` at which leaves what a device that is bound to it sends there by AmneziaWG, by
    id; and the names of the profiles by which it does: none, of a device that is given every node.

    On nodes that the route passes, what it sends over the path is taken from the node before, and not from itself.
    """
    taken = tunnels_at(tx, device_id, route[0])
    rows = tx.execute(
        "SELECT DISTINCT p.node_id, s.name, p.allowed_ips FROM peers p LEFT JOIN credentials c ON c.id = p.credential_id "
        "LEFT JOIN profile_specs s ON s.id = c.profile_id "
        "WHERE p.device_id = ? AND p.node_id <> ? AND p.enabled = 1 AND p.protocol = ? AND s.path_id IS NULL "
        "ORDER BY p.node_id, s.name",
        (device_id, route[0], int(Protocol.AMNEZIAWG)),
    )
    found: dict[str, list[str]] = {}
    for node_id, profile, addresses in rows:
        if node_id not in route or not set(map(_cidr, json.loads(addresses))) <= set(taken):
            found.setdefault(node_id, []).extend([profile] if profile else [])
    return found


def tunnels_at(tx: Tx, device_id: str, node_id: str) -> tuple[str, ...]:
    """The addresses that binding the device to a path from this node takes along."""
    rows = tx.execute(
        f"SELECT p.allowed_ips {_OWN} AND p.protocol = ? ORDER BY p.created_at, p.id",
        (device_id, node_id, int(Protocol.AMNEZIAWG)),
    )
    return tuple(_cidr(address) for row in rows for address in json.loads(row[0]))


def users_of_path(tx: Tx, path_id: str) -> tuple[int, int]:
    """How many devices are bound to it, or about to be, and how many profiles lead over it."""
    rows = tx.execute(
        "SELECT (SELECT count(*) FROM device_exits WHERE path_id = ? OR next_path_id = ?), "
        "(SELECT count(*) FROM profile_specs WHERE path_id = ?)",
        (path_id, path_id, path_id),
    )
    return int(rows[0][0]), int(rows[0][1])


def put_exit(tx: Tx, binding: Binding, *, now: float) -> Binding:
    """Writes where a device's traffic goes and how far that is. Raises ``MissingReference``."""
    at = to_micros(now)
    rows = tx.execute(
        "INSERT INTO device_exits (device_id, path_id, next_path_id, phase, version, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT (device_id) DO UPDATE SET path_id = excluded.path_id, "
        "next_path_id = excluded.next_path_id, phase = excluded.phase, version = device_exits.version + 1, "
        "updated_at = excluded.updated_at RETURNING version",
        (binding.device_id, binding.route or None, binding.next_route or None, binding.phase.value, at, at),
    )
    return dataclasses.replace(binding, version=rows[0][0])


def touch_device(tx: Tx, device_id: str) -> None:
    """What it has to know is another now: it is on another path, or on none."""
    tx.execute("UPDATE devices SET profile_revision = profile_revision + 1 WHERE id = ?", (device_id,))


def is_revoked(tx: Tx, device_id: str) -> bool:
    return bool(tx.execute("SELECT id FROM devices WHERE id = ? AND status = 'revoked'", (device_id,)))


def remove_exit(tx: Tx, device_id: str) -> None:
    """An absent one is no error."""
    tx.execute("DELETE FROM device_exits WHERE device_id = ?", (device_id,))


def _cidr(address: str) -> str:
    if "/" in address:
        return address
    return f"{address}/128" if ":" in address else f"{address}/32"


def _text(obfuscation: Obfuscation) -> str:
    return json.dumps(dataclasses.asdict(obfuscation))
