"""Looks at the exits of paths that have more than one, and has those moved whose exit is gone.

What is decided (``coxswain.cascade.failover``) is carried out by an operation, like what an operator asks for. What was seen
is in memory only: after a restart every exit has its whole patience again.
"""

from __future__ import annotations

from itertools import pairwise

from actors.fleet.exit_watch import AGAIN_S, ExitWatch
from actors.fleet.health import health_of
from actors.fleet.state import FleetState
from actors.fleet.wiring import Wired, intended, wired
from coxswain.cascade.failover import Move, Rules, Standing, Watched, decide, paced, standing, unfinished, watch
from coxswain.cascade.health import LinkHealth
from coxswain.cascade.types import Path, Phase
from coxswain.errors import StoreUnavailable
from coxswain.messages import exits as m
from coxswain.messages.audit import Caller
from coxswain.messages.operations import OfferOperation, OfferRetry, StartOperation
from coxswain.reconcile.plan import RIVAL
from coxswain.store import operations as operation_rows

__all__ = ["CONTROLLER", "answers", "at_work", "review", "trouble"]

CONTROLLER = Caller("controller", "system")
"""Who moves a path that nobody asked to move."""

_ASKED_S = 60.0
"""For how long an operation that was asked for counts as under way, before it has begun."""


def review(fleet: FleetState) -> None:
    """Decides for every path, and asks for a few moves at most."""
    try:
        found = wired(fleet)
    except StoreUnavailable:
        return
    watched, now, rules = fleet.exits, fleet.now(), _rules(fleet)
    paths = [path for path in found.paths.values() if path.fallbacks]
    _forget(watched, {path.id for path in paths}, now)
    before, watched.seen = watched.seen, {}
    moves: list[Move] = []
    under_way = 0
    for path in paths:
        for node_id in (path.exit, *path.fallbacks):
            key = path.id, node_id
            watched.seen[key] = watch(before.get(key, Watched()), _standing(fleet, found, path, node_id), now, rules)
        if path.detour.phase is not Phase.SETTLED:
            watched.asked.pop(path.id, None)
            held = unfinished(path, watched.moving.setdefault(path.id, now), now)
            if held is None:
                under_way += 1
            elif _has_ended(fleet, held):  # one that is only slow holds no place either that another could move in
                watched.stuck[path.id] = held
                _go_on(fleet, path, now)
            continue
        watched.moving.pop(path.id, None)
        seen = {node_id: watched.seen[path.id, node_id] for node_id in (path.exit, *path.fallbacks)}
        usable = [node_id for node_id in _usable(fleet, found, path) if not watched.declines(path.id, node_id, now)]
        move = decide(path, seen, usable, rules, now)
        watched.stuck.pop(path.id, None)
        if move is None:
            continue
        if not move.node_id or now < watched.not_before.get(path.id, 0.0):
            watched.stuck[path.id] = move  # there is nowhere to go, or whoever was asked did not take it over
        else:
            moves.append(move)
    under_way += len(watched.asked)
    for move in paced((move for move in moves if move.path_id not in watched.asked), under_way):
        watched.asked[move.path_id] = now
        params = {"path_id": move.path_id, "node_id": move.node_id, "automatic": True, "reason": move.reason[:200]}
        fleet.context.tell("operations", OfferOperation(StartOperation(CONTROLLER, "path.exit", params)))


def _has_ended(fleet: FleetState, held: Move) -> bool:
    """Whether nobody carries this one out any more; once it was said so, until the path is settled."""
    known = fleet.exits.stuck.get(held.path_id)
    return (known is not None and known.since == held.since) or not _is_at_work(fleet, "path.exit", held.path_id)


def _is_at_work(fleet: FleetState, kind: str, target_id: str) -> bool:
    """Whether one is under way there; and where that is not to be known."""
    found = at_work(fleet, kind)
    return found is None or target_id in found


def at_work(fleet: FleetState, kind: str) -> frozenset[str] | None:
    """What operations of this kind that are under way are about, by the journal; None: it cannot be read."""
    try:
        with fleet.store.read() as tx:
            return frozenset(each.target_id for each in operation_rows.unfinished(tx) if each.kind == kind)
    except StoreUnavailable:
        return None


