"""Changes to nodes. Each is one transaction: the row, its revision if the node should change, the audit record."""

from __future__ import annotations

import dataclasses

from actors.fleet.refreshing import refresh
from actors.fleet.state import FleetState, Handler
from coxswain.audit import record
from coxswain.errors import AlreadyExists, Conflict, NotFound, StillUsed
from coxswain.ids import new_id
from coxswain.inventory import (
    check_decoy_site,
    check_dialable,
    check_endpoint_ips,
    check_endpoint_ports,
    check_name,
    check_policy,
    check_region,
    host_of,
    is_same_addr,
    parse_control_addr,
)
from coxswain.messages import fleet as m
from coxswain.messages.alerts import NodeGone
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.servers import AddressesChanged
from coxswain.model import NetworkPolicy, Node, NodeStatus
from coxswain.provisioning.readiness import entry_ports
from coxswain.store import Durability, Tx
from coxswain.store import fleet as rows
from coxswain.store import paths as path_rows
from coxswain.store import servers as server_rows
from coxswain.store.accounts import touch_profiles_through
from coxswain.store.profiles import profiles_through
from coxswain.words import counted

__all__ = ["CHANGES", "QUESTIONS"]

_FIELDS = tuple(field.name for field in dataclasses.fields(Node))
_SHOWN = frozenset({"name", "region", "public_ip", "endpoint_ips", "decoy_site"})
"""What stands of a node in the profiles of devices (accounts-profiles.md 4.2)."""

_PUSHED = ("policy", "endpoint_ports", "decoy_site")
"""What the node is to be told of."""


def _add(fleet: FleetState, message: m.AddNode) -> Committed[Node]:
    node = Node(
        id=new_id("nod"),
        name=check_name(message.name),
        region=check_region(message.region),
        control_addr=parse_control_addr(message.control_addr),
        public_ip=next(iter(check_endpoint_ips((message.public_ip,))), ""),
        policy=check_policy(message.policy or NetworkPolicy()),
        config_revision=1,
        server_id=message.server_id,
        enabled=not message.provisioning,
        status=NodeStatus.PROVISIONING if message.provisioning else NodeStatus.PENDING,
        created_at=fleet.now(),
        updated_at=fleet.now(),
    )
    check_dialable("public_ip", [node.public_ip] if node.public_ip else [])
    _check_new(fleet, m.CheckNewNode(node.name, node.control_addr if message.unique else ""))
    with fleet.changing() as tx:
        rows.insert_node(tx, node)
        detail = {"name": node.name, "control_addr": node.control_addr}
        outbox_id = record(tx, message.caller, "node.add", ("node", node.id), detail, now=fleet.now())
    return fleet.committed(node, outbox_id)


def _check_new(fleet: FleetState, message: m.CheckNewNode) -> None:
    name = message.name and check_name(message.name)
    if name and fleet.named(name) is not None:
        raise AlreadyExists(f"name: a node named {name!r} exists already; choose another name")
    if message.control_addr:
        _check_addr_is_free(fleet, parse_control_addr(message.control_addr))


def _check_addr_is_free(fleet: FleetState, control_addr: str, *, but: str = "") -> None:
    """One agent is one node: two would undo each other's changes. ``but``: the id of the one that moves there."""
    for other in fleet.nodes.values():
        if other.id != but and is_same_addr(other.control_addr, control_addr):
            way = f"or change that one first: cox nodes show {other.name}"
            if not other.server_id:
                way = f"or if that one is on a machine of yours: cox nodes edit {other.name} --server SERVER"
            raise AlreadyExists(
                f"control_addr: {control_addr} is that of node {other.name} already",
                remedy=f"An agent is one node. Give another address, {way}",
            )


