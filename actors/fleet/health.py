"""How inner links are, from what both of their ends show (``coxswain.cascade.health``); what is done where one is down."""

from __future__ import annotations

from actors.fleet.state import FleetState
from actors.node_link import link_name
from coxswain.cascade.health import LinkHealth, health
from coxswain.cascade.types import NodeLink
from coxswain.messages import fleet as m
from coxswain.messages.hub import Publish
from coxswain.messages.links import Look

__all__ = ["health_of", "note", "review"]

_TOLD_AGAIN_AFTER_S = 3600.0
"""It is told of the policy as well, which takes an existing agent's rules off for a moment, those of other paths too
(fleet-model.md 12, 19). A link whose other end does not answer goes down again each time that its clients come back.
"""


def note(fleet: FleetState, report: m.LinkReport) -> None:
    """Takes in what a node's link reported of its inner links."""
    for key in [key for key in fleet.in_use if key[0] == report.node_id and key[1] not in report.links_in_use]:
        del fleet.in_use[key]
    for interface in report.links_in_use:
        fleet.in_use.setdefault((report.node_id, interface), report.at)


def health_of(fleet: FleetState, link: NodeLink) -> LinkHealth:
    """How a link is now."""
    view = fleet.views.get(link.exit_node_id)
    seen = None if view is None else dict(view.edges_seen).get(link.id)
    if seen is None and fleet.wired is not None:
        edges = fleet.wired.cascade.of(link.exit_node_id).edges
        if all(edge.id != link.id for edge in edges):
            return LinkHealth.IDLE  # nobody uses it: its exit has no peer whose handshakes could be looked at
    return health(fleet.in_use.get((link.entry_node_id, link.interface)), seen, fleet.now())


def review(fleet: FleetState) -> None:
    """Tells whoever watches of links that went down or came up. Of one that went down its node is told once more, at most
    once an hour: somebody may have taken it away by hand, and an agent that does not heal it says nothing.
    """
    links: dict[str, NodeLink] = fleet.wired.links if fleet.wired is not None else {}
    now = {link.id: health_of(fleet, link) for link in links.values()}
    for link_id, state in now.items():
        before = fleet.link_health.get(link_id, LinkHealth.UNKNOWN)
        if state is not before and LinkHealth.DOWN in (state, before):
            link = links[link_id]
            data = {
                "link_id": link_id,
                "entry_node_id": link.entry_node_id,
                "exit_node_id": link.exit_node_id,
                "health": state.value,
                "was": before.value,
            }
            fleet.context.tell("event_hub", Publish("path.link", fleet.now(), data))
            if state is LinkHealth.DOWN:
                _tell_again(fleet, link)
    fleet.link_health = now
    fleet.links_told = {link_id: at for link_id, at in fleet.links_told.items() if link_id in links}


def _tell_again(fleet: FleetState, link: NodeLink) -> None:
    now = fleet.context.clock.monotonic()
    told_at = fleet.links_told.get(link.id)
    if told_at is None or now - told_at >= _TOLD_AGAIN_AFTER_S:
        fleet.links_told[link.id] = now
        fleet.context.tell(link_name(link.entry_node_id), Look((link.interface,)))
