"""Paths, links between nodes, and who goes over which path (management-plane.md 3.2, 3.3; fleet-model.md 6.9).

Building a path and moving a device are operations (``coxswain.api.waiting``).
"""

from __future__ import annotations

from typing import Any

from coxswain.api.bodies import naming, one_line
from coxswain.api.call import ALL, Call
from coxswain.api.paging import LIMIT
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp
from coxswain.api.waiting import run_operation
from coxswain.cascade.health import LinkHealth
from coxswain.cascade.types import PathStatus, Phase
from coxswain.messages import exits as x
from coxswain.messages import paths as m
from coxswain.operations import Operation

__all__ = ["ROUTES"]

_POLL_S = 0.1

NODE_LINK = shape(
    "NodeLink",
    obj(
        {
            "id": TEXT,
            "entry_node_id": TEXT,
            "exit_node_id": TEXT,
            "status": choice("pending", "active"),
            "color": TEXT,
            "interface": TEXT,
            "listen_port": INT,
            "mark": INT,
            "mtu": INT,
            "endpoint": TEXT,
            "waiting": TEXT,
            "health": choice(*(health.value for health in LinkHealth)),
            "last_handshake": nullable(STAMP),
        }
    ),
)
PATH_EXIT = shape(
    "PathExit",
    obj(
        {
            "node_id": TEXT,
            "node": TEXT,
            "fallback": BOOL,
            "next_node_id": TEXT,
            "phase": choice(*(phase.value for phase in Phase)),
            "automatic": BOOL,
            "reason": TEXT,
            "since": nullable(STAMP),
        }
    ),
)
PATH = shape(
    "Path",
    obj(
        {
            "id": TEXT,
            "name": TEXT,
            "color": TEXT,
            "status": choice(*(status.value for status in PathStatus)),
            "hops": array(TEXT),
            "nodes": array(TEXT),
            "fallbacks": array(TEXT),
            "fallback_nodes": array(TEXT),
            "exit": PATH_EXIT,
            "mtu": INT,
            "devices": INT,
            "profiles": INT,
            "problems": array(TEXT),
            "links": array(NODE_LINK),
            "version": INT,
            "created_at": nullable(STAMP),
            "updated_at": nullable(STAMP),
        }
    ),
)
PATH_PLAN = shape("PathPlan", obj({"steps": array(TEXT), "mtu": INT, "notes": array(TEXT)}))
_PHASES = choice(*(phase.value for phase in Phase))
BINDING = shape(
    "Binding",
    obj(
        {
            "device_id": TEXT,
            "path_id": TEXT,
            "next_path_id": TEXT,
            "phase": _PHASES,
            "waiting": array(TEXT),
            "version": INT,
        }
    ),
)
_STAGE = shape("BindingStage", obj({"phase": _PHASES, "title": TEXT, "changes": array(TEXT)}))
BINDING_PLAN = shape(
    "BindingPlan",
    obj(
        {
            "device_id": TEXT,
            "path_id": TEXT,
            "next_path_id": TEXT,
            "stages": array(_STAGE),
            "interrupts": TEXT,
            "notes": array(TEXT),
        }
    ),
)


# -- views


def _path(view: m.PathView) -> dict[str, Any]:
    path = view.path
    return {
        "id": path.id,
        "name": path.name,
        "color": path.color,
        "status": view.status.value,
        "hops": list(path.hops),
        "nodes": list(view.nodes),
        "fallbacks": list(path.fallbacks),
        "fallback_nodes": list(view.fallbacks),
        "exit": _exit(view),
        "mtu": view.mtu,
        "devices": view.devices,
        "profiles": view.profiles,
        "problems": list(view.problems),
        "links": [_link(link) for link in view.links],
        "version": path.version,
        "created_at": stamp(path.created_at),
        "updated_at": stamp(path.updated_at),
    }


def _exit(view: m.PathView) -> dict[str, Any]:
    path, detour = view.path, view.path.detour
    settled = detour.phase is Phase.SETTLED
    return {
        "node_id": path.route[-1],
        "node": view.exit,
        "fallback": bool(detour.exit),
        "next_node_id": "" if settled else path.next_route[-1],
        "phase": detour.phase.value,
        "automatic": detour.automatic,
        "reason": detour.reason,
        "since": stamp(detour.moved_at),
    }


def _link(view: m.LinkView) -> dict[str, Any]:
    link = view.link
    return {
        "id": link.id,
        "entry_node_id": link.entry_node_id,
        "exit_node_id": link.exit_node_id,
        "status": "active" if view.active else "pending",
        "color": link.color,
        "interface": link.interface,
        "listen_port": link.listen_port,
        "mark": link.mark,
        "mtu": link.mtu,
        "endpoint": view.endpoint,
        "waiting": view.waiting,
        "health": view.health.value,
        "last_handshake": stamp(view.handshake_at),
    }


