"""Machines: onboarding, trust, and what is deployed on them (management-plane.md 3.2, 3.3, 3.6)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from coxswain.api import views
from coxswain.api.areas.nodes import CLIENTS, NODE, WHERE, may_drop_clients
from coxswain.api.areas.operations import secrets_of
from coxswain.api.areas.relays import RELAY, relay_view
from coxswain.api.bodies import one_line
from coxswain.api.call import Call
from coxswain.api.paging import PAGE, page_of
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import BOOL, INT, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.waiting import check_not_set_up, run_operation
from coxswain.errors import InvalidInput
from coxswain.messages import servers as m
from coxswain.messages.access import RecordAction
from coxswain.messages.fleet import ListNodes, NodeView, RemoveNode
from coxswain.onboarding.beforehand import check_node, check_relay, check_route, check_server
from coxswain.onboarding.relay import check_relay_params
from coxswain.onboarding.sources import Sources
from coxswain.operations.model import Operation
from coxswain.servers import Relay, Server, check_ssh_host, check_ssh_port
from coxswain.ssh.hostkey import fingerprint_of

if TYPE_CHECKING:
    from coxswain.geoip import Location

__all__ = ["ROUTES", "SERVER", "server_view", "sources"]

SERVER = shape(
    "Server",
    obj(
        {
            "id": TEXT,
            "name": TEXT,
            "region": TEXT,
            "ssh_host": TEXT,
            "ssh_user": TEXT,
            "ssh_port": INT,
            "host_key": TEXT,
            "offered_host_key": TEXT,
            "is_self": BOOL,
            "status": TEXT,
            "facts": {"type": "object"},
            "version": INT,
        },
        WHERE,
    ),
)
SELF = shape(
    "Self",
    obj(
        {"name": TEXT, "status": TEXT, "public_ip": TEXT | {"description": "empty: unknown; nobody outside is asked"}},
        WHERE,
    ),
)
_ROUTE_KEYS = {"route": array(TEXT)}
_SOURCE_KEYS = {"binary_path": TEXT, "url": TEXT, "sha256": TEXT}


def server_view(server: Server, located: Mapping[str, Location] = MappingProxyType({})) -> dict[str, Any]:
    """Host keys as fingerprints; empty: none. ``located``: hosts whose place is known."""
    return views.where(located.get(server.ssh_host)) | {
        "id": server.id,
        "name": server.name,
        "region": server.region,
        "ssh_host": server.ssh_host,
        "ssh_user": server.ssh_user,
        "ssh_port": server.ssh_port,
        "host_key": fingerprint_of(server.ssh_host_key) if server.ssh_host_key else "",
        "offered_host_key": fingerprint_of(server.offered_host_key) if server.offered_host_key else "",
        "is_self": server.is_self,
        "status": server.status,
        "facts": dict(server.facts),
        "version": server.version,
    }


def sources(call: Call) -> Sources:
    """Where programs come from, as the running configuration says."""
    return Sources(lambda name: str(call.services.setting(name)))


def _server(call: Call, key: str | None = None) -> Server:
    found: Server = call.ask("servers", m.GetServer(one_line("server", call.path["id"] if key is None else key)))
    return found


def _list(call: Call) -> Any:
    found: list[Server] = call.ask("servers", m.ListServers())
    located = call.locate(server.ssh_host for server in found)
    return page_of(call, found, lambda server: str(server.id), lambda server: server_view(server, located))


def _own(call: Call) -> Any:
    """The controller's own machine, as registered with ``servers self``; else what can be said without it."""
    own = next((server for server in call.ask("servers", m.ListServers()) if server.is_self), None)
    if own is None:
        return {"name": "controller", "status": "active", "public_ip": ""}
    address = own.ssh_host if _is_address(own.ssh_host) else ""
    return _placed(call, address) | {"name": own.name, "status": own.status, "public_ip": address}


def _placed(call: Call, host: str) -> dict[str, Any]:
    return views.where(call.locate([host]).get(host)) if host else {}


def _view(call: Call, server: Server) -> dict[str, Any]:
    return _placed(call, server.ssh_host) | server_view(server)


def _show(call: Call) -> Any:
    return _view(call, _server(call))


