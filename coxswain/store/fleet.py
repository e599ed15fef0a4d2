"""Rows of the fleet: nodes here, users, devices and peers in ``coxswain.store.peers``. Plain functions of a transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coxswain.clock import to_micros
from coxswain.errors import NotFound, StaleVersion
from coxswain.model import NetworkPolicy, Node, NodeStatus, Obfuscation
from coxswain.store import names
from coxswain.store.api import Row, Tx, Value, in_lists
from coxswain.store.peers import (
    attribution,
    peers_of,
    put_peers,
    remove_peers,
    remove_peers_of,
    upsert_devices,
    upsert_users,
)

__all__ = [
    "Counts",
    "attribution",
    "bump_revision",
    "bump_revisions",
    "clients_of_node",
    "counts",
    "delete_node",
    "get_node",
    "insert_node",
    "list_nodes",
    "node_keys",
    "peers_of",
    "put_peers",
    "record_observed",
    "remove_peers",
    "remove_peers_of",
    "update_node",
    "upsert_devices",
    "upsert_users",
]

_NODE_COLUMNS = (
    "id, name, region, control_addr, public_ip, endpoint_ips, status, enabled, agent_version, wg_public_key, "
    "wg_obfuscation, xray_public_key, forwarding, masquerade, isolation, policy_confirmed, config_revision, "
    "applied_revision, version, created_at, updated_at, links_confirmed, link_revision, xray_confirmed, agent_started_at, "
    "server_id, applied_content, tunnel_ipv6, endpoint_ports, mapped_ports, decoy_site"
)


# -- nodes


def insert_node(tx: Tx, node: Node) -> None:
    """Raises ``UniqueViolation`` if the name or id is taken."""
    values = _node_values(node)
    marks = ", ".join("?" * len(values))
    tx.execute(f"INSERT INTO nodes ({_NODE_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - no foreign text in it


def get_node(tx: Tx, node_id: str, *, now: float) -> Node | None:
    """``now`` (epoch seconds) decides which of its certificates count."""
    rows = tx.execute(f"SELECT {_NODE_COLUMNS} FROM nodes WHERE id = ?", (node_id,))  # noqa: S608
    return _node(rows[0], _server_names(tx, now, node_id).get(node_id, ())) if rows else None


def list_nodes(tx: Tx, *, now: float) -> list[Node]:
    """All nodes in name order, by code point: a database's own collation may differ."""
    names = _server_names(tx, now)
    rows = tx.execute(f"SELECT {_NODE_COLUMNS} FROM nodes")  # noqa: S608
    return sorted((_node(row, names.get(row[0], ())) for row in rows), key=lambda node: node.name)


def update_node(tx: Tx, node: Node, *, expected_version: int, now: float) -> Node:
    """Writes what an operator may change, if the row still has ``expected_version``. Returns it as it is now.

    The intended revision never goes back: where the stored one is greater, it stays.

    Raises:
        NotFound: the node is gone.
        StaleVersion: somebody else changed it.
        UniqueViolation: the new name is taken.
    """
    policy = node.policy
    changed = tx.execute(
        "UPDATE nodes SET name = ?, region = ?, control_addr = ?, public_ip = ?, endpoint_ips = ?, endpoint_ports = ?, "
        "decoy_site = ?, server_id = ?, status = ?, enabled = ?, forwarding = ?, masquerade = ?, isolation = ?, "
        "config_revision = CASE WHEN config_revision > ? THEN config_revision ELSE ? END, "
        "version = version + 1, updated_at = ? WHERE id = ? AND version = ? RETURNING version, config_revision",
        (
            node.name,
            node.region,
            node.control_addr,
            node.public_ip,
            json.dumps(node.endpoint_ips),
            node.endpoint_ports,
            node.decoy_site,
            node.server_id,
            node.status.value,
            int(node.enabled),
            int(policy.forwarding),
            int(policy.masquerade),
            int(policy.isolation),
            node.config_revision,
            node.config_revision,
            to_micros(now),
            node.id,
            expected_version,
        ),
    )
    if changed:
        version, revision = changed[0]
        return dataclasses.replace(node, version=version, config_revision=revision, updated_at=now)
    present = tx.execute("SELECT version FROM nodes WHERE id = ?", (node.id,))
    if not present:
        raise NotFound(f"node: there is no node with the id {node.id!r}")
    raise StaleVersion.of(f"node {node.name}", expected_version, present[0][0])


