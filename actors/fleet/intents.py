"""The intent of nodes: what links are told, and what they ask for. They read it late, however many changes happened."""

from __future__ import annotations

import dataclasses

from actors.fleet.state import FleetState, Handler, mark
from actors.fleet.wiring import intent
from actors.node_link import link_name
from coxswain.errors import InvalidInput, StoreUnavailable
from coxswain.messages import fleet as m
from coxswain.messages.links import IntentChanged
from coxswain.store import fleet as rows

__all__ = ["CHANGES", "QUESTIONS", "TellIntents", "remind", "tell_intents"]

_WAVE = 50
_FEW = 8
_MAX_ADOPTED = 2**61
"""Up to here a node's count is taken over; an honest one never comes near. Our own goes on from wherever it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class TellIntents:
    """``fleet`` to itself: these links are still to be told."""

    node_ids: tuple[str, ...]


def tell_intents(fleet: FleetState, node_ids: tuple[str, ...]) -> None:
    """Sends links their intent, a wave at a time, so that the first push while the last are still read. A few links are
    only told: one that is busy asks once for whatever changed until it is not, so a hundred changes are read once.
    """
    if len(node_ids) < _FEW:
        for node_id in node_ids:
            fleet.context.tell(link_name(node_id), IntentChanged())
        return
    wave, rest = node_ids[:_WAVE], node_ids[_WAVE:]
    known = {node_id: fleet.nodes[node_id] for node_id in wave if node_id in fleet.nodes}
    intents: dict[str, m.Intent | None] = dict.fromkeys(known)
    try:
        with fleet.store.read() as tx:
            peers = rows.peers_of(tx, list(known))
        intents.update((node_id, intent(fleet, node_id, peers[node_id])) for node_id in known)
    except StoreUnavailable as error:
        fleet.context.log.warning("links have to ask for their intent themselves: %s", error)
    for node_id, known_intent in intents.items():
        fleet.context.tell(link_name(node_id), IntentChanged(known_intent))
    if rest:
        fleet.context.tell_self_surely(TellIntents(rest))


def remind(fleet: FleetState) -> None:
    """Tells the links that go by an old intent once more; hints may be lost."""
    for node_id, node in fleet.nodes.items():
        view = fleet.views.get(node_id)
        if view is not None and view.intent is not None and view.intent != mark(fleet, node):
            fleet.context.tell(link_name(node_id), IntentChanged())


def _tell_more(fleet: FleetState, message: TellIntents) -> None:
    tell_intents(fleet, message.node_ids)


def _intent(fleet: FleetState, message: m.GetIntent) -> m.Intent:
    node = fleet.known(message.node_id)
    fleet.settle()
    with fleet.store.read() as tx:
        peers = rows.peers_of(tx, [node.id])
    return intent(fleet, node.id, peers[node.id])


def _bump(fleet: FleetState, message: m.BumpRevision) -> m.Intent:
    node_id, at_least = message.node_id, message.at_least
    node = fleet.known(node_id)
    if at_least > max(_MAX_ADOPTED, node.config_revision + 1):
        raise InvalidInput(f"applied_revision: {at_least - 1} is beyond 2^61, and is not taken over")
    with fleet.changing() as tx:
        revision = rows.bump_revision(tx, node_id, at_least)
        peers = rows.peers_of(tx, [node_id])
    fleet.nodes[node_id] = dataclasses.replace(fleet.nodes[node_id], config_revision=revision)
    return intent(fleet, node_id, peers[node_id])


CHANGES: dict[type, Handler] = {m.GetIntent: _intent, m.BumpRevision: _bump}
QUESTIONS: dict[type, Handler] = {TellIntents: _tell_more}
