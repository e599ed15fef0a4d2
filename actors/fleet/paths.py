"""Paths, and the links between nodes that they share. A path only makes links; traffic is moved by ``bindings``."""

from __future__ import annotations

import base64
import dataclasses
import secrets
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from actors.fleet.health import health_of
from actors.fleet.state import FleetState, Handler
from actors.fleet.wiring import Wired, install, intended, rewired, wired
from actors.node_link import link_name
from coxswain.audit import record
from coxswain.cascade.health import said_of_down
from coxswain.cascade.resources import (
    check_color,
    check_fallbacks,
    check_hops,
    check_joint,
    endpoint,
    free_index,
    link_mtu,
    path_mtu,
)
from coxswain.cascade.types import NodeLink, Path, PathStatus
from coxswain.errors import AlreadyExists, Conflict, NotFound, StaleVersion
from coxswain.ids import new_id
from coxswain.inventory import check_name
from coxswain.messages import paths as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.messages.links import Look
from coxswain.model import LinkState, Node, NodeStatus
from coxswain.store import Tx
from coxswain.store import paths as rows
from coxswain.words import counted

__all__ = ["CHANGES", "QUESTIONS", "check_enabled", "find_path", "said_of_leaving"]


def find_path(found: Wired, key: str) -> Path:
    """By id or name. Raises ``NotFound``."""
    path = found.paths.get(key) or next((p for p in found.paths.values() if p.name == key), None)
    if path is None:
        raise NotFound(f"path: there is no path with the id or name {key[:80]!r}", remedy="See: cox paths list")
    return path


def check_enabled(fleet: FleetState, route: Iterable[str]) -> None:
    """Before it is waited for. Raises ``Conflict``: a node of the new way is disabled, so it would never acknowledge it."""
    for node in (fleet.nodes[node_id] for node_id in route):
        if not node.enabled:
            raise Conflict(
                f"node {node.name}: is disabled, and the new way goes over it",
                remedy=f"Enable it first: cox nodes enable {node.name}; or cox nodes start, if its agent was stopped.",
            )


# -- changes


def _add(fleet: FleetState, message: m.AddPath) -> Committed[m.PathView]:
    known = wired(fleet).paths.get(message.id)
    if known is not None:
        return Committed(_view(fleet, wired(fleet), known), 0)
    nodes, fallbacks = _new_hops(fleet, message.nodes, message.fallbacks)
    path = Path(
        id=message.id,
        name=_name(fleet, message.name),
        hops=tuple(node.id for node in nodes),
        color=check_color(message.color),
        created_at=fleet.now(),
        updated_at=fleet.now(),
        fallbacks=tuple(node.id for node in fallbacks),
    )
    links = _new_links(fleet, _edges(nodes, fallbacks))
    with fleet.changing() as tx:
        fleet.check_stay(tx, (*path.hops, *path.fallbacks))
        rows.insert_path(tx, path)
        for link in links:
            rows.insert_link(tx, link)
        after = rewired(fleet, tx)
        detail: dict[str, Any] = {"name": path.name, "hops": [node.name for node in nodes]}
        if fallbacks:
            detail["fallbacks"] = [node.name for node in fallbacks]
        outbox_id = record(tx, message.caller, "path.create", ("path", path.id), detail, now=fleet.now())
    return _changed(fleet, after, path, outbox_id)