def _edit(fleet: FleetState, message: m.EditNode) -> Committed[Node]:
    before = fleet.checked(message.id, message.version)
    after = before
    if message.name is not None:
        name = check_name(message.name)
        other = fleet.named(name)
        if other is not None and other.id != before.id:
            raise AlreadyExists(f"name: a node named {name!r} exists already; choose another name")
        after = dataclasses.replace(after, name=name)
    if message.region is not None:
        after = dataclasses.replace(after, region=check_region(message.region))
    if message.endpoint_ips is not None:
        after = dataclasses.replace(after, endpoint_ips=check_endpoint_ips(message.endpoint_ips))
        check_dialable("endpoint_ips", after.endpoint_ips, known=before.endpoint_ips)
    if message.control_addr is not None:
        after = dataclasses.replace(after, control_addr=parse_control_addr(message.control_addr))
        if message.unique and not is_same_addr(after.control_addr, before.control_addr):  # others keep what they share
            _check_addr_is_free(fleet, after.control_addr, but=before.id)
    if message.endpoint_ports is not None:
        after = dataclasses.replace(after, endpoint_ports=check_endpoint_ports(message.endpoint_ports))
    if message.decoy_site is not None:
        after = dataclasses.replace(after, decoy_site=check_decoy_site(message.decoy_site))
    if message.policy is not None and message.policy != before.policy:
        after = dataclasses.replace(after, policy=check_policy(message.policy))
    if message.server_id is not None:
        after = dataclasses.replace(after, server_id=message.server_id)
    if any(getattr(after, name) != getattr(before, name) for name in _PUSHED):
        after = dataclasses.replace(after, config_revision=before.config_revision + 1)
    changed = [name for name in _FIELDS if getattr(before, name) != getattr(after, name)]
    with fleet.changing(Durability.BATCHED) as tx:
        if before.server_id != after.server_id:
            _check_machine(fleet, tx, before, after)
        after = rows.update_node(tx, after, expected_version=before.version, now=fleet.now())
        if not _SHOWN.isdisjoint(changed) or entry_ports(before) != entry_ports(after):
            touch_profiles_through(tx, [after.id])
        detail = {"name": after.name, "changed": changed}
        outbox_id = record(tx, message.caller, "node.update", ("node", after.id), detail, now=fleet.now())
    # A policy that comes back after a drain finds no peers, also if it is as the drain left it.
    if after.endpoint_ips != before.endpoint_ips or message.policy is not None:
        refresh(fleet, after.id)
    return fleet.committed(after, outbox_id)


def _check_machine(fleet: FleetState, tx: Tx, before: Node, after: Node) -> None:
    """Before a node is said to be on a machine, where upgrades and its removal work on whatever agent is there."""
    if before.server_id:
        raise Conflict(
            f"node {after.name}: is on a machine already, and stays there",
            remedy="If that machine moved: cox servers edit. On another one it is another node: cox nodes add --server.",
        )
    server = next((s for s in server_rows.servers_called(tx, after.server_id) if s.id == after.server_id), None)
    if server is None:
        raise NotFound(f"server: there is none with the id {after.server_id[:80]!r}", remedy="See: cox servers list")
    if server.is_self:
        raise Conflict(f"server {server.name}: is the controller's own machine, to which it does not log in")
    other = next((node for node in fleet.nodes.values() if node.server_id == server.id), None)
    if other is not None:
        raise Conflict(f"server {server.name}: the node {other.name} is on it already; a machine has one")
    reached = host_of(after.control_addr)
    if server.ssh_host not in (reached, after.public_ip):
        raise Conflict(
            f"node {after.name}: is reached at {reached}, and server {server.name} is at {server.ssh_host}",
            remedy="If they are one machine, say one address for both: cox nodes edit --addr, or cox servers edit --host.",
        )


def _set_enabled(fleet: FleetState, message: m.SetNodeEnabled) -> Committed[Node]:
    before = fleet.checked(message.id, message.version)
    after = before
    if message.enabled != before.enabled:
        status = NodeStatus.PENDING if message.enabled else NodeStatus.STOPPED
        after = dataclasses.replace(before, enabled=message.enabled, status=status)
    action = "node.enable" if message.enabled else "node.disable"
    with fleet.changing() as tx:
        after = rows.update_node(tx, after, expected_version=before.version, now=fleet.now())
        target = ("node", after.id)
        outbox_id = record(tx, message.caller, action, target, {"name": after.name}, now=fleet.now())
    fleet.node_set_changed()
    return fleet.committed(after, outbox_id)