def _go_on(fleet: FleetState, path: Path, now: float) -> None:
    """Has what ended in the middle of a move finished: who could not say which way it sends may be back by now."""
    watched = fleet.exits
    if now >= watched.not_before.get(path.id, 0.0) and all(answers(fleet, hop) for hop in path.hops[:-1]):
        watched.not_before[path.id] = now + AGAIN_S
        fleet.context.tell("operations", OfferRetry(CONTROLLER, "path.exit", path.id))


def trouble(fleet: FleetState) -> tuple[m.ExitTrouble, ...]:
    """Paths that do not leave where they should; by name."""
    found: list[m.ExitTrouble] = []
    for path in wired(fleet).paths.values():
        stuck, detour = fleet.exits.stuck.get(path.id), path.detour
        if stuck is None and not detour.exit:
            continue
        here = fleet.nodes[path.route[-1]]
        found.append(
            m.ExitTrouble(
                path_id=path.id,
                name=path.name,
                own_exit=fleet.nodes[path.exit].name,
                exit=here.name,
                exit_node_id=here.id,
                reason=stuck.reason if stuck is not None else detour.reason,
                since=stuck.since if stuck is not None else detour.moved_at,
                stuck=stuck is not None,
                automatic=detour.automatic,
            )
        )
    return tuple(found)


def _rules(fleet: FleetState) -> Rules:
    return Rules(
        float(fleet.settings["fleet.failover.after_seconds"]), float(fleet.settings["fleet.failover.back_after_seconds"])
    )


def _standing(fleet: FleetState, found: Wired, path: Path, node_id: str) -> tuple[Standing, str]:
    link = found.edge(path.hops[-2], node_id)
    how = health_of(fleet, link) if link is not None else LinkHealth.UNKNOWN
    return _look_at(fleet, node_id, how)


def _look_at(fleet: FleetState, node_id: str, how: LinkHealth) -> tuple[Standing, str]:
    view = fleet.views.get(node_id)
    if view is None:
        return standing(fleet.nodes[node_id], None, how)
    return standing(fleet.nodes[node_id], view.link_state, how, contested=view.reason == RIVAL)


def _usable(fleet: FleetState, found: Wired, path: Path) -> list[str]:
    """Exits to which a move could be carried out: everybody who has to acknowledge it answers, and the links are made."""
    return [
        node_id
        for node_id in (path.exit, *path.fallbacks)
        if fleet.nodes[node_id].policy.forwarding
        and all(answers(fleet, hop) for hop in path.hops[:-1])
        and all(_is_made(fleet, found, edge) for edge in pairwise((*path.hops[:-1], node_id)))
    ]


def answers(fleet: FleetState, node_id: str) -> bool:
    """Whether a node is there to acknowledge something."""
    return _look_at(fleet, node_id, LinkHealth.UNKNOWN)[0] in (Standing.WELL, Standing.CONTESTED)


def _is_made(fleet: FleetState, found: Wired, edge: tuple[str, str]) -> bool:
    """Its dialling node acknowledged the link between two nodes as it is intended, and it is not down."""
    link = found.edge(*edge)
    if link is None:
        return False
    inner = intended(fleet, found, link)
    made = dict(fleet.nodes[edge[0]].links_confirmed).get(inner.interface) == f"{inner.block}:{inner.peer}"
    return made and health_of(fleet, link) is not LinkHealth.DOWN


def _forget(watched: ExitWatch, paths: set[str], now: float) -> None:
    """Paths that are gone, and moves that were asked for and never began."""
    for path_id, at in list(watched.asked.items()):
        if now - at >= _ASKED_S:
            del watched.asked[path_id]
            watched.not_before[path_id] = now + _ASKED_S  # others have a turn before it is asked for again
    watched.asked = {key: at for key, at in watched.asked.items() if key in paths}
    watched.not_before = {key: at for key, at in watched.not_before.items() if key in paths and at > now}
    watched.declined = {key: at for key, at in watched.declined.items() if key[0] in paths and at > now}
    watched.moving = {key: at for key, at in watched.moving.items() if key in paths}
    watched.stuck = {key: move for key, move in watched.stuck.items() if key in paths}
