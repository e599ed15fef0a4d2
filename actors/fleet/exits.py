"""At which of its exits a path leaves, and its way from one to another, stage by stage (``coxswain.cascade.stages``).

As with bindings, each stage is durable, and says by itself what every node has to have. All of the path goes along: devices
that are bound to it, and profiles that lead over it.
"""

from __future__ import annotations

import dataclasses

from actors.fleet.bindings import awaited, not_ready
from actors.fleet.failover import trouble
from actors.fleet.paths import check_enabled, find_path, said_of_leaving
from actors.fleet.state import FleetState, Handler
from actors.fleet.wiring import Wired, install, rewired, wired
from coxswain.audit import record
from coxswain.cascade.resources import check_joint
from coxswain.cascade.types import Detour, Path, Phase
from coxswain.errors import Conflict, InvalidInput
from coxswain.messages import exits as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.store import paths as rows
from coxswain.store.versions import expect

__all__ = ["CHANGES", "QUESTIONS"]


# -- changes


def _stage(fleet: FleetState, message: m.StageExit) -> Committed[m.ExitView]:
    found = wired(fleet)
    path = find_path(found, message.path_id)
    to, now = _stored(path, message.node_id), path.detour
    started = now.phase is not Phase.SETTLED
    if started and now.next_exit != to:
        raise _on_its_way(path)
    if started and now.phase is message.phase:
        return Committed(_view(fleet, found, path), 0)
    if not started:
        _check(fleet, found, path, message.node_id, automatic=message.automatic)
    after = dataclasses.replace(path, detour=dataclasses.replace(now, next_exit=to, phase=message.phase))
    with fleet.changing() as tx:
        rows.put_detour(tx, path.id, after.detour)
        wires = rewired(fleet, tx)
        outbox_id = 0
        if not started:
            outbox_id = record(
                tx,
                message.caller,
                "path.failover" if to else "path.failback",
                ("path", path.id),
                _detail(fleet, path, message),
                now=fleet.now(),
            )
    return _changed(fleet, wires, after, outbox_id, message.reason)


def _settle(fleet: FleetState, message: m.SettleExit) -> Committed[m.ExitView]:
    found = wired(fleet)
    path = find_path(found, message.path_id)
    if not message.forward and message.node_id not in (path.exit, *path.fallbacks):
        return Committed(_view(fleet, found, path), 0)  # it is no exit any more, so nothing is on its way there
    to, now = _stored(path, message.node_id), path.detour
    if now.phase is Phase.SETTLED or now.next_exit != to:
        return Committed(_view(fleet, found, path), 0)
    here = dataclasses.replace(now, next_exit="", phase=Phase.SETTLED)
    if message.forward:
        here = Detour(to, automatic=message.automatic, reason=message.reason, moved_at=fleet.now())
    after = dataclasses.replace(path, detour=here)
    with fleet.changing() as tx:
        rows.put_detour(tx, path.id, after.detour)
        wires = rewired(fleet, tx)
        outbox_id = 0
        if not message.forward:
            outbox_id = record(
                tx,
                message.caller,
                "path.failover" if to else "path.failback",
                ("path", path.id),
                _detail(fleet, path, message) | {"taken_back": True},
                now=fleet.now(),
                error="it could not be carried out, and was taken back",
            )
    fleet.exits.over(path.id, message.node_id, fleet.now(), well=message.forward)
    return _changed(fleet, wires, after, outbox_id, after.detour.reason)


def _note(fleet: FleetState, message: m.NoteExit) -> Committed[None]:
    path = find_path(wired(fleet), message.path_id)
    with fleet.changing() as tx:
        expect(tx, message.seen)
        detail = {"name": path.name, "exit": fleet.nodes[path.route[-1]].name, "unchanged": True}
        outbox_id = record(tx, message.caller, "path.exit", ("path", path.id), detail, now=fleet.now())
    fleet.context.tell("audit_writer", OutboxGrew())
    return Committed(None, outbox_id)


def _changed(fleet: FleetState, after: Wired, path: Path, outbox_id: int, reason: str) -> Committed[m.ExitView]:
    """``reason``: why it is on its way, or where it is."""
    install(fleet, after)
    fleet.context.tell("audit_writer", OutboxGrew())
    data = {
        "path_id": path.id,
        "name": path.name,
        "exit_node_id": path.route[-1],
        "next_exit_node_id": path.next_route[-1],
        "phase": path.detour.phase.value,
        "reason": reason,
    }
    fleet.context.tell("event_hub", Publish("path.exit", fleet.now(), data))
    return Committed(_view(fleet, after, path), outbox_id)