def delete_node(tx: Tx, node_id: str, *, by: str, now: float) -> None:
    """With its peers and certificates. ``by``: the actor, for whoever meets the id in history."""
    names.keep_node(tx, node_id, by=by, now=now)
    tx.execute("DELETE FROM nodes WHERE id = ?", (node_id,))


def bump_revision(tx: Tx, node_id: str, at_least: int) -> int:
    """Returns the new intended revision: one more than the stored one, or ``at_least``, whichever is greater."""
    rows = tx.execute(
        "UPDATE nodes SET config_revision = CASE WHEN config_revision + 1 > ? THEN config_revision + 1 ELSE ? END "
        "WHERE id = ? RETURNING config_revision",
        (at_least, at_least, node_id),
    )
    if not rows:
        raise NotFound(f"node: there is no node with the id {node_id!r}")
    revision: int = rows[0][0]
    return revision


def bump_revisions(tx: Tx, node_ids: Sequence[str]) -> dict[str, int]:
    """One more for each of them. Returns the new revisions by node id."""
    bumped: dict[str, int] = {}
    for part, marks in in_lists(node_ids):
        rows = tx.execute(
            f"UPDATE nodes SET config_revision = config_revision + 1 WHERE id IN ({marks}) "  # noqa: S608
            "RETURNING id, config_revision",
            part,
        )
        bumped.update((row[0], row[1]) for row in rows)
    return bumped


def record_observed(tx: Tx, nodes: Iterable[Node], *, now: float) -> None:
    """Writes what nodes reported. Neither the version nor a concurrent change of intent is touched."""
    tx.executemany(
        "UPDATE nodes SET status = ?, agent_version = ?, wg_public_key = ?, wg_obfuscation = ?, xray_public_key = ?, "
        "policy_confirmed = ?, links_confirmed = ?, xray_confirmed = ?, agent_started_at = ?, applied_revision = ?, "
        "applied_content = ?, tunnel_ipv6 = ?, mapped_ports = ?, "
        "updated_at = CASE WHEN status = ? THEN updated_at ELSE ? END "
        "WHERE id = ?",
        (
            (
                node.status.value,
                node.agent_version,
                node.wg_public_key,
                _obfuscation_text(node.obfuscation),
                node.xray_public_key,
                node.policy_confirmed,
                json.dumps(dict(node.links_confirmed)),
                node.xray_confirmed,
                to_micros(node.agent_started_at),
                node.applied_revision,
                node.applied_content,
                int(node.tunnel_ipv6),
                node.mapped_ports,
                node.status.value,
                to_micros(now),
                node.id,
            )
            for node in nodes
        ),
    )


def node_keys(tx: Tx) -> frozenset[str]:
    """The AmneziaWG public keys of all nodes: peers under these keys are other nodes, not devices. Not so the key of a
    device, which a node may claim to have: the device's sessions would be seen on no node any more.
    """
    rows = tx.execute(
        "SELECT wg_public_key FROM nodes WHERE wg_public_key <> '' "
        "AND NOT EXISTS (SELECT 1 FROM peers WHERE peers.public_key = nodes.wg_public_key)"
    )
    return frozenset(row[0] for row in rows)


_OBFUSCATION_FIELDS = dataclasses.fields(Obfuscation)


