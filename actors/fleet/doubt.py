"""Reading memory again: at the start, after a commit whose answer was lost, and what others wrote."""

from __future__ import annotations

import dataclasses

from actors.fleet.reports import take_over
from actors.fleet.state import FleetState, Handler, mark
from actors.node_link import link_name
from coxswain.messages import fleet as m
from coxswain.messages.audit import OutboxGrew
from coxswain.messages.links import CertificatesRenewed, IntentChanged
from coxswain.messages.sessions import ForgetPeers
from coxswain.store import fleet as rows

__all__ = ["CHANGES", "QUESTIONS", "read_again", "settle_doubt"]


def settle_doubt(fleet: FleetState) -> None:
    """Before anything that builds on memory. Raises ``StoreUnavailable``."""
    if fleet.in_doubt:
        read_again(fleet)
        fleet.in_doubt = False


def read_again(fleet: FleetState) -> None:
    """What the store says counts; what links reported and is not written yet is kept."""
    with fleet.store.read() as tx:
        nodes = {node.id: node for node in rows.list_nodes(tx, now=fleet.now())}
    before, fleet.nodes = fleet.nodes, nodes
    for node_id in fleet.unwritten:
        if node_id in nodes and node_id in fleet.views:
            take_over(fleet, nodes[node_id], fleet.views[node_id])
    if before.keys() != nodes.keys():
        fleet.node_set_changed()
    fleet.context.tell("audit_writer", OutboxGrew())
    fleet.context.tell("session_tracker", ForgetPeers())
    for node_id, node in nodes.items():
        known = before.get(node_id)
        if known is None or mark(fleet, known) != mark(fleet, node):
            fleet.context.tell(link_name(node_id), IntentChanged())
    for reread in fleet.reread:
        reread()


def _on_certificates(fleet: FleetState, message: m.CertificatesChanged) -> None:
    node_id = message.node_id
    if node_id is None:
        read_again(fleet)
        return
    with fleet.store.read() as tx:
        node = rows.get_node(tx, node_id, now=fleet.now())
    if node is None:
        return
    fleet.nodes[node_id] = dataclasses.replace(fleet.nodes.get(node_id, node), server_names=node.server_names)
    fleet.context.tell(link_name(node_id), CertificatesRenewed(node.server_names))


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {m.CertificatesChanged: _on_certificates}