def _binding(view: m.BindingView) -> dict[str, Any]:
    return {
        "device_id": view.device_id,
        "path_id": view.route,
        "next_path_id": view.next_route,
        "phase": view.phase.value,
        "waiting": list(view.waiting),
        "version": view.version,
    }


# -- paths


def _list(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    found = call.ask("fleet", m.ListPaths(call.word("after") or "", limit + 1))
    page = [_path(view) for view in found[:limit]]
    return Reply(page, after=page[-1]["name"] if len(found) > limit else None)


def _show(call: Call) -> Any:
    return _path(_view(call))


def _add(call: Call) -> Any:
    body = call.body
    name, nodes = body.need("name", str), tuple(body.texts("node_ids") or ())
    color, patience = body.get("color", str) or "", _patience(call)
    fallbacks = tuple(body.texts("fallback_ids") or ())
    with naming("node_ids"):  # what cannot be is refused at once, and not after an operation
        call.ask("fleet", m.PlanPath(name, nodes, fallbacks))
    params = {"name": name, "nodes": list(nodes), "color": color, "fallbacks": list(fallbacks)} | patience
    return run_operation(call, "path.add", params, lambda made: _path(call.ask("fleet", m.GetPath(made.target_id))))


def _edit(call: Call) -> Any:
    body = call.body
    fallbacks = body.texts("fallback_ids")
    message = m.EditPath(
        call.caller,
        _view(call).path.id,
        body.need("version", int),
        body.get("name", str),
        body.get("color", str),
        None if fallbacks is None else tuple(fallbacks),
    )
    return _path(call.change("fleet", message))


def _remove(call: Call) -> None:
    call.change("fleet", m.RemovePath(call.caller, _view(call).path.id, call.number("version")))


def _provision(call: Call) -> Any:
    path = _view(call).path
    params = {"path_id": path.id} | _patience(call)
    call.ask("fleet", m.LookAtPath(path.id))  # what cannot be is refused at once

    def render(_done: Operation) -> Any:
        return _path(call.ask("fleet", m.GetPath(path.id)))

    return run_operation(call, "path.provision", params, render, seen=call.seen("path", path.id, path.name))


def _leave_at(call: Call) -> Any:
    node = call.body.get("node", str) or ""
    path = _view(call).path
    now: x.ExitView = call.ask("fleet", x.CheckExit(path.id, one_line("node", node) if node else ""))
    seen = call.seen("path", path.id, path.name)

    def render(_done: Operation | None = None) -> Any:
        return _path(call.ask("fleet", m.GetPath(path.id)))

    if now.exit == now.wanted:
        call.change("fleet", x.NoteExit(call.caller, path.id, seen))
        return render()
    params = {"path_id": path.id, "node_id": now.wanted, "reason": f"{call.caller.actor} asked for it"[:200]}
    return run_operation(call, "path.exit", params | _patience(call), render, seen=seen)


def _plan(call: Call) -> Any:
    nodes, fallbacks = (tuple(call.body.texts(name) or ()) for name in ("node_ids", "fallback_ids"))
    message = m.PlanPath(call.body.get("name", str) or "", nodes, fallbacks)
    with naming("node_ids"):
        plan: m.PathPlan = call.ask("fleet", message)
    return {"steps": list(plan.steps), "mtu": plan.mtu, "notes": list(plan.notes)}


def _links(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    found = call.ask("fleet", m.ListNodeLinks(call.word("after") or "", limit + 1))
    page = [_link(view) for view in found[:limit]]
    return Reply(page, after=page[-1]["id"] if len(found) > limit else None)


# -- bindings


def _bindings(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    path = call.word("path")
    path_id = call.ask("fleet", m.GetPath(path)).path.id if path else ""
    found = call.ask("fleet", m.ListBindings(call.word("after") or "", limit + 1, path_id))
    page = [_binding(view) for view in found[:limit]]
    return Reply(page, after=page[-1]["device_id"] if len(found) > limit else None)


def _binding_of(call: Call) -> Any:
    return _binding(call.ask("fleet", m.GetBinding(_device(call))))


def _bind(call: Call) -> Any:
    path = one_line("path_id", call.body.need("path_id", str))
    call.ask("fleet", m.GetBinding(_device(call)))  # which of both is not there, that of the address is said first
    with naming("path_id"):
        view: m.PathView = call.ask("fleet", m.GetPath(path))
    return _move(call, view.path.id)


def _unbind(call: Call) -> Any:
    return _move(call, "")


def _move(call: Call, path_id: str) -> Any:
    device_id = _device(call)
    now: m.BindingView = call.ask("fleet", m.GetBinding(device_id))
    seen = call.seen("binding", device_id, f"of {device_id}")
    if now.phase is Phase.SETTLED and now.route == path_id:
        call.change("fleet", m.NoteBinding(call.caller, device_id, path_id, seen))
        return Reply(status=204)
    call.ask("fleet", m.PlanBinding(device_id, path_id))
    params = {"device_id": device_id, "path_id": path_id} | _patience(call)
    return run_operation(call, "path.switch", params, lambda _done: None, seen=seen)


def _plan_binding(call: Call) -> Any:
    plan: m.BindingPlan = call.ask("fleet", m.PlanBinding(_device(call), call.body.get("path_id", str) or ""))
    return {
        "device_id": plan.device_id,
        "path_id": plan.route,
        "next_path_id": plan.next_route,
        "stages": [
            {"phase": stage.phase.value, "title": stage.title, "changes": list(stage.changes)} for stage in plan.stages
        ],
        "interrupts": plan.interrupts,
        "notes": list(plan.notes),
    }


def _patience(call: Call) -> dict[str, Any]:
    given = call.number("patience", None, low=1, high=3600)
    return {} if given is None else {"patience_s": given}


def _view(call: Call) -> m.PathView:
    view: m.PathView = call.ask("fleet", m.GetPath(one_line("path", call.path["key"])))
    return view


def _device(call: Call) -> str:
    return one_line("device", call.path["key"])


_READ, _ADMIN = Scope.READONLY, Scope.ADMIN
_PATIENCE = Param("patience", "for how many seconds each stage waits for its nodes; absent: 45", limited(1, 3600))
_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
_SEEN = {"version": nullable(INT)}
_LATER = (202, 404, 409, 502)

ROUTES = (
    Route(
        "GET", "/api/paths", _READ, "All paths, by name.", _list, returns=array(PATH),
        query=(Param("after", "the cursor of the page before: a name"), LIMIT),
    ),
    Route(
        "POST", "/api/paths", _ADMIN, "Builds a path over 2 or 3 nodes, the entry first; what fails is taken back.", _add,
        "path.create", "path", PATH, 201, _LATER,
        obj({"name": TEXT, "node_ids": array(TEXT)}, {"color": TEXT, "fallback_ids": array(TEXT)}), (_PATIENCE,),
        waits_for_node=True,
    ),
    Route(
        "POST", "/api/paths/plan", _READ, "What building a path would do.", _plan, returns=PATH_PLAN,
        body=obj({"node_ids": array(TEXT)}, {"name": TEXT, "fallback_ids": array(TEXT)}), also=(404, 409),
    ),
    Route("GET", "/api/paths/{key}", _READ, "One path, by id or name.", _show, returns=PATH, also=(404,)),
    Route(
        "PATCH", "/api/paths/{key}", _ADMIN, "Changes name, colour or fallbacks of a path.", _edit, "path.update", "path",
        PATH, body=obj({"version": INT}, {"name": TEXT, "color": TEXT, "fallback_ids": array(TEXT)}), also=(404, 409),
    ),
    Route(
        "DELETE", "/api/paths/{key}", _ADMIN, "Removes a path that nobody uses, and the links that only it needed.", _remove,
        "path.rm", "path", status=204, query=(_VERSION,), also=(404, 409),
    ),
    Route(
        "POST", "/api/paths/{key}/provision", _ADMIN, "Has the nodes of a path looked at, and waits until it is in place.",
        _provision, "path.provision", "path", PATH, 200, _LATER, obj({}, _SEEN), (_PATIENCE,), waits_for_node=True,
    ),
    Route(
        "POST", "/api/paths/{key}/exit", _ADMIN,
        "Has a path leave at one of its fallbacks; without a node at its own exit again. The new way carries first.",
        _leave_at, "path.exit", "path", PATH, 200, _LATER, obj({}, {"node": TEXT} | _SEEN), (_PATIENCE,),
        waits_for_node=True,
    ),
    Route(
        "GET", "/api/node-links", _READ, "The links between nodes.", _links, returns=array(NODE_LINK),
        query=(Param("after", "the cursor of the page before: an id"), LIMIT),
    ),
    Route(
        "GET", "/api/bindings", _READ, "Devices that are bound to a path, by id.", _bindings, returns=array(BINDING),
        query=(
            Param("path", "only those of this path, by id or name"),
            Param("after", "the cursor of the page before: a device id"),
            LIMIT,
        ),
        also=(404,),
    ),
    Route(
        "GET", "/api/devices/{key}/bind", _READ, "Which path a device is bound to.", _binding_of, returns=BINDING,
        also=(404,),
    ),
    Route(
        "POST", "/api/devices/{key}/bind", _ADMIN, "Moves a device's traffic to a path; the new one carries first.", _bind,
        "path.bind", "device", None, 204, _LATER, obj({"path_id": TEXT}, _SEEN), (_PATIENCE,), waits_for_node=True,
    ),
    Route(
        "DELETE", "/api/devices/{key}/bind", _ADMIN, "Takes a device's traffic off its path.", _unbind, "path.unbind",
        "device", None, 204, _LATER, None, (_VERSION, _PATIENCE), waits_for_node=True,
    ),
    Route(
        "POST", "/api/devices/{key}/bind/plan", _READ, "What moving a device's traffic would do, stage by stage.",
        _plan_binding, returns=BINDING_PLAN, body=obj({}, {"path_id": TEXT}), also=(404, 409),
    ),
)  # fmt: skip
