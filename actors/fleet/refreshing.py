"""Provisioning of devices when a node became ready for them: they are given what they lacked there. So are they where its
agent or the configuration has changed as to IPv6: they gain an address or lose it, and keep their keys. Where XRay was
switched off, which no node serves from then on, they lose it, and have it again as it was when it is switched on.

A step is bounded, one transaction, and one audit record by ``system``; between steps the actor does other work. What is
left is not kept anywhere: a restart looks at all nodes again, and finds what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.fleet.accounts import Did, change
from actors.fleet.provisioning import offer, provision
from actors.fleet.state import FleetState, Handler
from coxswain.errors import CoxswainError
from coxswain.messages.audit import Caller
from coxswain.model import Node, Protocol
from coxswain.provisioning.readiness import is_ready
from coxswain.store import Tx
from coxswain.store import profiles as rows

__all__ = ["CHANGES", "QUESTIONS", "refresh"]

_SYSTEM = Caller("coxswain", "system")
_DEVICES = 100
"""Of one step: with a hundred nodes about 10,000 peers at most, if all of them are new."""

_PAUSE_S = 0.05
_AGAIN_S = 5.0
_LONGEST_S = 0.02
_IDLE_PAUSE_S = 0.2
"""Where there are many nodes and nothing to do, as after every start, it takes a tenth of the actor's time at most."""


@dataclass(frozen=True, slots=True)
class _Step:
    """To itself: give some more devices what they lack on a node."""


def refresh(fleet: FleetState, node_id: str) -> None:
    """Devices that lack something on this node are to be provisioned, soon. Repeats are harmless."""
    idle = not fleet.not_refreshed
    fleet.not_refreshed[node_id] = ""
    if idle:
        fleet.context.after(_PAUSE_S, _Step())


def _step(fleet: FleetState, message: _Step) -> None:
    try:
        # A memory in doubt soon is not any more; nobody asked for this step who could be told.
        pause = _AGAIN_S if fleet.in_doubt else _PAUSE_S if _one_node(fleet) else _IDLE_PAUSE_S
    except CoxswainError as error:
        fleet.context.log.warning("devices could not be provisioned for nodes that became ready: %s", error)
        pause = _AGAIN_S
    if fleet.not_refreshed:
        fleet.context.after(pause, message)


def _one_node(fleet: FleetState) -> bool:
    """The next devices of the node that has waited longest; nodes without any are struck off on the way. False: none had."""
    until = fleet.context.clock.monotonic() + _LONGEST_S
    while fleet.not_refreshed and fleet.context.clock.monotonic() < until:
        node_id, after = next(iter(fleet.not_refreshed.items()))
        lacking = _lacking(fleet, node_id, after)
        if lacking:
            _give(fleet, fleet.nodes[node_id], lacking)
            fleet.not_refreshed[node_id] = lacking[-1]
            return True
        del fleet.not_refreshed[node_id]
    return False


def _give(fleet: FleetState, node: Node, device_ids: list[str]) -> None:
    def work(tx: Tx) -> Did:
        outcome = provision(fleet, tx, device_ids)
        detail = {"devices": len(device_ids), "node": node.name, "reason": "what the node gives them changed"}
        return Did(("node", node.id), detail, None, (), outcome)

    change(fleet, _SYSTEM, "device.provision", work)


def _lacking(fleet: FleetState, node_id: str, after: str) -> list[str]:
    node = fleet.nodes.get(node_id)
    if node is None:
        return []
    offered = offer(fleet)
    ready = [protocol for protocol in Protocol if is_ready(node, protocol, offered)]
    network = str(offered.subnet_v6.network_address) if offered.subnet_v6 is not None and node.tunnel_ipv6 else ""
    with fleet.store.read() as tx:
        found = {d for p in ready for d in rows.devices_lacking(tx, node_id, int(p), after=after, limit=_DEVICES)}
        if not offered.xray:
            found.update(rows.devices_holding(tx, node_id, int(Protocol.XRAY_REALITY), after=after, limit=_DEVICES))
        found.update(rows.devices_misnumbered(tx, node_id, network, after=after, limit=_DEVICES))
    return sorted(found)[:_DEVICES]


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {_Step: _step}
