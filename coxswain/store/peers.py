"""Rows of peers, and of the users and devices that come with them. Plain functions of a transaction.

Most are reached through ``coxswain.store.fleet``.
"""

from __future__ import annotations

import ipaddress
import json
import operator
from collections.abc import Iterable, Sequence

from coxswain.clock import to_micros
from coxswain.errors import AlreadyExists
from coxswain.model import Device, Peer, Protocol, User
from coxswain.store.api import Tx, in_lists

__all__ = [
    "attribution",
    "enable_peers",
    "nodes_of_devices",
    "peers_of",
    "peers_of_devices",
    "put_peers",
    "remove_peers",
    "remove_peers_of",
    "upsert_devices",
    "upsert_users",
]

_PROTOCOLS = {int(protocol): protocol for protocol in Protocol}
_BY_CREATION = operator.itemgetter(0, 1)
_PEER_COLUMNS = "id, node_id, device_id, protocol, public_key, allowed_ips, preshared_key, flow, credential_id"


def upsert_users(tx: Tx, users: Iterable[User], *, now: float) -> None:
    """Inserts users, or overwrites those whose id is there. Raises ``UniqueViolation`` for a taken e-mail address."""
    at = to_micros(now)
    tx.executemany(
        "INSERT INTO users (id, name, email, status, version, created_at, updated_at) VALUES (?, ?, ?, ?, 1, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, status = excluded.status, "
        "version = users.version + 1, updated_at = excluded.updated_at WHERE users.role = 'user'",  # admins are not touched
        ((u.id, u.name, u.email or None, u.status, at, at) for u in users),
    )


def upsert_devices(tx: Tx, devices: Iterable[Device], *, now: float) -> None:
    """Inserts devices, or overwrites those whose id is there; a device stays its user's. ``MissingReference``: no user."""
    at = to_micros(now)
    tx.executemany(
        "INSERT INTO devices (id, user_id, name, platform, status, version, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, 1, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, platform = excluded.platform, status = excluded.status, "
        "version = devices.version + 1, updated_at = excluded.updated_at",
        ((d.id, d.user_id, d.name, d.platform, d.status, at, at) for d in devices),
    )


def put_peers(tx: Tx, peers: Iterable[Peer], *, now: float) -> None:
    """Inserts peers; one whose (node, protocol, public key) is there is replaced, but keeps its id and place in the order.

    Raises:
        AlreadyExists: an allowed IP is another peer's on the same node. On the node the peer written last would own it
            (node-contract.md 4.15), and the other would be cut off without a word.
        MissingReference: a device or node is not there.
    """
    put = list(peers)
    at = to_micros(now)
    off = _off(tx, sorted({p.device_id for p in put}))
    tx.executemany(
        "INSERT INTO peers (id, node_id, device_id, protocol, public_key, allowed_ips, preshared_key, flow, credential_id, "
        "created_at, enabled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (node_id, protocol, public_key) DO UPDATE SET device_id = excluded.device_id, "
        "allowed_ips = excluded.allowed_ips, preshared_key = excluded.preshared_key, flow = excluded.flow, "
        "credential_id = excluded.credential_id, enabled = excluded.enabled",
        (
            (
                p.id,
                p.node_id,
                p.device_id,
                int(p.protocol),
                p.public_key,
                json.dumps(p.allowed_ips),
                p.preshared_key,
                p.flow,
                p.credential_id or None,
                at,
                int(p.device_id not in off),
            )
            for p in put
        ),
    )
    _claim_addresses(tx, [peer for peer in put if peer.protocol is Protocol.AMNEZIAWG])


def _off(tx: Tx, device_ids: Sequence[str]) -> set[str]:
    """Those of the devices that must be on no node: they, or their users, are suspended or worse."""
    off: set[str] = set()
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            "SELECT d.id FROM devices d JOIN users u ON u.id = d.user_id "  # noqa: S608
            f"WHERE d.id IN ({marks}) AND (d.status <> 'active' OR u.status <> 'active')",
            part,
        )
        off.update(row[0] for row in rows)
    return off


def enable_peers(tx: Tx, device_ids: Sequence[str]) -> list[str]:
    """Switches the peers of these devices on or off, as their status and their users' says now.

    Returns:
        The nodes of which a peer was switched.
    """
    off = _off(tx, device_ids)
    touched: set[str] = set()
    for wanted, chosen in ((0, [d for d in device_ids if d in off]), (1, [d for d in device_ids if d not in off])):
        for part, marks in in_lists(chosen):
            rows = tx.execute(
                f"UPDATE peers SET enabled = ? WHERE device_id IN ({marks}) AND enabled <> ? RETURNING node_id",  # noqa: S608
                (wanted, *part, wanted),
            )
            touched.update(row[0] for row in rows)
    return sorted(touched)


def nodes_of_devices(tx: Tx, device_ids: Sequence[str]) -> list[str]:
    """The nodes that have peers of these devices, switched on or not."""
    touched: set[str] = set()
    for part, marks in in_lists(device_ids):
        rows = tx.execute(f"SELECT DISTINCT node_id FROM peers WHERE device_id IN ({marks})", part)  # noqa: S608
        touched.update(row[0] for row in rows)
    return sorted(touched)


