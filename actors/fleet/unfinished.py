"""What ended in the middle of its way is taken up again, when those that it waits for answer.

The way of a device from one path to another, or of a path to another exit, is an operation's. One that could neither be
carried out nor taken back leaves everybody with one whole way, but with more than it needs, and keeps others waiting.
Which of them ended says the journal, and nothing else: an operator may be as patient as he likes.
"""

from __future__ import annotations

from actors.fleet import failover
from actors.fleet.bindings import way_back
from actors.fleet.state import FleetState
from actors.fleet.wiring import wired
from coxswain.cascade.types import Binding, Phase
from coxswain.errors import StoreUnavailable
from coxswain.messages.operations import OfferRetry

__all__ = ["review"]

_NEW_S = 60.0
"""For so long a way that was seen to have begun is left alone; nearly all are over by then."""

_AGAIN_S = 300.0
_AT_ONCE = 4


def review(fleet: FleetState) -> None:
    """Has a few devices at most moved on, or back. Costs nothing where none is on its way."""
    try:
        bindings = wired(fleet).bindings
    except StoreUnavailable:
        return
    now = fleet.now()
    between = [b for b in bindings if b.id == b.device_id and b.phase is not Phase.SETTLED]
    fleet.moving = {b.device_id: fleet.moving.get(b.device_id, now + _NEW_S) for b in between}
    due = sorted((b for b in between if now >= fleet.moving[b.device_id]), key=lambda b: fleet.moving[b.device_id])
    if not due:
        return
    moved = failover.at_work(fleet, "path.switch")
    if moved is None:
        return
    begun = 0
    for binding in due:
        if begun >= _AT_ONCE:
            return
        begun += _go_on(fleet, binding, moved, now)


def _go_on(fleet: FleetState, binding: Binding, moved: frozenset[str], now: float) -> bool:
    if not all(failover.answers(fleet, node_id) for node_id in way_back(fleet, binding)):
        return False
    fleet.moving[binding.device_id] = now + _AGAIN_S
    if binding.device_id in moved:
        return False
    fleet.context.log.info("device %s is between two paths, and no operation moves it", binding.device_id)
    fleet.context.tell("operations", OfferRetry(failover.CONTROLLER, "path.switch", binding.device_id))
    return True
