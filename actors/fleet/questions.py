"""What doors ask about nodes."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

from actors.fleet.state import FleetState, Handler
from coxswain.messages import fleet as m
from coxswain.metering import Pulse
from coxswain.model import LinkState, Node, NodeStatus
from coxswain.store import fleet as rows

__all__ = ["CHANGES", "QUESTIONS", "is_up", "view_of"]


def _get(fleet: FleetState, message: m.GetNode) -> m.NodeView:
    return view_of(fleet, fleet.find(message.key))


def _list(fleet: FleetState, message: m.ListNodes) -> list[m.NodeView]:
    found = (n for n in fleet.nodes.values() if n.name > message.after and _is_chosen(n, message))
    chosen = sorted(found, key=attrgetter("name"))
    return [view_of(fleet, n) for n in chosen[: message.limit]]


def _set(fleet: FleetState, _message: m.GetNodeSet) -> dict[str, bool]:
    return {node.id: node.enabled for node in fleet.nodes.values()}


def _is_wanted(node: Node, wanted: str) -> bool:
    texts = (node.name, node.region, node.control_addr, node.public_ip, *node.endpoint_ips)
    return node.id == wanted or any(wanted.lower() in text.lower() for text in texts)


def _is_chosen(node: Node, message: m.ListNodes) -> bool:
    if message.server_id and node.server_id != message.server_id:
        return False
    in_region = not message.regions or node.region in message.regions
    return in_region and (not message.wanted or _is_wanted(node, message.wanted))


def view_of(fleet: FleetState, node: Node) -> m.NodeView:
    """A node with what its link last reported."""
    report = fleet.views.get(node.id)
    if report is None:
        return m.NodeView(node, _link_state(fleet, node))
    seen = _seen(fleet, report)
    return m.NodeView(
        node=node,
        link_state=report.link_state,
        link_reason=report.reason,
        since=fleet.since.get(node.id, 0.0),
        last_seen=seen.at if is_up(report.link_state) else 0.0,
        uptime_s=seen.uptime_s,
        peers_configured=report.peers_configured or 0,
        peers_online=seen.peers_online,
        in_sync=_in_sync(fleet, node),
        findings=report.findings,
    )


def _seen(fleet: FleetState, report: m.LinkReport) -> m.Sighting:
    """What the last look showed that changes at every look: it came with the report, or was noted since."""
    noted = fleet.sightings.get(report.node_id)
    if noted is not None and noted.incarnation == report.incarnation and noted.at > report.at:
        return noted
    return m.Sighting(report.incarnation, report.at, report.uptime_s or 0, report.peers_online or 0)


def _pulses(fleet: FleetState, _message: m.GetPulses) -> dict[str, Pulse]:
    found = {}
    for node in fleet.nodes.values():
        report = fleet.views.get(node.id)
        if node.enabled and report is not None:
            since, uptime = fleet.since.get(node.id, 0.0), fleet.uptimes.get(node.id)
            found[node.id] = Pulse(is_up(report.link_state), since, _seen(fleet, report).at, uptime)
    return found


def is_up(state: LinkState) -> bool:
    """Whether the node is served through its link in that state."""
    return state in (LinkState.LIVE, LinkState.DEGRADED)


def _whereabouts(fleet: FleetState, _message: m.GetWhereabouts) -> list[m.Whereabouts]:
    named = sorted(fleet.nodes.values(), key=lambda n: n.name)
    return [m.Whereabouts(n.id, n.name, n.status, n.region, n.public_ip or n.control_addr) for n in named]


def _summary(fleet: FleetState, _message: m.GetSummary) -> m.FleetSummary:
    with fleet.store.read() as tx:
        counts = rows.counts(tx)
    conditions = Counter(_condition(fleet, node) for node in fleet.nodes.values())
    return m.FleetSummary(
        nodes=len(fleet.nodes),
        by_link_state=dict(Counter(_link_state(fleet, node) for node in fleet.nodes.values())),
        by_status=dict(Counter(node.status for node in fleet.nodes.values())),
        in_sync=conditions["in_sync"],
        troubled=conditions["troubled"],
        coming_up=conditions["coming_up"],
        peers=counts.peers,
        users=counts.users,
        devices=counts.devices,
    )


def _link_state(fleet: FleetState, node: Node) -> LinkState:
    report = fleet.views.get(node.id)
    if report is None:
        return LinkState.CONNECTING if node.enabled else LinkState.DISABLED
    return report.link_state


def _condition(fleet: FleetState, node: Node) -> str:
    """In which of its counts a node is; each is in one."""
    if not node.enabled:
        return "disabled"
    if _in_sync(fleet, node):
        return "in_sync"
    if node.status in (NodeStatus.UNREACHABLE, NodeStatus.ERROR) or _link_state(fleet, node) is LinkState.DEGRADED:
        return "troubled"
    return "coming_up"


def _in_sync(fleet: FleetState, node: Node) -> bool:
    report = fleet.views.get(node.id)
    return report is not None and report.in_sync and node.applied_revision == node.config_revision


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {
    m.GetNode: _get,
    m.ListNodes: _list,
    m.GetNodeSet: _set,
    m.GetPulses: _pulses,
    m.GetWhereabouts: _whereabouts,
    m.GetSummary: _summary,
}