def _is_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def _add(call: Call) -> Any:
    body, configured = call.body, sources(call)
    secrets = secrets_of(call)
    host = check_ssh_host(body.need("ssh_host", str))
    port = check_ssh_port(body.get("ssh_port", int) or configured.ssh_port())
    route = list(body.texts("route") or ())
    check_server(call.ask, body.get("name", str) or "", host, port)
    check_route(call.ask, route)
    params = {
        "ssh_host": host,
        "ssh_user": body.get("ssh_user", str) or configured.ssh_user(),
        "ssh_port": port,
        "name": body.get("name", str) or "",
        "region": body.get("region", str) or "",
        "host_key": body.get("host_key", str) or "",
        "accept_new_host_key": body.get("accept_new_host_key", bool) or False,
        "route": route,
        "with_password": secrets.get("password") is not None,
    }

    def render(operation: Operation) -> Any:
        return _view(call, _server(call, str(operation.data["server_id"])))

    return run_operation(call, "server.add", params, render, secrets=secrets)


def _remove(call: Call) -> None:
    server = _server(call)
    call.check_version(f"server {server.name}", server.version)
    if not call.flag("empty") and not server.is_self:
        _clear(call, server)
    call.change("servers", m.RemoveServer(call.caller, server.id, call.number("version")))


def _clear(call: Call, server: Server) -> None:
    """Takes the records of what is on a machine out of the inventory (management-plane.md 3.2), after everything was asked
    that could refuse. What is used by clients is refused, with their number.
    """
    nodes: list[NodeView] = call.ask("fleet", ListNodes(server_id=server.id))
    relays: list[Relay] = call.ask("servers", m.ListRelays())
    on_it = [relay.id for relay in relays if relay.server_id == server.id]
    for view in nodes:
        check_not_set_up(call, "node.add", view.node.id)
    for relay_id in on_it:
        check_not_set_up(call, "relay.add", relay_id)
        call.ask("servers", m.CheckNoHop(relay_id))
    for view in nodes:
        call.change("fleet", RemoveNode(call.caller, view.node.id, clients=may_drop_clients(call)))
    for relay_id in on_it:
        call.change("servers", m.RemoveRelay(call.caller, relay_id))


def _edit(call: Call) -> Any:
    body = call.body
    words = {name: body.get(name, str) for name in ("name", "region", "ssh_host", "ssh_user")}
    message = m.EditServer(
        call.caller, _server(call).id, body.need("version", int), ssh_port=body.get("ssh_port", int), **words
    )
    return _view(call, call.change("servers", message))


def _trust(call: Call) -> Any:
    body = call.body
    message = m.TrustServer(call.caller, _server(call).id, body.need("host_key", str), body.get("version", int))
    return _view(call, call.change("servers", message))


def _self(call: Call) -> Any:
    return _view(call, call.change("servers", m.RegisterSelf(call.caller, call.body.get("host", str) or "")))


def _key(call: Call) -> Any:
    return {"public_key": call.ask("servers", m.GetSshIdentity()).public_line}


def _see(call: Call) -> Any:
    """What a host shows, before anybody trusts it: for the question that ``cox servers add`` asks."""
    body = call.body
    host = check_ssh_host(body.need("ssh_host", str))
    port = check_ssh_port(body.get("ssh_port", int) or sources(call).ssh_port())
    route = tuple(body.texts("route") or ())
    known: Server | None = call.ask("servers", m.FindServer(host, port))
    if known is not None and known.ssh_host_key:
        call.recorded = True  # nothing had to be done
        return {"host_key": fingerprint_of(known.ssh_host_key), "type": known.ssh_host_key.split()[0], "known": True}
    shown = call.services.see_host_key(host, port, route)
    call.change("access", RecordAction(call.caller, "server.host-key", ("server", f"{host}:{port}"), {"route": list(route)}))
    return {"host_key": fingerprint_of(shown), "type": shown.split()[0], "known": False}


def _deploy(call: Call) -> Any:
    body, server = call.body, _server(call)
    seen = call.seen("server", server.id, server.name)
    role = body.need("role", str)
    if role not in ("node", "relay"):
        raise InvalidInput(f"role: {role[:40]!r} is not node or relay")
    given = {name: body.get(key, str) for name, key in (("path", "binary_path"), ("url", "url"), ("sha256", "sha256"))}
    region = body.get("region", str) or server.region
    common: Mapping[str, Any] = {
        "server_id": server.id,
        "name": body.get("name", str) or "",
        "region": region,
        "route": list(body.texts("route") or ()),
    }
    check_route(call.ask, common["route"])
    roles = {
        "egress": body.get("egress", bool) or False,
        "onion": body.get("onion", bool) or False,
        "egress_port": body.get("egress_port", int) or 8456,
        "onion_port": body.get("onion_port", int) or 8457,
        "egress_hop": body.get("egress_hop", int) or 0,
        "no_ingress": body.get("no_ingress", bool) or server.is_self,
        "endpoint": body.get("endpoint", str) or "",
        "hostname": body.get("hostname", str) or server.ssh_host,
    }
    if role == "node":
        check_node(call.ask, server, common["name"])
        allowed = list(call.services.setting("node.control_from"))
        params = {**common, "source": sources(call).node(given).as_params(), "control_from": allowed}
        return run_operation(
            call, "node.add", params, lambda o: views.node(call.view(str(o.data["node_id"])), None), seen=seen
        )
    params = {**common, **roles, "source": sources(call).relay(given).as_params()}
    check_relay(call.ask, server, check_relay_params(params))
    return run_operation(call, "relay.add", params, lambda o: relay_view(call, str(o.data["relay_id"])), seen=seen)


