"""What ended in the middle of its way is taken up again, when those that it waits for answer.

The way of a device from one path to another, or of a path to another exit, is an operation's. One that could neither be
carried out nor taken back leaves everybody with one whole way, but with more than it needs, and keeps others waiting.
Which of them ended says the journal, and nothing else: an operator may be as patient as he likes.
"""

from __future__ import annotations

from actors.fleet import failover
from actors.fleet.attempts import Attempts
from actors.fleet.bindings import way_back
from actors.fleet.state import FleetState
from actors.fleet.wiring import wired
from coxswain.cascade.types import Binding, Phase
from coxswain.errors import StoreUnavailable
from coxswain.messages.operations import OfferRetry

__all__ = ["review"]

_NEW_S = 60.0
"""For so long a way that was seen to have begun is left alone; nearly all are over by then."""

_AT_ONCE = 4


def review(fleet: FleetState) -> None:
    """Has a few devices at most moved on, or back. Costs nothing where none is on its way.

    What cannot be done is tried ever more rarely, and by itself only: an operator's retry goes to ``operations`` at once.
    """
    try:
        bindings = wired(fleet).bindings
    except StoreUnavailable:
        return
    now = fleet.now()
    between = [b for b in bindings if b.id == b.device_id and b.phase is not Phase.SETTLED]
    moving = fleet.moving = {b.device_id: fleet.moving.get(b.device_id, Attempts(now + _NEW_S)) for b in between}
    hopeful = [b for b in between if moving[b.device_id].count and _came_back(fleet, b, moving[b.device_id].last)]
    due = sorted((b for b in between if now >= moving[b.device_id].not_before), key=lambda b: moving[b.device_id].not_before)
    if not due and not hopeful:
        return
    moved = failover.at_work(fleet, "path.switch")
    if moved is None:
        return
    for binding in hopeful:
        if binding.device_id not in moved:  # else it may be what that does to a node
            moving[binding.device_id] = moving[binding.device_id].afresh()
    begun = 0
    for binding in due:
        if begun >= _AT_ONCE:
            return
        begun += _go_on(fleet, binding, moved, now)


def _came_back(fleet: FleetState, binding: Binding, since: float) -> bool:
    """Whether one of those that it waits for is away, or was restarted since it was last tried."""
    return any(
        not failover.answers(fleet, node_id) or fleet.nodes[node_id].agent_started_at > since
        for node_id in way_back(fleet, binding)
    )


def _go_on(fleet: FleetState, binding: Binding, moved: frozenset[str], now: float) -> bool:
    if not all(failover.answers(fleet, node_id) for node_id in way_back(fleet, binding)):
        return False
    attempts = fleet.moving[binding.device_id]
    if binding.device_id in moved:
        fleet.moving[binding.device_id] = attempts.later(now)
        return False
    fleet.moving[binding.device_id] = attempts.once_more(now)
    fleet.context.log.info("device %s is between two paths, and no operation moves it", binding.device_id)
    fleet.context.tell("operations", OfferRetry(failover.CONTROLLER, "path.switch", binding.device_id))
    return True
