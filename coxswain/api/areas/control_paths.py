"""Control paths: by which relays the controller reaches its nodes and machines (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api.bodies import one_line
from coxswain.api.call import Call
from coxswain.api.paging import PAGE, page_of
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import BOOL, INT, TEXT, array, limited, nullable, obj, shape
from coxswain.control_path.model import MAX_HOPS, unfit
from coxswain.errors import Conflict, Refused
from coxswain.messages import control_paths as m
from coxswain.messages import fleet
from coxswain.model import LinkState, Node
from coxswain.servers import Relay, relay_host

__all__ = ["CONTROL_PATH", "ROUTES"]

_HOP = obj({"id": TEXT, "name": TEXT, "region": TEXT, "host": TEXT, "problem": TEXT})
CONTROL_PATH = shape(
    "ControlPath",
    obj(
        {
            "id": TEXT,
            "name": TEXT,
            "hops": array(TEXT),
            "chain": array(_HOP),
            "active": BOOL,
            "route": TEXT | {"description": "direct, egress or onion; empty: it cannot be taken just now, see problem"},
            "problem": TEXT,
            "version": INT,
        }
    ),
)

_PROBE_NODES = 3
_CONNECTED = (LinkState.LIVE, LinkState.DEGRADED, LinkState.SYNCING)


def control_path_view(view: m.ControlPathView) -> dict[str, Any]:
    path = view.path
    return {
        "id": path.id,
        "name": path.name,
        "hops": list(path.hops),
        "chain": [_hop(hop, relay) for hop, relay in zip(path.hops, view.relays, strict=True)],
        "active": path.is_active,
        "route": view.route.kind if view.route is not None else "",
        "problem": view.problem,
        "version": path.version,
    }


def _hop(relay_id: str, relay: Relay | None) -> dict[str, Any]:
    if relay is None:
        return {"id": relay_id, "name": "", "region": "", "host": "", "problem": "is gone"}
    return {
        "id": relay.id,
        "name": relay.name,
        "region": relay.region,
        "host": relay_host(relay),
        "problem": unfit(relay),
    }


def _path(call: Call) -> m.ControlPathView:
    found: m.ControlPathView = call.ask("servers", m.GetControlPath(one_line("control path", call.path["id"])))
    return found


def _list(call: Call) -> Any:
    return page_of(call, call.ask("servers", m.ListControlPaths()), lambda view: str(view.path.id), control_path_view)


def _show(call: Call) -> Any:
    return control_path_view(_path(call))


def _add(call: Call) -> Any:
    message = m.AddControlPath(call.caller, call.body.need("name", str), tuple(call.body.texts("hops") or ()))
    return control_path_view(call.change("servers", message))


def _edit(call: Call) -> Any:
    body = call.body
    hops = body.texts("hops")
    message = m.EditControlPath(
        call.caller,
        _path(call).path.id,
        body.get("name", str),
        None if hops is None else tuple(hops),
        body.get("version", int),
    )
    return control_path_view(call.change("servers", message))


def _activate(call: Call) -> Any:
    """The probe is on this worker's time, and holds nobody else up; what it was about is compared again with the change."""
    view, body = _path(call), call.body
    path = view.path
    call.check_version(f"control path {path.name}", path.version)
    if path.is_active:
        raise Conflict(f"control path {path.name}: it is the active one already")
    if view.route is None:
        raise Refused(f"control path {path.name}: {view.problem}")
    probed = "forced" if body.get("force", bool) else ""
    if path.hops and not probed:
        probed = call.services.probe_route(view.route, _to_reach(call))
    allow_direct = body.get("allow_direct", bool) or False
    message = m.ActivateControlPath(call.caller, path.id, path.version, allow_direct=allow_direct, probed=probed)
    return control_path_view(call.change("servers", message))


def _to_reach(call: Call) -> list[Node]:
    """A few nodes of which one has to be reached: connected ones, if any is."""
    views: list[fleet.NodeView] = call.ask("fleet", fleet.ListNodes())
    fit = [view for view in views if view.node.enabled and view.node.control_addr and view.node.server_names]
    fit.sort(key=lambda view: (view.link_state not in _CONNECTED, view.node.id))
    return [view.node for view in fit[:_PROBE_NODES]]


def _deactivate(call: Call) -> Any:
    body = call.body
    message = m.DeactivateControlPath(call.caller, body.get("allow_direct", bool) or False, body.get("version", int))
    return control_path_view(call.change("servers", message))


def _delete(call: Call) -> None:
    allow_direct = call.flag("allow_direct") or False
    path = _path(call).path
    call.change("servers", m.RemoveControlPath(call.caller, path.id, call.number("version"), allow_direct=allow_direct))


_ALLOW = "the controller may dial directly from now on, and be seen by every node"
_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))

ROUTES = (
    Route(
        "GET",
        "/api/control-paths",
        Scope.READONLY,
        "All control paths, oldest first. None active: nodes are dialled directly.",
        _list,
        returns=array(CONTROL_PATH),
        query=PAGE,
        also=(404,),
    ),
    Route(
        "POST",
        "/api/control-paths",
        Scope.ADMIN,
        f"Makes a control path over at most {MAX_HOPS} relays with an egress role; none: directly. It is not active yet.",
        _add,
        audit="control_path.add",
        target="control_path",
        returns=CONTROL_PATH,
        status=201,
        body=obj({"name": TEXT}, {"hops": array(TEXT)}),
    ),
    Route("GET", "/api/control-paths/{id}", Scope.READONLY, "One control path.", _show, returns=CONTROL_PATH),
    Route(
        "PATCH",
        "/api/control-paths/{id}",
        Scope.ADMIN,
        "Renames a control path, or gives one that is not active other hops.",
        _edit,
        audit="control_path.update",
        target="control_path",
        returns=CONTROL_PATH,
        body=obj({}, {"name": TEXT, "hops": array(TEXT), "version": nullable(INT)}),
    ),
    Route(
        "POST",
        "/api/control-paths/deactivate",
        Scope.ADMIN,
        "Back to dialling directly, on purpose: refused without allow_direct.",
        _deactivate,
        audit="control_path.deactivate",
        target="control_path",
        returns=CONTROL_PATH,
        body=obj({}, {"allow_direct": BOOL | {"description": _ALLOW}, "version": nullable(INT)}),
    ),
    Route(
        "POST",
        "/api/control-paths/{id}/activate",
        Scope.ADMIN,
        "Moves every connection to this path. First its hops have to answer, and a node through them, unless forced.",
        _activate,
        audit="control_path.activate",
        target="control_path",
        returns=CONTROL_PATH,
        also=(502,),
        body=obj({}, {"force": BOOL, "allow_direct": BOOL | {"description": _ALLOW}, "version": nullable(INT)}),
        waits_for_node=True,
    ),
    Route(
        "DELETE",
        "/api/control-paths/{id}",
        Scope.ADMIN,
        "Removes a control path. The active one only with allow_direct.",
        _delete,
        audit="control_path.rm",
        target="control_path",
        status=204,
        query=(_VERSION, Param("allow_direct", _ALLOW, {"type": "boolean"})),
    ),
)