_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))

ROUTES = (
    Route("GET", "/api/self", Scope.READONLY, "The controller's own machine.", _own, returns=SELF),
    Route(
        "GET",
        "/api/servers",
        Scope.READONLY,
        "All machines, oldest first.",
        _list,
        returns=array(SERVER),
        query=PAGE,
        also=(404,),
    ),
    Route("GET", "/api/servers/{id}", Scope.READONLY, "One machine.", _show, returns=SERVER, also=(404,)),
    Route(
        "POST",
        "/api/servers",
        Scope.ADMIN,
        "Onboards a machine, by the controller's key or a one-time password. Its host key has to be confirmed.",
        _add,
        audit="server.add",
        target="server",
        returns=SERVER,
        status=201,
        also=(202, 502, 503),
        body=obj(
            {"ssh_host": TEXT},
            {
                "name": TEXT,
                "region": TEXT,
                "ssh_user": TEXT,
                "ssh_port": INT,
                "password": TEXT,
                "host_key": TEXT,
                "accept_new_host_key": BOOL,
            }
            | _ROUTE_KEYS,
        ),
        waits_for_node=True,
    ),
    Route(
        "POST",
        "/api/servers/host-key",
        Scope.ADMIN,
        "The host key that a machine shows. Nothing is sent to it.",
        _see,
        audit="server.host-key",
        target="server",
        returns=obj({"host_key": TEXT, "type": TEXT, "known": BOOL}),
        also=(502,),
        body=obj({"ssh_host": TEXT}, {"ssh_port": INT} | _ROUTE_KEYS),
        waits_for_node=True,
    ),
    Route(
        "POST",
        "/api/servers/self",
        Scope.ADMIN,
        "Registers the controller's own machine.",
        _self,
        audit="server.self",
        target="server",
        returns=SERVER,
        body=obj({}, {"host": TEXT}),
    ),
    Route(
        "PATCH",
        "/api/servers/{id}",
        Scope.ADMIN,
        "Changes what is given of a machine; its host key stays pinned, at another address, too.",
        _edit,
        audit="server.update",
        target="server",
        returns=SERVER,
        body=obj({"version": INT}, {"name": TEXT, "region": TEXT, "ssh_host": TEXT, "ssh_user": TEXT, "ssh_port": INT}),
    ),
    Route(
        "DELETE",
        "/api/servers/{id}",
        Scope.ADMIN,
        "Takes a machine out of the inventory, with what is on it; there, everything is left as it is.",
        _remove,
        audit="server.rm",
        target="server",
        status=204,
        query=(_VERSION, Param("empty", "true: only if no node or relay is on it", BOOL), CLIENTS),
        also=(404, 409),
    ),
    Route(
        "POST",
        "/api/servers/{id}/trust",
        Scope.ADMIN,
        "Decides on a host key that was shown and refused: the one with this fingerprint, it or the pinned one, counts.",
        _trust,
        audit="server.trust",
        target="server",
        returns=SERVER,
        body=obj({"host_key": TEXT}, {"version": INT}),
    ),
    Route(
        "POST",
        "/api/servers/{id}/deploy",
        Scope.ADMIN,
        "Installs a node agent or a relay on a machine.",
        _deploy,
        audit="server.deploy",
        target="server",
        returns={"oneOf": [NODE, RELAY]},
        status=201,
        also=(202, 502, 503),
        body=obj(
            {"role": choice("node", "relay")},
            {
                "name": TEXT,
                "region": TEXT,
                "egress": BOOL,
                "onion": BOOL,
                "egress_port": limited(1, 65_535),
                "onion_port": limited(1, 65_535),
                "egress_hop": limited(0, 100),
                "no_ingress": BOOL,
                "endpoint": TEXT,
                "hostname": TEXT,
                "version": nullable(INT),
            }
            | _SOURCE_KEYS
            | _ROUTE_KEYS,
        ),
        waits_for_node=True,
    ),
    Route(
        "GET",
        "/api/ssh-key",
        Scope.READONLY,
        "The controller's public SSH key, as it stands in authorized_keys.",
        _key,
        returns=obj({"public_key": TEXT}),
    ),
)