def _edit(fleet: FleetState, message: m.EditPath) -> Committed[m.PathView]:
    before = find_path(wired(fleet), message.key)
    after = before
    if message.name is not None and message.name != before.name:
        after = dataclasses.replace(after, name=_name(fleet, message.name))
    if message.color is not None:
        after = dataclasses.replace(after, color=check_color(message.color))
    detail: dict[str, Any] = {}
    links: list[NodeLink] = []
    if message.fallbacks is not None:
        nodes, fallbacks = _hops(fleet, before.hops, message.fallbacks)
        after = dataclasses.replace(after, fallbacks=tuple(node.id for node in fallbacks))
        _check_exits_stay(fleet, before, after)
        links = _new_links(fleet, _edges(nodes, fallbacks))
        detail = {"fallbacks": [node.name for node in fallbacks]}
    with fleet.changing() as tx:
        after = rows.update_path(tx, after, expected_version=message.version, now=fleet.now())
        if after.fallbacks != before.fallbacks:
            fleet.check_stay(tx, set(after.fallbacks) - set(before.fallbacks))
            rows.put_fallbacks(tx, after.id, after.fallbacks)
            rows.touch_profiles_over(tx, after.id)  # its MTU may be another one
            _drop_links(tx, wired(fleet), before, after.edges)
            for link in links:
                rows.insert_link(tx, link)
        wires = rewired(fleet, tx)
        detail |= {"name": after.name, "color": after.color}
        outbox_id = record(tx, message.caller, "path.update", ("path", after.id), detail, now=fleet.now())
    return _changed(fleet, wires, after, outbox_id)


def _remove(fleet: FleetState, message: m.RemovePath) -> Committed[m.PathView]:
    before = wired(fleet)
    path = find_path(before, message.key)
    if message.version is not None and message.version != path.version:
        raise StaleVersion.of(f"path {path.name}", message.version, path.version)
    view = _view(fleet, before, path)
    with fleet.changing() as tx:
        _check_unused(tx, path)
        rows.delete_path(tx, path.id)
        _drop_links(tx, before, path)
        after = rewired(fleet, tx)
        outbox_id = record(tx, message.caller, "path.rm", ("path", path.id), {"name": path.name}, now=fleet.now())
    _changed(fleet, after, None, outbox_id)
    return Committed(view, outbox_id)


def _drop_links(tx: Tx, found: Wired, path: Path, keep: Sequence[tuple[str, str]] = ()) -> None:
    """Those of ``path`` that nobody else needs."""
    left = {edge for other in found.paths.values() if other.id != path.id for edge in other.edges} | set(keep)
    for edge in path.edges:
        link = found.edge(*edge)
        if edge not in left and link is not None:
            rows.delete_link(tx, link.id)


def _check_exits_stay(fleet: FleetState, before: Path, after: Path) -> None:
    """What carries, or is about to, cannot be taken away."""
    for node_id in {before.route[-1], before.next_route[-1]} - {after.exit, *after.fallbacks}:
        raise Conflict(
            f"fallback_ids: path {before.name} leaves at {fleet.nodes[node_id].name} just now",
            remedy=f"Have it leave elsewhere first: cox paths exit {before.name}",
        )


def _check_unused(tx: Tx, path: Path) -> None:
    devices, profiles = rows.users_of_path(tx, path.id)
    if devices or profiles:
        raise Conflict(
            f"path {path.name}: {counted(devices, 'device')} bound to it, {counted(profiles, 'profile')} over it",
            remedy="Unbind the devices (cox paths unbind) or bind them elsewhere, and remove or change the profiles.",
        )


def _changed(fleet: FleetState, after: Wired, path: Path | None, outbox_id: int) -> Committed[m.PathView]:
    install(fleet, after)
    fleet.context.tell("audit_writer", OutboxGrew())
    data = {"path_id": path.id, "name": path.name} if path is not None else {}
    fleet.context.tell("event_hub", Publish("path.changed", fleet.now(), data))
    view = _view(fleet, after, path) if path is not None else None
    return Committed(view, outbox_id)  # type: ignore[arg-type]


def _name(fleet: FleetState, name: str) -> str:
    name = check_name(name)
    if any(path.name == name for path in wired(fleet).paths.values()):
        raise AlreadyExists(f"name: a path named {name!r} exists already; choose another name")
    return name


def _hops(fleet: FleetState, keys: Sequence[str], fallbacks: Sequence[str] = ()) -> tuple[list[Node], list[Node]]:
    """The nodes of a path, and those that may take the place of its exit."""
    nodes, others = ([fleet.find(key) for key in some] for some in (keys, fallbacks))
    names = {node.id: node.name for node in (*nodes, *others)}
    hops = check_hops([node.id for node in nodes], names)
    check_fallbacks(hops, [node.id for node in others], names)
    for dialer, target in _edges(nodes, others):
        check_joint(dialer, target)
    return nodes, others


