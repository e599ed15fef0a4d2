"""What nodes were found to be and were not to be, by nobody's command here: an audit record, when a link puts it right."""

from __future__ import annotations

from actors.fleet.failover import CONTROLLER
from actors.fleet.state import FleetState, Handler
from coxswain.audit import record
from coxswain.errors import StoreUnavailable
from coxswain.messages import fleet as m
from coxswain.messages.audit import OutboxGrew
from coxswain.store import Durability

__all__ = ["CHANGES", "QUESTIONS"]

_AGAIN_AFTER_S = 600.0
"""Two controllers on one node find the same at every look."""


def _on_drift(fleet: FleetState, found: m.NodeDrifted) -> None:
    node = fleet.nodes.get(found.node_id)
    if node is None:
        return
    now = fleet.context.clock.monotonic()
    kinds, since = fleet.drifted.get(node.id, (frozenset[str](), now))
    if now - since >= _AGAIN_AFTER_S:
        kinds, since = frozenset(), now
    if found.kinds <= kinds:
        return
    fleet.context.log.warning("node %s was not what it should be: %s", node.name, "; ".join(found.found))
    detail = {"name": node.name, "found": list(found.found)}
    try:
        with fleet.store.write(Durability.BATCHED) as tx:
            record(tx, CONTROLLER, "node.heal", ("node", node.id), detail, now=fleet.now())
    except StoreUnavailable as error:
        fleet.context.log.warning("what node %s was found to be is not recorded: %s", node.name, error)
        return
    fleet.drifted[node.id] = (kinds | found.kinds, since)
    fleet.context.tell("audit_writer", OutboxGrew())


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {m.NodeDrifted: _on_drift}