def clients_of_node(tx: Tx, node_id: str) -> int:
    """How many devices have a peer on the node, or are bound, or being bound, to a path over it (fleet-model.md 2.5)."""
    count: int = tx.execute(
        "SELECT count(*) FROM (SELECT device_id FROM peers WHERE node_id = ? UNION SELECT x.device_id FROM device_exits x "
        "JOIN path_hops h ON h.path_id = x.path_id OR h.path_id = x.next_path_id WHERE h.node_id = ?) AS clients",
        (node_id, node_id),
    )[0][0]
    return count


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows there are."""

    users: int
    devices: int
    peers: int


def counts(tx: Tx) -> Counts:
    """How many there are of each."""
    users = "(SELECT count(*) FROM users WHERE role = 'user')"
    row = tx.execute(f"SELECT {users}, (SELECT count(*) FROM devices), (SELECT count(*) FROM peers)")[0]  # noqa: S608
    return Counts(*row)


# -- between rows and values


def _server_names(tx: Tx, now: float, node_id: str | None = None) -> dict[str, tuple[str, ...]]:
    """The names of certificates that are neither revoked nor expired, by node, newest first."""
    where, params = ("", ()) if node_id is None else (" AND node_id = ?", (node_id,))
    rows = tx.execute(
        "SELECT node_id, server_name FROM node_certs WHERE revoked_at IS NULL AND not_after > ?"  # noqa: S608
        f"{where} ORDER BY created_at DESC, serial DESC",
        (to_micros(now), *params),
    )
    names: dict[str, tuple[str, ...]] = {}
    for owner, name in rows:
        if name not in names.get(owner, ()):  # a renewal carries the name of its predecessor
            names[owner] = (*names.get(owner, ()), name)
    return names


def _obfuscation_text(obfuscation: Obfuscation) -> str:
    if obfuscation == Obfuscation():
        return ""
    # Not asdict, which copies each value deeply: this is written for each node whenever it reports.
    return json.dumps({field.name: getattr(obfuscation, field.name) for field in _OBFUSCATION_FIELDS})


def _node_values(node: Node) -> list[Value]:
    policy = node.policy
    return [
        node.id,
        node.name,
        node.region,
        node.control_addr,
        node.public_ip,
        json.dumps(node.endpoint_ips),
        node.status.value,
        int(node.enabled),
        node.agent_version,
        node.wg_public_key,
        _obfuscation_text(node.obfuscation),
        node.xray_public_key,
        int(policy.forwarding),
        int(policy.masquerade),
        int(policy.isolation),
        node.policy_confirmed,
        node.config_revision,
        node.applied_revision,
        node.version,
        to_micros(node.created_at),
        to_micros(node.updated_at),
        json.dumps(dict(node.links_confirmed)),
        node.link_revision,
        node.xray_confirmed,
        to_micros(node.agent_started_at),
        node.server_id,
        node.applied_content,
        int(node.tunnel_ipv6),
        node.endpoint_ports,
        node.mapped_ports,
        node.decoy_site,
    ]


def _node(row: Row, server_names: tuple[str, ...]) -> Node:
    return Node(
        id=row[0],
        name=row[1],
        region=row[2],
        control_addr=row[3],
        public_ip=row[4],
        endpoint_ips=tuple(json.loads(row[5])),
        server_names=server_names,
        status=NodeStatus(row[6]),
        enabled=bool(row[7]),
        agent_version=row[8],
        wg_public_key=row[9],
        obfuscation=Obfuscation(**json.loads(row[10])) if row[10] else Obfuscation(),
        xray_public_key=row[11],
        policy=NetworkPolicy(bool(row[12]), bool(row[13]), bool(row[14])),
        policy_confirmed=row[15],
        config_revision=row[16],
        applied_revision=row[17],
        version=row[18],
        created_at=row[19] / 1e6,
        updated_at=row[20] / 1e6,
        links_confirmed=tuple(sorted(json.loads(row[21]).items())),
        link_revision=row[22],
        xray_confirmed=row[23],
        agent_started_at=row[24] / 1e6,
        server_id=row[25],
        applied_content=row[26],
        tunnel_ipv6=bool(row[27]),
        endpoint_ports=row[28],
        mapped_ports=row[29],
        decoy_site=row[30],
    )