def _new_hops(fleet: FleetState, keys: Sequence[str], fallbacks: Sequence[str]) -> tuple[list[Node], list[Node]]:
    """The same of a path that is to be built. Fallbacks may be disabled: nobody waits for them."""
    nodes, others = _hops(fleet, keys, fallbacks)
    check_enabled(fleet, (node.id for node in nodes))
    return nodes, others


def _edges(nodes: Sequence[Node], fallbacks: Sequence[Node]) -> list[tuple[Node, Node]]:
    return [*pairwise(nodes), *((nodes[-2], node) for node in fallbacks)]


def _new_links(fleet: FleetState, edges: Sequence[tuple[Node, Node]]) -> list[NodeLink]:
    """For each edge that no path uses yet."""
    found = wired(fleet)
    made: list[NodeLink] = []
    for dialer, target in edges:
        if found.edge(dialer.id, target.id) is None:
            own = [link for link in (*found.links.values(), *made) if link.entry_node_id == dialer.id]
            made.append(
                NodeLink(
                    id=new_id("nlk"),
                    entry_node_id=dialer.id,
                    exit_node_id=target.id,
                    index=free_index(own, dict(dialer.links_confirmed)),
                    mtu=link_mtu(target),
                    obfuscation=target.obfuscation,
                    preshared_key=base64.b64encode(secrets.token_bytes(32)).decode(),
                    created_at=fleet.now(),
                    updated_at=fleet.now(),
                )
            )
    return made


def _plan(fleet: FleetState, message: m.PlanPath) -> m.PathPlan:
    if message.name:
        _name(fleet, message.name)
    nodes, fallbacks = _new_hops(fleet, message.nodes, message.fallbacks)
    edges = _edges(nodes, fallbacks)
    new = {(link.entry_node_id, link.exit_node_id): link for link in _new_links(fleet, edges)}
    steps: list[str] = []
    for dialer, target in edges:
        link = new.get((dialer.id, target.id))
        if link is None:
            steps.append(f"{dialer.name}: has a link to {target.name} already, which this path will share")
        else:
            steps.append(
                f"{dialer.name}: configure inner link {link.interface} to {target.name} at {endpoint(target)}, "
                f"UDP port {link.listen_port}, MTU {link.mtu}"
            )
    notes = [*filter(None, map(_said_of_carrying, nodes[:-1])), *filter(None, map(said_of_leaving, (nodes[-1], *fallbacks)))]
    return m.PathPlan(tuple(steps), path_mtu((*nodes, *fallbacks)), tuple(notes))


def said_of_leaving(node: Node) -> str:
    """What is wrong with a node as the exit of a path; empty: nothing. Nobody's traffic is sent on from there, which would
    have its forwarding switched on.
    """
    if not node.policy.forwarding:
        return f"{node.name}: forwarding is off: nothing would leave there"
    if not node.policy.masquerade:
        return f"{node.name}: masquerading is off: what leaves there keeps its tunnel address"
    return ""


def _said_of_carrying(node: Node) -> str:
    """The same of one before the exit, which forwards whatever its policy says, but only then (``Intent.policy``)."""
    return "" if node.policy.forwarding else f"{node.name}: forwarding is off, and is on while somebody is on the path"


# -- questions


def _get(fleet: FleetState, message: m.GetPath) -> m.PathView:
    return _view(fleet, wired(fleet), find_path(wired(fleet), message.key))


def _list(fleet: FleetState, message: m.ListPaths) -> list[m.PathView]:
    found = wired(fleet)
    chosen = [path for path in found.paths.values() if path.name > message.after][: message.limit]
    return [_view(fleet, found, path) for path in chosen]


def _list_links(fleet: FleetState, message: m.ListNodeLinks) -> list[m.LinkView]:
    links = sorted(wired(fleet).links.values(), key=lambda link: link.id)
    return [_link_view(fleet, link) for link in links if link.id > message.after][: message.limit]


def _look(fleet: FleetState, message: m.LookAtPath) -> m.PathView:
    path = find_path(wired(fleet), message.key)
    check_enabled(fleet, path.route)
    for node_id in (*path.hops, *path.fallbacks):
        fleet.context.tell(link_name(node_id), Look())
    return _view(fleet, wired(fleet), path)


