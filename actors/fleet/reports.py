"""What links report: kept in memory for queries, and written to the store in batches."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.fleet.health import note
from actors.fleet.questions import is_up, view_of
from actors.fleet.refreshing import refresh
from actors.fleet.state import FleetState, Handler
from actors.fleet.waiting import applied
from coxswain.errors import StoreUnavailable
from coxswain.messages import fleet as m
from coxswain.messages.alerts import NodeSeen
from coxswain.messages.hub import Publish
from coxswain.messages.sessions import ForgetPeers
from coxswain.metering import Uptime
from coxswain.model import LinkState, Node, NodeStatus
from coxswain.provisioning.readiness import entry_ports
from coxswain.store import Durability
from coxswain.store import fleet as rows
from coxswain.store.accounts import touch_profiles_through

__all__ = ["CHANGES", "QUESTIONS", "carried_on", "flush", "take_over"]

_SERVES = frozenset({"wg_public_key", "obfuscation", "xray_public_key"})
"""What devices have to know of a node, and without which it cannot serve them."""


def _on_report(fleet: FleetState, report: m.LinkReport) -> None:
    node = fleet.nodes.get(report.node_id)
    if node is None:
        return
    before, status = fleet.views.get(node.id), node.status
    if before is not None and report.incarnation < before.incarnation:
        return  # of a link that was fenced off
    if before is None or before.link_state != report.link_state:
        fleet.since[node.id] = report.at
        up = is_up(report.link_state)
        known = fleet.uptimes.get(node.id) or Uptime(report.at, up, report.at)
        fleet.uptimes[node.id] = known.changed(report.at, up=up)
    report = _without_anothers_key(fleet, node, report)
    fleet.views[node.id] = carried_on(before, report)
    note(fleet, report)
    take_over(fleet, node, report)
    applied(fleet, fleet.nodes[node.id])
    present = fleet.nodes[node.id]
    differs = before is None or (before.link_state, before.reason) != (report.link_state, report.reason)
    if differs or present.mapped_ports != node.mapped_ports:
        data = {
            "node_id": node.id,
            "name": node.name,
            "region": node.region,
            "link_state": report.link_state.value,
            "reason": report.reason,
        }
        fleet.context.tell("event_hub", Publish("node.link", report.at, data))
    if before is None or before.link_state != report.link_state or present.status is not status:
        fleet.context.tell("alert_engine", NodeSeen(view_of(fleet, present)))


def carried_on(before: m.LinkReport | None, report: m.LinkReport) -> m.LinkReport:
    """A link that has not read yet how many peers its node should have, does not make them none."""
    if before is None or report.peers_configured is not None:
        return report
    return dataclasses.replace(report, peers_configured=before.peers_configured)


def _without_anothers_key(fleet: FleetState, node: Node, report: m.LinkReport) -> m.LinkReport:
    """A node that has a key keeps it, where what it says is its new one is another's: exits would take one for the other.
    One that is new may be a clone of that one's machine.
    """
    told = report.wg_public_key
    if not told or not node.wg_public_key or told == node.wg_public_key:
        return report
    other = next((n for n in fleet.nodes.values() if n.wg_public_key == told and n.id != node.id), None)
    if other is None:
        return report
    finding = (
        f"it says that it has the AmneziaWG key of node {other.name} now, which is not believed; on its host, put its own "
        "awg-node.json back (in /etc/node, the agent's directory), or take that file away for a new key; restart the agent, "
        f"and then: cox nodes push {node.name}"
    )
    fleet.context.log.warning("node %s: %s", node.name, finding)
    return dataclasses.replace(report, wg_public_key=None, findings=(*report.findings, finding))


def _on_fall(fleet: FleetState, fall: m.LinkFell) -> None:
    """Until its successor reports, a link that fell is not what it last said."""
    last = fleet.views.get(fall.node_id)
    if last is None or last.incarnation == fall.incarnation:
        reason = f"its link fell and is being replaced: {fall.reason}"
        _on_report(fleet, m.LinkReport(fall.node_id, fall.incarnation, fall.at, LinkState.BACKING_OFF, reason))


def take_over(fleet: FleetState, node: Node, report: m.LinkReport) -> None:
    """Copies what the store also keeps; it is written with the next flush."""
    observed = {
        "status": report.status if node.enabled else _disabled(node.status),
        "agent_version": report.agent_version,
        "wg_public_key": report.wg_public_key,
        "obfuscation": report.obfuscation,
        "xray_public_key": report.xray_public_key,
        "tunnel_ipv6": report.tunnel_ipv6,
        "mapped_ports": report.mapped_ports,
        "applied_revision": report.applied_revision,
        "applied_content": report.applied_content,
        "policy_confirmed": report.policy_confirmed,
        "links_confirmed": report.links_confirmed,
        "xray_confirmed": report.xray_confirmed,
        "agent_started_at": report.agent_started_at,
    }
    changed: dict[str, Any] = {k: v for k, v in observed.items() if v is not None and getattr(node, k) != v}
    if not changed:
        return
    fleet.nodes[node.id] = dataclasses.replace(node, **changed)
    if not changed.keys().isdisjoint(_SERVES):
        refresh(fleet, node.id)
        fleet.serves_anew[node.id] = None
    if entry_ports(node) != entry_ports(fleet.nodes[node.id]):
        fleet.serves_anew[node.id] = None  # devices are told, and keep their keys
    fleet.unwritten[node.id] = None
    fleet.keys_changed = fleet.keys_changed or "wg_public_key" in changed
    if "tunnel_ipv6" in changed:
        refresh(fleet, node.id)  # devices gain an address there, or lose it
    if changed.keys() & {"wg_public_key", "obfuscation", "tunnel_ipv6"} and fleet.wired is not None and fleet.wired.links:
        fleet.rewire_soon()
    if "status" in changed:
        data = {"node_id": node.id, "name": node.name, "status": str(changed["status"]), "was": str(node.status)}
        fleet.context.tell("event_hub", Publish("node.status", report.at, data))


def flush(fleet: FleetState) -> None:
    """Writes what links reported since the last time; where the store is away, with the next flush."""
    if not fleet.unwritten:
        return
    nodes = [fleet.nodes[node_id] for node_id in fleet.unwritten if node_id in fleet.nodes]
    try:
        with fleet.store.write(Durability.BATCHED) as tx:
            rows.record_observed(tx, nodes, now=fleet.now())
            if fleet.serves_anew:
                touch_profiles_through(tx, list(fleet.serves_anew))
    except StoreUnavailable as error:
        fleet.context.log.warning("what %d nodes reported is not written yet: %s", len(nodes), error)
        return
    fleet.unwritten.clear()
    fleet.serves_anew.clear()
    if fleet.keys_changed:
        fleet.keys_changed = False
        fleet.context.tell("session_tracker", ForgetPeers())  # peers under these keys are nodes, not devices


def _disabled(status: NodeStatus) -> NodeStatus:
    """A node that is being set up, or whose setting up failed, is disabled too, and that says more."""
    return status if status in (NodeStatus.PROVISIONING, NodeStatus.ERROR) else NodeStatus.STOPPED


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {m.LinkReport: _on_report, m.LinkFell: _on_fall}
