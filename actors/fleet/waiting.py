"""Waiting for nodes: a door that wants to answer when a change has arrived asks here, and is answered by reports."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from actors.fleet.state import FleetState, Handler
from coxswain.messages import accounts as m
from coxswain.model import LinkState, Node

__all__ = ["CHANGES", "QUESTIONS", "Waiter", "applied"]

_LONGEST_S = 60.0
_AWAY = frozenset({LinkState.BACKING_OFF, LinkState.DISABLED})


class Waiter:
    """One door that waits. ``left``: node id to the revision that it must acknowledge."""

    def __init__(self, wanted: dict[str, int], left: dict[str, int]) -> None:
        self.wanted = wanted
        self.left = left
        self.reply: Future[m.Applied] = Future()

    def answer(self) -> None:
        if not self.reply.done():
            confirmed = tuple(node_id for node_id in self.wanted if node_id not in self.left)
            self.reply.set_result(m.Applied(confirmed, tuple(self.left)))


@dataclass(frozen=True, slots=True)
class _Enough:
    """To itself: this door has waited for long enough."""

    waiter: Waiter


def applied(fleet: FleetState, node: Node) -> None:
    """After a report of a node: tells those who waited for it."""
    for waiter in fleet.waiters.get(node.id, ())[:]:
        if node.applied_revision >= waiter.left.get(node.id, 0) or _is_away(fleet, node):
            _strike(fleet, waiter, node)


def _strike(fleet: FleetState, waiter: Waiter, node: Node) -> None:
    fleet.waiters[node.id].remove(waiter)
    if not fleet.waiters[node.id]:
        del fleet.waiters[node.id]
    if node.applied_revision >= waiter.left.get(node.id, 0):
        waiter.left.pop(node.id, None)
    if not any(waiter in fleet.waiters.get(node_id, ()) for node_id in waiter.left):
        waiter.answer()


def _await(fleet: FleetState, message: m.AwaitApplied) -> Any:
    left = {
        node_id: revision
        for node_id, revision in message.revisions.items()
        if node_id in fleet.nodes and fleet.nodes[node_id].applied_revision < revision
    }
    waiter = Waiter(message.revisions, left)
    for node_id in left:
        if not _is_away(fleet, fleet.nodes[node_id]):
            fleet.waiters.setdefault(node_id, []).append(waiter)
    if not any(waiter in fleet.waiters.get(node_id, ()) for node_id in left):
        waiter.answer()
    else:
        fleet.context.after(min(message.seconds, _LONGEST_S), _Enough(waiter))
    return waiter.reply


def _on_enough(fleet: FleetState, message: _Enough) -> None:
    for node_id in message.waiter.left:
        waiters = fleet.waiters.get(node_id, [])
        if message.waiter in waiters:
            waiters.remove(message.waiter)
            if not waiters:
                del fleet.waiters[node_id]
    message.waiter.answer()


def _is_away(fleet: FleetState, node: Node) -> bool:
    """Whether there is no link that could tell soon."""
    view = fleet.views.get(node.id)
    return not node.enabled or not node.server_names or view is None or view.link_state in _AWAY


CHANGES: dict[type, Handler] = {}
QUESTIONS: dict[type, Handler] = {m.AwaitApplied: _await, _Enough: _on_enough}