def _view(fleet: FleetState, found: Wired, path: Path) -> m.PathView:
    links = tuple(_link_view(fleet, link) for edge in path.edges if (link := found.edge(*edge)) is not None)
    users = [b for b in found.bindings if path.id in (b.route, b.next_route)]
    about = {binding.id for binding in users} | {view.link.id for view in links}
    problems = tuple(f"{p.about}: {p.text}" for p in found.cascade.problems if p.about in about)
    carrying = [found.edge(*edge) for edge in pairwise(path.route)]  # what only stands ready has no part in it
    route = [view for view in links if view.link in carrying]
    active = len(route) == len(carrying) and all(view.active for view in route)
    broken = any(fleet.nodes[node_id].status.value == "error" for node_id in path.route if node_id in fleet.nodes)
    down = said_of_down(route)
    broken = broken or bool(down)
    in_place = active and not broken
    away = _away(fleet, path)
    problems += (*down, *away.values())
    broken = broken or any(fleet.nodes[node_id].enabled for node_id in away)
    status = PathStatus.ERROR if broken else PathStatus.ACTIVE if active else PathStatus.PENDING
    return m.PathView(
        path=path,
        status=status,
        nodes=tuple(fleet.nodes[node_id].name for node_id in path.hops),
        fallbacks=tuple(fleet.nodes[node_id].name for node_id in path.fallbacks),
        exit=fleet.nodes[path.route[-1]].name,
        mtu=path_mtu([fleet.nodes[node_id] for node_id in (*path.hops, *path.fallbacks)]),
        links=links,
        devices=sum(binding.id == binding.device_id for binding in users),
        profiles=sum(binding.id != binding.device_id for binding in users),
        problems=problems,
        in_place=in_place,
    )


def _away(fleet: FleetState, path: Path) -> dict[str, str]:
    """The nodes over which traffic goes of which nobody knows whether they are there, and why, for an operator."""
    found: dict[str, str] = {}
    for node in (fleet.nodes[node_id] for node_id in path.route if node_id in fleet.nodes):
        view = fleet.views.get(node.id)
        if not node.enabled:
            found[node.id] = f"{node.name} is disabled"
        elif node.status is NodeStatus.UNREACHABLE:
            found[node.id] = f"{node.name} is unreachable{f': {view.reason}' if view is not None and view.reason else ''}"
    return found


def _link_view(fleet: FleetState, link: NodeLink) -> m.LinkView:
    dialer, target = fleet.nodes[link.entry_node_id], fleet.nodes[link.exit_node_id]
    inner = intended(fleet, wired(fleet), link)
    known = dict(dialer.links_confirmed).get(inner.interface, "")
    active = known == f"{inner.block}:{inner.peer}"
    waiting = "" if active else _why_not(fleet, dialer, f"{inner.interface} to {target.name}")
    return m.LinkView(
        link, dialer.name, target.name, inner.endpoint, active, waiting, health_of(fleet, link), _handshake(fleet, link)
    )


def _handshake(fleet: FleetState, link: NodeLink) -> float:
    view = fleet.views.get(link.exit_node_id)
    return 0.0 if view is None else dict(view.edges_seen).get(link.id, 0.0)


def _why_not(fleet: FleetState, node: Node, what: str) -> str:
    view = fleet.views.get(node.id)
    if not node.enabled:
        return f"{node.name} is disabled"
    if view is None or view.link_state in (LinkState.BACKING_OFF, LinkState.CONNECTING):
        return f"{node.name} is not connected{f': {view.reason}' if view and view.reason else ''}"
    return f"{node.name} has not acknowledged {what} yet{f': {view.reason}' if view.reason else ''}"


CHANGES: dict[type, Handler] = {m.AddPath: _add, m.EditPath: _edit, m.RemovePath: _remove}
QUESTIONS: dict[type, Handler] = {
    m.GetPath: _get,
    m.ListPaths: _list,
    m.ListNodeLinks: _list_links,
    m.LookAtPath: _look,
    m.PlanPath: _plan,
}
