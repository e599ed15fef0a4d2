"""Which device goes over which path, and its way from one to another, stage by stage (``coxswain.cascade.stages``).

Each stage is durable, and says by itself what every node has to have: whatever dies in between, the nodes are brought to the
stage that is written down, and the operation that moves on finds out there how far it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from actors.fleet.failover import at_work
from actors.fleet.paths import check_enabled, find_path
from actors.fleet.state import FleetState, Handler
from actors.fleet.wiring import Wired, install, rewired, wired
from coxswain.audit import record
from coxswain.cascade.preview import given_up, interruption, preview, way
from coxswain.cascade.resources import check_joint, names_of
from coxswain.cascade.stages import crossing, parting
from coxswain.cascade.types import Binding, Phase
from coxswain.errors import Conflict, NotFound
from coxswain.messages import paths as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.model import LinkState
from coxswain.store import paths as rows
from coxswain.store.profiles import profiles_of
from coxswain.store.versions import expect

__all__ = ["CHANGES", "QUESTIONS", "awaited", "concerned", "not_ready", "way_back"]

_FEW = 4
"""Names in a sentence; a device may have keys for a thousand nodes."""


# -- changes


def _stage(fleet: FleetState, message: m.StageBinding) -> Committed[m.BindingView]:
    found = wired(fleet)
    before = _binding(fleet, found, message.device_id)
    if before.phase is message.phase and before.next_route == message.path_id:
        return Committed(_view(fleet, found, before), 0)
    if before.phase is Phase.SETTLED and not message.path_id and not before.route:  # given up, and the answer was lost
        return Committed(_view(fleet, found, before), 0)
    started = before.phase is not Phase.SETTLED
    gives_up = started and not message.path_id and bool(before.next_route)
    if started and before.next_route != message.path_id and not gives_up:
        raise _on_its_way(fleet, found, before)
    if not started:
        _check(fleet, found, before, message.path_id)
        _check_exits(fleet, found, before.route, message.path_id)
    after = dataclasses.replace(before, next_route=message.path_id, phase=message.phase)
    if gives_up:  # at once: to be taken off one of both in stages, a node would have to be told of it that may be gone
        after = dataclasses.replace(before, route="", next_route="", phase=Phase.SETTLED)
    with fleet.changing() as tx:
        if rows.is_revoked(tx, message.device_id):
            raise _revoked(message.device_id)
        if gives_up:
            rows.remove_exit(tx, message.device_id)
            rows.touch_device(tx, message.device_id)
        else:
            after = dataclasses.replace(after, version=rows.put_exit(tx, after, now=fleet.now()).version)
        wires = rewired(fleet, tx)
        action = "path.bind" if message.path_id else "path.unbind"
        detail = {"path_id": message.path_id or before.route or before.next_route}
        target = ("device", message.device_id)
        outbox_id = 0 if started and not gives_up else record(tx, message.caller, action, target, detail, now=fleet.now())
    return _changed(fleet, wires, after, outbox_id)


def _settle(fleet: FleetState, message: m.SettleBinding) -> Committed[m.BindingView]:
    found = wired(fleet)
    before = _binding(fleet, found, message.device_id)
    if before.phase is Phase.SETTLED or before.next_route != message.path_id:
        return Committed(_view(fleet, found, before), 0)
    route = before.next_route if message.forward else before.route
    after = dataclasses.replace(before, route=route, next_route="", phase=Phase.SETTLED)
    with fleet.changing() as tx:
        if rows.is_revoked(tx, message.device_id):  # since this way began, and with it went what it had
            after = dataclasses.replace(after, route="")
        if after.route:
            after = dataclasses.replace(after, version=rows.put_exit(tx, after, now=fleet.now()).version)
        else:
            rows.remove_exit(tx, message.device_id)
        if after.route != before.route:
            rows.touch_device(tx, message.device_id)
        wires = rewired(fleet, tx)
        outbox_id = 0
        if not message.forward:
            detail = {"path_id": message.path_id, "taken_back": True}
            target = ("device", message.device_id)
            error = "it could not be carried out, and was taken back"
            action = "path.bind" if message.path_id else "path.unbind"
            outbox_id = record(tx, message.caller, action, target, detail, now=fleet.now(), error=error)
    return _changed(fleet, wires, after, outbox_id)


def _note(fleet: FleetState, message: m.NoteBinding) -> Committed[None]:
    with fleet.changing() as tx:
        expect(tx, message.seen)
        action = "path.bind" if message.path_id else "path.unbind"
        detail = {"path_id": message.path_id, "unchanged": True}
        outbox_id = record(tx, message.caller, action, ("device", message.device_id), detail, now=fleet.now())
    fleet.context.tell("audit_writer", OutboxGrew())
    return Committed(None, outbox_id)


def _changed(fleet: FleetState, after: Wired, binding: Binding, outbox_id: int) -> Committed[m.BindingView]:
    install(fleet, after)
    fleet.context.tell("audit_writer", OutboxGrew())
    data = {"device_id": binding.device_id, "path_id": binding.next_route or binding.route, "phase": binding.phase.value}
    fleet.context.tell("event_hub", Publish("path.binding", fleet.now(), data))
    return Committed(_view(fleet, after, binding), outbox_id)


def _check(fleet: FleetState, found: Wired, before: Binding, path_id: str) -> None:
    """May this device go there? Raises ``Conflict``, ``NotFound``."""
    if not path_id and not before.route:
        raise Conflict(f"device {before.device_id}: is bound to no path")
    if not path_id:
        return  # whichever nodes are there: they are told when they return
    path = find_path(found, path_id)
    if before.route == path.id:
        raise Conflict(f"device {before.device_id}: is bound to {path.name} already")
    nodes = [fleet.nodes[node_id] for node_id in path.route]
    check_enabled(fleet, path.route)
    for dialer, target in pairwise(nodes):
        check_joint(dialer, target)
    with fleet.store.read() as tx:
        if rows.is_revoked(tx, before.device_id):
            raise _revoked(before.device_id)
        tunnels, proxies = rows.peers_at(tx, before.device_id, path.entry)
        profiles = profiles_of(tx, [before.device_id])[before.device_id]
    if tunnels:
        return
    own = next((profile.name for profile in profiles if profile.path_id == path.id), None)
    if own is not None:
        raise Conflict(
            f"device {before.device_id}: goes over {path.name} already, by its profile {own}",
            remedy="A binding is for what a device has on the entry itself, where this one has nothing else.",
        )
    if proxies:
        raise Conflict(
            f"device {before.device_id}: has only XRay on {nodes[0].name}, which is proxied there and leaves there",
            remedy="Only AmneziaWG goes over a path; give the device a profile with it.",
        )
    raise Conflict(
        f"device {before.device_id}: has no AmneziaWG address on {nodes[0].name}, the entry of {path.name}",
        remedy="Give it a profile for that node first: cox profiles create",
    )


def _revoked(device_id: str) -> Conflict:
    return Conflict(f"device {device_id}: is revoked, for good")


def _check_exits(fleet: FleetState, found: Wired, *path_ids: str) -> None:
    """Nobody gets on or off a path while all of it is on its way to another exit."""
    for path_id in path_ids:
        path = found.paths.get(path_id)
        if path is None or path.detour.phase is Phase.SETTLED:
            continue
        remedy = "That takes seconds; wait for the operation: cox operations list"
        moved = at_work(fleet, "path.exit")
        if moved is not None and path.id not in moved:
            before = fleet.nodes[path.hops[-2]].name
            remedy = (
                "The operation that changes it failed; take it up again: cox operations list, cox operations retry. "
                f"If {before} is gone, disable it before: cox nodes disable {before}"
            )
        raise Conflict(f"path {path.name}: is on its way to another exit", remedy=remedy)


# -- questions


def _get(fleet: FleetState, message: m.GetBinding) -> m.BindingView:
    found = wired(fleet)
    return _view(fleet, found, _binding(fleet, found, message.device_id), back=message.back)


def _list(fleet: FleetState, message: m.ListBindings) -> list[m.BindingView]:
    found = wired(fleet)
    bound = sorted((b for b in found.bindings if b.id == b.device_id), key=lambda b: b.device_id)
    chosen = [
        b
        for b in bound
        if b.device_id > message.after and (not message.path_id or message.path_id in (b.route, b.next_route))
    ]
    return [_view(fleet, found, binding) for binding in chosen[: message.limit]]


def _plan(fleet: FleetState, message: m.PlanBinding) -> m.BindingPlan:
    found = wired(fleet)
    before = _binding(fleet, found, message.device_id)
    if before.phase is not Phase.SETTLED:
        if message.path or not before.next_route or _is_moved(fleet, before):
            raise _on_its_way(fleet, found, before)
        return _plan_giving_up(fleet, found, before)
    path_id = find_path(found, message.path).id if message.path else ""
    _check(fleet, found, before, path_id)
    _check_exits(fleet, found, before.route, path_id)
    old, new = _routes(found, before.route, path_id)
    moving = dataclasses.replace(before, next_route=path_id)
    with fleet.store.read() as tx:
        own = {entry: rows.tunnels_at(tx, before.device_id, entry) for entry in {old[0], new[0]}}
        _, proxies = rows.peers_at(tx, before.device_id, new[0]) if path_id else (0, 0)
        elsewhere = rows.tunnels_elsewhere(tx, before.device_id, new) if path_id else {}
    stages = preview(
        fleet.nodes,
        found.links.values(),
        found.paths,
        [binding for binding in found.bindings if binding.id != before.id],
        dataclasses.replace(moving, addresses=own),
    )
    notes: list[str] = []
    if proxies:
        entry = fleet.nodes[new[0]].name
        notes.append(f"what it sends by XRay is proxied on {entry} and leaves there; only AmneziaWG goes over a path")
    if elsewhere:
        notes.append(_leaving_elsewhere(fleet, new[0], elsewhere))
    if old[0] != new[0]:
        entry, other = (names_of(fleet.nodes, (node_id,)) for node_id in (old[0], new[0]))
        notes.append(
            f"the entry changes from {entry} to {other}: the device has to connect there itself, and what still comes in at "
            f"{entry} leaves there"
        )
    if not path_id and not fleet.nodes[old[0]].enabled:
        notes.append(_told_later(fleet, old))
    interrupts = interruption(fleet.nodes, old, new)
    return m.BindingPlan(message.device_id, before.route, path_id, stages, interrupts, tuple(notes))


def _plan_giving_up(fleet: FleetState, found: Wired, stuck: Binding) -> m.BindingPlan:
    others = [binding for binding in found.bindings if binding.id != stuck.id]
    stages = given_up(fleet.nodes, found.links.values(), found.paths, others, stuck)
    entries = {route[0] for route in _routes(found, stuck.route, stuck.next_route) if route}
    names = " or ".join(sorted(names_of(fleet.nodes, (node_id,)) for node_id in entries))
    interrupts = f"until {names}, where it comes in, has been told, nothing gets through, and nothing leaves elsewhere"
    return m.BindingPlan(stuck.device_id, stuck.route, "", stages, interrupts)


def _is_moved(fleet: FleetState, binding: Binding) -> bool:
    """Whether an operation is at it that is not over; and where that is not to be known."""
    moved = at_work(fleet, "path.switch")
    return moved is None or binding.device_id in moved


def _on_its_way(fleet: FleetState, found: Wired, binding: Binding) -> Conflict:
    remedy = "Wait for that operation or stop it: cox operations list"
    if not _is_moved(fleet, binding):
        remedy = "The operation that moved it failed. When its nodes are well, take that up again (cox operations retry)"
        remedy += (
            ", or take the device off both paths: cox paths unbind" if binding.next_route else "; a dead one can be disabled"
        )
    return Conflict(
        f"device {binding.device_id}: is on its way to {_path_name(found, binding.next_route)} already", remedy=remedy
    )


def _leaving_elsewhere(fleet: FleetState, entry: str, elsewhere: dict[str, list[str]]) -> str:
    names = sorted(names_of(fleet.nodes, (node_id,)) for node_id in elsewhere)
    profiles = sorted({profile for of_node in elsewhere.values() for profile in of_node})
    by = f" (by {'its profile' if len(profiles) == 1 else 'its profiles'} {_few(profiles)})" if profiles else ""
    here, there = names_of(fleet.nodes, (entry,)), _few(names)
    return (
        f"only what it sends to {here} goes over the path: it has keys for {there} as well{by}, and what it sends there "
        "leaves there"
    )


def _few(names: Sequence[str]) -> str:
    shown = list(names[:_FEW])
    return ", ".join([*shown, f"{len(names) - _FEW} more"] if len(names) > _FEW else shown)


def _told_later(fleet: FleetState, old: Sequence[str]) -> str:
    entry, there = (names_of(fleet.nodes, (node_id,)) for node_id in old[:2])
    return (
        f"{entry} is disabled, and is told of it when it is enabled again; what still comes in there until then gets no "
        f"further than to {there}"
    )


def _binding(fleet: FleetState, found: Wired, device_id: str) -> Binding:
    """As it is; a device that is not bound is settled on no path. Raises ``NotFound``."""
    known = next((b for b in found.bindings if b.id == device_id), None)
    if known is not None:
        return known
    with fleet.store.read() as tx:
        if not tx.execute("SELECT id FROM devices WHERE id = ?", (device_id,)):
            raise NotFound(f"device: there is no device with the id {device_id[:80]!r}", remedy="See: cox devices list")
    return Binding(device_id, device_id, version=0)


def _routes(found: Wired, old: str, new: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As node ids; no path is the entry alone."""
    before = found.paths[old].route if old else ()
    after = found.paths[new].route if new else ()
    return before or after[:1], after or before[:1]