def _check_unused(tx: Tx, node: Node, *, clients: bool = True) -> None:
    """``clients``: whether it may have some, who have it by no profile of theirs and lose it."""
    profiles = profiles_through(tx, node_id=node.id)
    if profiles:
        raise StillUsed(
            f"node {node.name} is what {counted(profiles, 'profile leads', 'profiles lead')} to",
            count=profiles,
            remedy="Remove these profiles, or lead them to another node. See: cox profiles list",
        )
    served = 0 if clients else rows.clients_of_node(tx, node.id)
    if served:
        raise StillUsed(
            f"node {node.name} serves {counted(served, 'client')}",
            count=served,
            remedy="If they may lose this node, say clients=true, or take it off its machine as well: cox nodes remove",
        )
    used = path_rows.paths_of_node(tx, node.id)
    if used:
        raise Conflict(
            f"node {node.name}: {', '.join(used[:5])} {'leads' if len(used) == 1 else 'lead'} over it",
            remedy="Remove those paths first: cox paths rm",
        )


def _see_that_it_is_unused(fleet: FleetState, message: m.CheckNodeUnused) -> None:
    node = fleet.checked(message.id, None)
    with fleet.store.read() as tx:
        _check_unused(tx, node)


def _remove(fleet: FleetState, message: m.RemoveNode) -> Committed[Node]:
    node = fleet.checked(message.id, message.version)
    with fleet.changing() as tx:
        _check_unused(tx, node, clients=message.clients)
        touch_profiles_through(tx, [node.id])
        rows.delete_node(tx, node.id, by=message.caller.actor, now=fleet.now())
        target = ("node", node.id)
        outbox_id = record(tx, message.caller, "node.rm", target, {"name": node.name}, now=fleet.now())
    fleet.context.tell("alert_engine", NodeGone(node.id))
    fleet.context.tell("servers", AddressesChanged())
    fleet.nodes.pop(node.id, None)
    for known in (fleet.views, fleet.sightings, fleet.since, fleet.uptimes, fleet.unwritten, fleet.drifted):
        known.pop(node.id, None)
    fleet.peers_changed()
    fleet.node_set_changed()
    return Committed(node, outbox_id)


def _set_status(fleet: FleetState, message: m.SetNodeStatus) -> Committed[Node]:
    before = fleet.checked(message.id, None)
    after = dataclasses.replace(before, status=message.status)
    with fleet.changing() as tx:
        after = rows.update_node(tx, after, expected_version=before.version, now=fleet.now())
        detail = {"name": after.name, "status": message.status.value}
        outbox_id = record(tx, message.caller, "node.status", ("node", after.id), detail, now=fleet.now())
    return fleet.committed(after, outbox_id)


def _drain(fleet: FleetState, message: m.DrainNode) -> Committed[Node]:
    before = fleet.checked(message.id, None)
    off = NetworkPolicy(forwarding=False, masquerade=False, isolation=False)
    after = dataclasses.replace(before, policy=off, endpoint_ports="", config_revision=before.config_revision + 1)
    with fleet.changing() as tx:
        rows.remove_peers_of(tx, before.id)
        after = rows.update_node(tx, after, expected_version=before.version, now=fleet.now())
        outbox_id = record(tx, message.caller, "node.drain", ("node", after.id), {"name": after.name}, now=fleet.now())
    fleet.peers_changed()
    return fleet.committed(after, outbox_id)


def _record_push(fleet: FleetState, message: m.RecordPush) -> Committed[None]:
    node = fleet.known(message.node_id)
    with fleet.changing() as tx:
        detail = {"name": node.name, **message.done}
        target = ("node", node.id)
        outbox_id = record(tx, message.caller, message.action, target, detail, now=fleet.now(), error=message.error)
    fleet.context.tell("audit_writer", OutboxGrew())
    return Committed(None, outbox_id)


CHANGES: dict[type, Handler] = {
    m.AddNode: _add,
    m.EditNode: _edit,
    m.SetNodeEnabled: _set_enabled,
    m.SetNodeStatus: _set_status,
    m.DrainNode: _drain,
    m.RemoveNode: _remove,
}
QUESTIONS: dict[type, Handler] = {
    m.RecordPush: _record_push,
    m.CheckNodeUnused: _see_that_it_is_unused,
    m.CheckNewNode: _check_new,
}