def _detail(fleet: FleetState, path: Path, message: m.StageExit | m.SettleExit) -> dict[str, object]:
    return {
        "name": path.name,
        "from": fleet.nodes[path.route[-1]].name,
        "to": fleet.nodes[message.node_id].name,
        "automatic": message.automatic,
        "reason": message.reason,
    }


def _check(fleet: FleetState, found: Wired, path: Path, node_id: str, *, automatic: bool = False) -> None:
    """May it leave there, where it does not leave yet? Raises ``Conflict``.

    A device that is on its way keeps an operator waiting, for seconds. One whose way ended in its middle must not keep
    everybody else on an exit that is gone; at each stage it has one whole way from wherever the path leaves.
    """
    if path.detour.phase is not Phase.SETTLED:
        raise _on_its_way(path)
    for binding in () if automatic else found.bindings:
        if binding.phase is not Phase.SETTLED and path.id in (binding.route, binding.next_route):
            raise Conflict(
                f"path {path.name}: device {binding.device_id} is on its way to it or from it",
                remedy="Wait for that operation or stop it: cox operations list",
            )
    before, leaving = fleet.nodes[path.hops[-2]], fleet.nodes[node_id]
    check_joint(before, leaving)
    if not automatic:  # which does not go to a disabled one, and notes why it could not
        check_enabled(fleet, (*path.hops[:-1], node_id))
    if not leaving.policy.forwarding:
        raise Conflict(
            f"node {leaving.name}: forwarding is off; nothing would leave there",
            remedy=f"Switch it on: cox nodes edit {leaving.name} --forwarding",
        )


def _on_its_way(path: Path) -> Conflict:
    return Conflict(
        f"path {path.name}: is on its way to another exit already",
        remedy="Wait for that operation or stop it: cox operations list",
    )


def _stored(path: Path, node_id: str) -> str:
    """As a detour names it. Raises ``InvalidInput``."""
    if node_id == path.exit:
        return ""
    if node_id not in path.fallbacks:
        raise InvalidInput(f"node: {node_id[:80]!r} is no exit of path {path.name}")
    return node_id


# -- questions


def _ask_check(fleet: FleetState, message: m.CheckExit) -> m.ExitView:
    found = wired(fleet)
    path = find_path(found, message.key)
    wanted = fleet.find(message.node).id if message.node else path.exit
    if wanted not in (path.exit, *path.fallbacks):
        names = ", ".join(fleet.nodes[node_id].name for node_id in (path.exit, *path.fallbacks))
        raise InvalidInput(
            f"node: {message.node[:80]!r} is no exit of path {path.name}; it has {names}",
            remedy=f"Name more of them: cox paths edit {path.name} --fallback A,B",
        )
    if path.detour.phase is not Phase.SETTLED:
        raise _on_its_way(path)
    if wanted != path.route[-1]:
        _check(fleet, found, path, wanted)
    return dataclasses.replace(_view(fleet, found, path), wanted=wanted)


def _get(fleet: FleetState, message: m.GetExit) -> m.ExitView:
    found = wired(fleet)
    return _view(fleet, found, find_path(found, message.path_id), back=message.back)


def _view(fleet: FleetState, found: Wired, path: Path, *, back: bool = False) -> m.ExitView:
    detour = path.detour
    if detour.phase is Phase.SETTLED:
        return m.ExitView(path.id, path.route[-1], detour=detour)
    nodes = awaited(fleet, path.route, path.next_route, detour.phase, back=back)
    waiting = tuple(reason for node_id in nodes if (reason := not_ready(fleet, found, node_id)))
    notes = tuple(filter(None, [said_of_leaving(fleet.nodes[path.next_route[-1]])]))
    return m.ExitView(path.id, path.route[-1], path.next_route[-1], detour, waiting, notes)


def _trouble(fleet: FleetState, _message: m.ListExitTrouble) -> tuple[m.ExitTrouble, ...]:
    return trouble(fleet)


CHANGES: dict[type, Handler] = {m.StageExit: _stage, m.SettleExit: _settle, m.NoteExit: _note}
QUESTIONS: dict[type, Handler] = {m.CheckExit: _ask_check, m.GetExit: _get, m.ListExitTrouble: _trouble}
