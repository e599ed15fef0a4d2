"""What doors ask about nodes."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

from actors.fleet.state import FleetState, Handler
from coxswain.messages import fleet as m
from coxswain.metering import Pulse
from coxswain.model import LinkState, Node
from coxswain.store import fleet as rows

__all__ = ["CHANGES", "QUESTIONS"]


def _get(fleet: FleetState, message: m.GetNode) -> m.NodeView:
    return _view(fleet, fleet.find(message.key))


def _list(fleet: FleetState, message: m.ListNodes) -> list[m.NodeView]:
    after, wanted = message.after, message.wanted
    found = (n for n in fleet.nodes.values() if n.name > after and (not wanted or _is_wanted(n, wanted)))
    chosen = sorted(found, key=attrgetter("name"))
    return [_view(fleet, n) for n in chosen[: message.limit]]


def _is_wanted(node: Node, wanted: str) -> bool:
    texts = (node.name, node.region, node.control_addr, node.public_ip, *node.endpoint_ips)
    return node.id == wanted or any(wanted.lower() in text.lower() for text in texts)


def _view(fleet: FleetState, node: Node) -> m.NodeView:
    report = fleet.views.get(node.id)
    if report is None:
        state = LinkState.CONNECTING if node.enabled else LinkState.DISABLED
        return m.NodeView(node, state)
    return m.NodeView(
        node=node,
        link_state=report.link_state,
        link_reason=report.reason,
        since=fleet.since.get(node.id, 0.0),
        last_seen=report.at if report.link_state in (LinkState.LIVE, LinkState.DEGRADED) else 0.0,
        uptime_s=report.uptime_s or 0,
        peers_configured=report.peers_configured or 0,
        peers_online=report.peers_online or 0,
        in_sync=report.in_sync and node.applied_revision == node.config_revision,
        findings=report.findings,
    )


def _pulses(fleet: FleetState, _message: m.GetPulses) -> dict[str, Pulse]:
    found = {}
    for node in fleet.nodes.values():
        report = fleet.views.get(node.id)
        if node.enabled and report is not None:
            up = report.link_state in (LinkState.LIVE, LinkState.DEGRADED)
            found[node.id] = Pulse(up, fleet.since.get(node.id, 0.0), report.at)
    return found


def _summary(fleet: FleetState, _message: m.GetSummary) -> m.FleetSummary:
    views = [_view(fleet, node) for node in fleet.nodes.values()]
    with fleet.store.read() as tx:
        counts = rows.counts(tx)
    return m.FleetSummary(
        nodes=len(views),
        by_link_state=dict(Counter(v.link_state for v in views)),
        by_status=dict(Counter(v.node.status for v in views)),
        in_sync=sum(v.in_sync for v in views),
        peers=counts.peers,
        users=counts.users,
        devices=counts.devices,
    )


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {m.GetNode: _get, m.ListNodes: _list, m.GetPulses: _pulses, m.GetSummary: _summary}