def peers_of_devices(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[Peer]]:
    """The peers of each of these devices on all nodes, switched on or not."""
    found: dict[str, list[Peer]] = {device_id: [] for device_id in device_ids}
    for part, marks in in_lists(device_ids):
        rows = tx.execute(
            f"SELECT {_PEER_COLUMNS} FROM peers WHERE device_id IN ({marks}) ORDER BY created_at, id",  # noqa: S608
            part,
        )
        for row in rows:
            protocol, allowed_ips = _PROTOCOLS[row[3]], tuple(json.loads(row[5]))
            found[row[2]].append(Peer(row[0], row[1], row[2], protocol, row[4], allowed_ips, row[6], row[7], row[8] or ""))
    return found


def _claim_addresses(tx: Tx, peers: Sequence[Peer]) -> None:
    """Only AmneziaWG routes by allowed IPs; on XRay they say nothing to the node."""
    claims: dict[tuple[str, str], Peer] = {}
    for peer in peers:
        for address in map(_network, peer.allowed_ips):
            other = claims.setdefault((peer.node_id, address), peer)
            if other.public_key != peer.public_key:
                raise _address_taken(peer, address, other.id)
    tx.executemany(
        "DELETE FROM peer_addresses WHERE node_id = ? AND public_key = ?", ((p.node_id, p.public_key) for p in peers)
    )
    by_node: dict[str, list[str]] = {}
    for node_id, address in claims:
        by_node.setdefault(node_id, []).append(address)
    for node_id, addresses in by_node.items():
        for part, marks in in_lists(addresses):
            rows = tx.execute(
                f"SELECT address, public_key FROM peer_addresses WHERE node_id = ? AND address IN ({marks}) LIMIT 1",  # noqa: S608
                (node_id, *part),
            )
            if rows:
                raise _address_taken(claims[node_id, rows[0][0]], rows[0][0], rows[0][1])
    tx.executemany(
        "INSERT INTO peer_addresses (node_id, address, protocol, public_key) VALUES (?, ?, ?, ?)",
        ((node_id, address, int(peer.protocol), peer.public_key) for (node_id, address), peer in claims.items()),
    )


def _address_taken(peer: Peer, address: str, owner: str) -> AlreadyExists:
    return AlreadyExists(
        f"peer {peer.id}: allowed_ips: {address} is that of peer {owner} on node {peer.node_id} already; "
        "choose another address, or remove that peer first"
    )


def _network(address: str) -> str:
    """As WireGuard reads it: without host bits, a bare address as /32 or /128."""
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        return address


def remove_peers(tx: Tx, peers: Iterable[tuple[str, Protocol, str]]) -> None:
    """``peers`` are (node id, protocol, public key). Absent ones are no error."""
    tx.executemany(
        "DELETE FROM peers WHERE node_id = ? AND protocol = ? AND public_key = ?",
        ((node_id, int(protocol), key) for node_id, protocol, key in peers),
    )


def remove_peers_of(tx: Tx, node_id: str) -> None:
    """All of a node's."""
    tx.execute("DELETE FROM peers WHERE node_id = ?", (node_id,))


def peers_of(tx: Tx, node_ids: Sequence[str]) -> dict[str, list[Peer]]:
    """The peers of each of these nodes that are switched on, by creation, then id: always in the same order, in which they
    are also pushed.
    """
    found: dict[str, list[Peer]] = {node_id: [] for node_id in node_ids}
    for part, marks in in_lists(node_ids):
        rows = tx.execute(
            f"SELECT created_at, {_PEER_COLUMNS} FROM peers WHERE node_id IN ({marks}) AND enabled = 1",  # noqa: S608 - placeholders
            part,
        )
        rows.sort(key=_BY_CREATION)  # here, because a database's own collation may differ
        # One text for all: this is read for each node that a change touches.
        for row, allowed_ips in zip(rows, json.loads(f"[{','.join(row[6] for row in rows)}]"), strict=True):
            protocol = _PROTOCOLS[row[4]]
            found[row[2]].append(
                Peer(row[1], row[2], row[3], protocol, row[5], tuple(allowed_ips), row[7], row[8], row[9] or "")
            )
    return found


def attribution(tx: Tx, keys: Sequence[tuple[str, Protocol, str]]) -> dict[tuple[str, Protocol, str], tuple[str, str]]:
    """Whose peers these are.

    Args:
        tx: the transaction.
        keys: (node id, protocol, public key).

    Returns:
        (device id, user id) for each key that is known.
    """
    wanted = sorted({key for _, _, key in keys})
    asked = set(keys)
    found: dict[tuple[str, Protocol, str], tuple[str, str]] = {}
    for part, marks in in_lists(wanted):
        rows = tx.execute(
            "SELECT p.node_id, p.protocol, p.public_key, d.id, d.user_id FROM peers p "  # noqa: S608
            f"JOIN devices d ON d.id = p.device_id WHERE p.public_key IN ({marks})",
            part,
        )
        for row in rows:
            key = (row[0], Protocol(row[1]), row[2])
            if key in asked:
                found[key] = (row[3], row[4])
    return found
