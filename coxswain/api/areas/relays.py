"""Relays: the inventory, and what is done on their machines (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coxswain import __version__
from coxswain.api.areas.nodes import WHERE
from coxswain.api.bodies import one_line
from coxswain.api.call import Call
from coxswain.api.paging import PAGE, page_of
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import BOOL, INT, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.views import stamp, where
from coxswain.api.waiting import check_not_set_up, run_operation
from coxswain.errors import Conflict, NodeFailure, NotFound, Unavailable
from coxswain.messages import servers as m
from coxswain.messages.relays import EMBEDDED, DescribeTunnels, TunnelState, TunnelView
from coxswain.onboarding.binary import display_version, is_newer
from coxswain.onboarding.candidate import candidate_version
from coxswain.onboarding.sources import Sources
from coxswain.servers import Relay, RelayKind, relay_host

if TYPE_CHECKING:
    from coxswain.geoip import Location

__all__ = ["RELAY", "ROUTES", "relay_view"]

_TUNNELS_S = 2.0

RELAY = shape(
    "Relay",
    obj(
        {
            "id": TEXT,
            "name": TEXT,
            "kind": TEXT,
            "region": TEXT,
            "status": TEXT,
            "agent_version": TEXT,
            "version_display": TEXT,
            "available_version": TEXT,
            "update_available": BOOL,
            "host": TEXT,
            "endpoint": TEXT,
            "egress": BOOL,
            "egress_endpoint": TEXT,
            "egress_hop": INT,
            "onion": BOOL,
            "onion_endpoint": TEXT,
            "server_id": TEXT,
            "tunnel": choice("", *(state.value for state in TunnelState)),
            "tunnel_since": nullable(STAMP),
            "tunnel_error": TEXT,
            "version": INT,
        },
        WHERE,
    ),
)


def relay_view(call: Call, relay: Relay | str) -> dict[str, Any]:
    """A relay by id, or as it is at hand. Without its onion key: who knows that has a proxy (relay-contract.md 6.6)."""
    r: Relay = call.ask("servers", m.GetRelay(relay)) if isinstance(relay, str) else relay
    return _view(call, r, _tunnels(call).get(r.id), call.locate([relay_host(r)]))


def _view(call: Call, r: Relay, tunnel: TunnelView | None, located: Mapping[str, Location]) -> dict[str, Any]:
    inside = r.kind is RelayKind.EMBEDDED  # and comes with the daemon
    candidate = "" if inside else candidate_version(_sources(call).path_of("relay"))
    return where(located.get(relay_host(r))) | {
        "id": r.id,
        "name": r.name,
        "kind": r.kind.value,
        "region": r.region,
        "status": r.status,
        "agent_version": r.agent_version,
        "version_display": display_version(r.agent_version),
        "available_version": candidate,
        "update_available": is_newer(candidate, r.agent_version),
        "host": relay_host(r),
        "endpoint": r.endpoint,
        "egress": bool(r.egress_endpoint),
        "egress_endpoint": r.egress_endpoint,
        "egress_hop": r.egress_hop,
        "onion": bool(r.onion_endpoint and r.onion_pubkey),
        "onion_endpoint": r.onion_endpoint,
        "server_id": r.server_id,
        "tunnel": "" if tunnel is None else tunnel.state.value,
        "tunnel_since": None if tunnel is None else stamp(tunnel.since),
        "tunnel_error": "" if tunnel is None else tunnel.error,
        "version": r.version,
    }


def _tunnels(call: Call) -> dict[str, TunnelView]:
    """By relay id. None at all while the actor is being replaced: the inventory can be looked at all the same."""
    try:
        views: tuple[TunnelView, ...] = call.ask("relays", DescribeTunnels(), _TUNNELS_S)
    except Unavailable:
        return {}
    return {view.relay_id: view for view in views}


def _embedded(tunnels: dict[str, TunnelView]) -> list[Relay]:
    """The relay inside the daemon, when there is one; it is in no table."""
    view = tunnels.get(EMBEDDED)
    if view is None:
        return []
    kind = RelayKind.EMBEDDED
    return [Relay(EMBEDDED, EMBEDDED, kind, endpoint=view.endpoint, agent_version=__version__, status="active")]


def _sources(call: Call) -> Sources:
    return Sources(lambda name: str(call.services.setting(name)))


def _relay(call: Call) -> Relay:
    key = one_line("relay", call.path["id"])
    try:
        found: Relay = call.ask("servers", m.GetRelay(key))
    except NotFound:
        if key != EMBEDDED:
            raise
        raise NotFound(
            "relay: the embedded one is a part of the daemon: it is upgraded with it, and on no machine of its own",
            remedy="The configuration says whether it runs: relay.embedded, relay.client_listen.",
        ) from None
    return found


def _on_machine(call: Call) -> Relay:
    relay = _relay(call)
    if not relay.server_id:
        raise Conflict(f"relay {relay.name}: it is on no machine that this controller can log in to")
    return relay


def _list(call: Call) -> Any:
    tunnels = _tunnels(call)
    found = [*call.ask("servers", m.ListRelays()), *_embedded(tunnels)]
    located = call.locate(relay_host(relay) for relay in found)

    def view(relay: Relay) -> dict[str, Any]:
        return _view(call, relay, tunnels.get(relay.id), located)

    return page_of(call, found, lambda relay: str(relay.id), view)


def _show(call: Call) -> Any:
    tunnels = _tunnels(call)
    try:
        relay = _relay(call)
    except NotFound:
        inside = _embedded(tunnels) if call.path["id"] == EMBEDDED else []
        if not inside:
            raise
        relay = inside[0]
    return _view(call, relay, tunnels.get(relay.id), call.locate([relay_host(relay)]))


def _delete(call: Call) -> None:
    relay = _relay(call)
    check_not_set_up(call, "relay.add", relay.id)
    call.change("servers", m.RemoveRelay(call.caller, relay.id, call.number("version")))


def _remove(call: Call) -> Any:
    relay = _on_machine(call)
    seen = call.seen("relay", relay.id, relay.name)
    call.ask("servers", m.CheckNoHop(relay.id))  # what is a hop is refused at once, and not by an operation
    params = {"relay_id": relay.id, "server_id": relay.server_id, "name": relay.name}
    return run_operation(call, "relay.remove", params, lambda _operation: relay_view(call, relay), seen=seen)


def _renew(call: Call) -> Any:
    relay = _on_machine(call)
    seen = call.seen("relay", relay.id, relay.name)
    params = {"relay_id": relay.id, "server_id": relay.server_id, "name": relay.name}
    return run_operation(call, "relay.renew", params, lambda _operation: relay_view(call, relay.id), seen=seen)


def _update(call: Call) -> Any:
    """Of a relay that is on no machine it is a 502 (management-plane.md 3.2), also of the one inside the daemon."""
    try:
        relay, body = _on_machine(call), call.body
    except NotFound as error:
        if call.path["id"] != EMBEDDED:
            raise
        raise NodeFailure(str(error), remedy=error.remedy) from None
    except Conflict as error:
        raise NodeFailure(str(error), remedy=error.remedy) from None
    seen = call.seen("relay", relay.id, relay.name)
    given = {"path": body.get("binary_path", str), "url": body.get("url", str), "sha256": body.get("sha256", str)}
    params = {
        "relay_id": relay.id,
        "server_id": relay.server_id,
        "name": relay.name,
        "source": _sources(call).relay(given).as_params(),
        "force": body.get("force", bool) or False,
    }
    return run_operation(call, "relay.update", params, lambda _operation: relay_view(call, relay.id), seen=seen)


def _egress(call: Call) -> Any:
    relay, body = _relay(call), call.body
    hop, disable = body.get("hop", int), body.get("disable", bool) or False
    changes: dict[str, Any] = {"egress_endpoint": "", "egress_hop": 0} if disable else {"egress_hop": hop or 0}
    if not disable and hop is None:
        raise Conflict(f"relay {relay.name}: say hop or disable")
    if not disable and not relay.egress_endpoint:
        raise Conflict(
            f"relay {relay.name}: it has no egress role",
            remedy="It gets one where it is set up anew: cox relays remove, then cox relays add --egress",
        )
    version = body.get("version", int)
    return relay_view(call, call.change("servers", m.EditRelay(call.caller, relay.id, changes, "relay.egress", version)))


_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))

ROUTES = (
    Route(
        "GET",
        "/api/relays",
        Scope.READONLY,
        "All relays, oldest first, and how their tunnels stand; last the one inside the daemon, if it listens.",
        _list,
        returns=array(RELAY),
        query=PAGE,
        also=(404,),
    ),
    Route("GET", "/api/relays/{id}", Scope.READONLY, "One relay.", _show, returns=RELAY),
    Route(
        "DELETE",
        "/api/relays/{id}",
        Scope.ADMIN,
        "Takes a relay out of the inventory. What runs on its machine is left as it is.",
        _delete,
        audit="relay.rm",
        target="relay",
        status=204,
        query=(_VERSION,),
    ),
    Route(
        "POST",
        "/api/relays/{id}/remove",
        Scope.ADMIN,
        "Stops a relay, removes it from its machine and from the inventory.",
        _remove,
        audit="relay.remove",
        target="relay",
        returns=RELAY,
        also=(202, 502, 503),
        body=obj({}, {"version": nullable(INT)}),
        waits_for_node=True,
    ),
    Route(
        "POST",
        "/api/relays/{id}/update-agent",
        Scope.ADMIN,
        "Upgrades the relay on its machine; the previous one comes back if it does not start.",
        _update,
        audit="relay.update-agent",
        target="relay",
        returns=RELAY,
        also=(202, 502, 503),
        body=obj({}, {"binary_path": TEXT, "url": TEXT, "sha256": TEXT, "force": BOOL, "version": nullable(INT)}),
        waits_for_node=True,
    ),
    Route(
        "POST",
        "/api/relays/{id}/renew",
        Scope.ADMIN,
        "Issues and pushes a new certificate, and restarts the relay.",
        _renew,
        audit="relay.renew",
        target="relay",
        returns=RELAY,
        also=(202, 502, 503),
        body=obj({}, {"version": nullable(INT)}),
        waits_for_node=True,
    ),
    Route(
        "POST",
        "/api/relays/{id}/egress",
        Scope.ADMIN,
        "Sets a relay's place among the egress hops, or takes the role from it.",
        _egress,
        audit="relay.egress",
        target="relay",
        returns=RELAY,
        body=obj({}, {"hop": limited(1, 100), "disable": BOOL, "version": INT}),
    ),
)