def _path_name(found: Wired, path_id: str) -> str:
    return f"path {found.paths[path_id].name}" if path_id in found.paths else "no path"


def _view(fleet: FleetState, found: Wired, binding: Binding, *, back: bool = False) -> m.BindingView:
    if binding.phase is Phase.SETTLED:
        return m.BindingView(binding.device_id, binding.route, version=binding.version)
    old, new = _routes(found, binding.route, binding.next_route)
    nodes = awaited(fleet, old, new, binding.phase, back=back)
    return m.BindingView(
        device_id=binding.device_id,
        route=binding.route,
        next_route=binding.next_route,
        phase=binding.phase,
        phases=way(old, new),
        waiting=tuple(reason for node_id in nodes if (reason := not_ready(fleet, found, node_id))),
        version=binding.version,
    )


def way_back(fleet: FleetState, binding: Binding) -> Sequence[str]:
    """Whom a device waits for that is on its way, to be where it came from."""
    old, new = _routes(wired(fleet), binding.route, binding.next_route)
    return awaited(fleet, old, new, binding.phase, back=True)


def awaited(fleet: FleetState, old: Sequence[str], new: Sequence[str], phase: Phase, *, back: bool = False) -> Sequence[str]:
    """Those whom a stage concerns, without such as an operator switched off, where nothing leaves at a wrong place for it.

    Whoever is taken off a path is told to leave at the entry; an entry that has not heard of it sends on what the next node
    does not take. So does, on the way back, a node where two ways part that both go on from there, and do not cross.
    """
    nodes = concerned(old, new, phase, back=back)
    goes_on = len(new) > parting(old, new) + 1 and not crossing(old, new)
    if len(new) == 1 or (back and goes_on):
        return [node_id for node_id in nodes if fleet.nodes[node_id].enabled]
    return nodes


