"""The way of a binding in an operator's words: what changes on which node, stage by stage. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coxswain.cascade.resources import names_of
from coxswain.cascade.stages import crossing, phases
from coxswain.cascade.types import Binding, NodeCascade, NodeLink, Path, Phase
from coxswain.cascade.wiring import Cascade, wire
from coxswain.model import Node, Peer

__all__ = ["Stage", "given_up", "interruption", "preview", "way"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; ``phase`` is the one that it ends in. ``changes``: one line each."""

    phase: Phase
    title: str
    changes: tuple[str, ...]


def way(old: Sequence[str], new: Sequence[str]) -> tuple[Phase, ...]:
    """The stages from one route to another, wherever they begin (``stages.phases``)."""
    return phases(old, new) if old[:1] == new[:1] else (Phase.PREPARING, Phase.MOVED)


def interruption(nodes: Mapping[str, Node], old: Sequence[str], new: Sequence[str]) -> str:
    """Why traffic stops for a moment; empty: it does not."""
    both = crossing(old, new) if old[:1] == new[:1] else frozenset()
    if not both:
        return ""
    names = sorted(names_of(nodes, (node_id,)) for node_id in both)
    reached = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} reached from another side than before, and"
    takes = "takes an address from one side" if len(names) == 1 else "each take an address from one side"
    return f"{reached} {takes} at a time: until the last node follows, nothing gets through, and nothing leaves elsewhere"


def preview(
    nodes: Mapping[str, Node],
    links: Iterable[NodeLink],
    paths: Mapping[str, Path],
    others: Sequence[Binding],
    moving: Binding,
) -> tuple[Stage, ...]:
    """The stages of ``moving``, which has not begun but for its ``next_route``, among bindings that stay as they are."""
    known = list(links)
    before_hops = paths[moving.route].route if moving.route else ()
    after_hops = paths[moving.next_route].route if moving.next_route else ()
    old, new = before_hops or after_hops[:1], after_hops or before_hops[:1]
    arrived = dataclasses.replace(moving, route=moving.next_route, next_route="")
    steps = [dataclasses.replace(moving, phase=phase) for phase in way(old, new)]
    stages: list[Stage] = []
    state = wire(nodes, known, paths, [*others, dataclasses.replace(moving, next_route="")])
    for step in (*steps, arrived):
        after = wire(nodes, known, paths, [*others, step])
        changes = _changes(state, after, nodes)
        if changes:
            stages.append(Stage(step.phase, _title(step.phase, nodes, old, new), changes))
        state = after
    return tuple(stages)


def given_up(
    nodes: Mapping[str, Node],
    links: Iterable[NodeLink],
    paths: Mapping[str, Path],
    others: Sequence[Binding],
    stuck: Binding,
) -> tuple[Stage, ...]:
    """What taking a device off both of the paths does between which it is stuck; ``others`` stay as they are."""
    known = list(links)
    changes = _changes(wire(nodes, known, paths, [*others, stuck]), wire(nodes, known, paths, others), nodes)
    return (Stage(Phase.SETTLED, "take it off both paths", changes),)


def _title(phase: Phase, nodes: Mapping[str, Node], old: Sequence[str], new: Sequence[str]) -> str:
    match phase:
        case Phase.PREPARING:
            return f"make {names_of(nodes, new)} ready; traffic stays where it is"
        case Phase.CROSSING | Phase.TURNING:
            return "nodes that both routes use change sides; traffic stops until it is moved"
        case Phase.MOVED:
            return f"move the traffic to {names_of(nodes, new)}"
    return f"clear away what only {names_of(nodes, old)} needed"


def _changes(before: Cascade, after: Cascade, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    keys = {node.wg_public_key: node.name for node in nodes.values() if node.wg_public_key}
    lines: list[str] = []
    for node_id in sorted(before.nodes.keys() | after.nodes.keys(), key=lambda node_id: names_of(nodes, (node_id,))):
        name = names_of(nodes, (node_id,))
        lines += [f"{name}: {line}" for line in _node(before.of(node_id), after.of(node_id), keys)]
    return tuple(lines)


def _node(before: NodeCascade, after: NodeCascade, keys: Mapping[str, str]) -> list[str]:
    was, now = _owned(before.edges), _owned(after.edges)
    sent, sends = ({t.device_cidr: t for t in cascade.transits} for cascade in (before, after))
    return [
        *(f"take {ip} from {keys.get(key, key)}" for ip, key in sorted(now.items()) if was.get(ip) != key),
        *(f"take {ip} from {keys.get(key, key)} no longer" for ip, key in sorted(was.items()) if ip not in now),
        *(
            f"send {ip} into {transit.inner_interface}, mark and table {transit.mark}"
            for ip, transit in sorted(sends.items())
            if sent.get(ip) != transit
        ),
        *(f"send {ip} on no longer" for ip in sorted(sent.keys() - sends.keys())),
    ]


def _owned(edges: Sequence[Peer]) -> dict[str, str]:
    return {address: edge.public_key for edge in edges for address in edge.allowed_ips}