def concerned(old: Sequence[str], new: Sequence[str], phase: Phase, *, back: bool = False) -> Sequence[str]:
    """Whom a stage waits for. Never for nodes of the old route alone: they may be why it is left. On the way back never for
    those of the new one alone: they may be why it is taken back, and nothing that was changed behind the parting stands on
    them any more once those that both routes use have turned.
    """
    if back:
        return sorted(crossing(old, new) | set(old[: parting(old, new) + 1][-1:]))
    if old[:1] != new[:1]:
        return new
    if phase is Phase.PREPARING:
        return new
    if phase is Phase.MOVED:
        return (old[parting(old, new)],)
    return sorted(crossing(old, new))


def not_ready(fleet: FleetState, found: Wired, node_id: str) -> str:
    """Why a node has not all that it should have for its paths; empty: it has."""
    node, view = fleet.nodes[node_id], fleet.views.get(node_id)
    if not node.enabled:
        return f"{node.name} is disabled"
    if view is None or view.link_state in (LinkState.BACKING_OFF, LinkState.CONNECTING, LinkState.DISABLED):
        return f"{node.name} is not connected{f': {view.reason}' if view and view.reason else ''}"
    if view.cascade_applied == found.cascade.of(node_id).fingerprint:
        return ""
    return f"{node.name} has not acknowledged its part{f': {view.reason}' if view.reason else ''}"


CHANGES: dict[type, Handler] = {m.StageBinding: _stage, m.SettleBinding: _settle, m.NoteBinding: _note}
QUESTIONS: dict[type, Handler] = {m.GetBinding: _get, m.ListBindings: _list, m.PlanBinding: _plan}
