"""Nodes: the inventory, their certificates, and what their links can be asked (management-plane.md 3.2, 3.3)."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.bodies import one_line, policy, policy_change
from coxswain.api.call import ALL, NODE_S, Call
from coxswain.api.paging import LIMIT, search
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, NUMBER, STAMP, TEXT, array, choice, limited, nullable, obj, shape
from coxswain.api.waiting import check_not_set_up
from coxswain.errors import CoxswainError
from coxswain.messages import ca, fleet, links
from coxswain.messages.servers import GetServer
from coxswain.model import LinkState, NetworkPolicy, Node, NodeStatus
from coxswain.onboarding.candidate import candidate_version
from coxswain.servers import Server

__all__ = ["CLIENTS", "NODE", "ROUTES", "WHERE", "may_drop_clients"]

_STATUSES = choice(*(status.value for status in NodeStatus))
_POLICY_KEYS = {"forwarding": BOOL, "masquerade": BOOL, "isolation": BOOL}
_POLICY = obj({}, _POLICY_KEYS)
_UNIQUE = BOOL | {"description": "409 if another node is reached at that address"}
_STORED = {
    "id": TEXT,
    "name": TEXT,
    "region": TEXT,
    "status": _STATUSES,
    "enabled": BOOL,
    "control_addr": TEXT,
    "public_ip": TEXT,
    "endpoint_ips": array(TEXT),
    "endpoint_ports": TEXT,
    "mapped_ports": TEXT,
    "decoy_site": TEXT,
    "server_id": TEXT,
    "ssh_host": TEXT,
    "agent_version": TEXT,
    "version_display": TEXT,
    "wg_public_key": TEXT,
    "xray_public_key": TEXT,
    "tunnel_ipv6": BOOL,
    "forwarding": BOOL,
    "masquerade": BOOL,
    "isolation": BOOL,
    "config_revision": INT,
    "applied_revision": INT,
    "enrolled": BOOL,
    "version": INT,
    "created_at": nullable(STAMP),
    "updated_at": nullable(STAMP),
}
_SEEN = {
    "available_version": TEXT,
    "update_available": BOOL,
    "link_state": choice(*(state.value for state in LinkState)),
    "link_reason": TEXT,
    "link_since": nullable(STAMP),
    "last_seen": nullable(STAMP),
    "uptime_seconds": INT,
    "peers_configured": INT,
    "peers_online": INT,
    "in_sync": BOOL,
    "findings": array(TEXT),
}
_SERVICE = obj(
    {
        "protocol": TEXT,
        "running": BOOL,
        "listening": BOOL,
        "peers": INT,
        "handshaking": INT,
        "handshake_age_s": INT,
        "detail": TEXT,
    }
)
_PEER = obj(
    {
        "public_key": TEXT,
        "device_id": TEXT,
        "endpoint": TEXT,
        "last_handshake": nullable(STAMP),
        "rx_bytes": INT,
        "tx_bytes": INT,
    }
)
LOCATION = shape(
    "Location", obj({"city": TEXT, "country": TEXT, "country_code": TEXT, "latitude": NUMBER, "longitude": NUMBER})
)
_PLAN_KEYS = {
    "node_id": TEXT,
    "intended_revision": INT,
    "applied_revision": INT,
    "steps": array(TEXT),
    "findings": array(TEXT),
    "services": array(_SERVICE),
    "peers": array(_PEER),
}

STORED_NODE = shape("StoredNode", obj(_STORED))
"""A node as stored: what changes of it answer."""

WHERE = {"location": LOCATION}

NODE = shape("Node", obj(_STORED | _SEEN, WHERE))
"""A node as stored, with what its link reports."""

PLAN = shape("Plan", obj(_PLAN_KEYS))
NODE_STATUS = shape("NodeStatus", obj(_STORED | _SEEN | {"plan": PLAN}))
PUSH_RESULT = shape(
    "PushResult",
    obj(
        {
            "AmneziaPeers": INT,
            "PushedRevision": INT,
            "AppliedRevision": INT,
            "Reloaded": BOOL,
            "PolicyApplied": BOOL,
            "XRayPeers": INT,
            "XRaySkipped": BOOL,
            "CascadeReapplied": BOOL,
            "LinksConfigured": INT,
        }
    ),
)
ISSUED = shape(
    "IssuedCertificate",
    obj(
        {
            "node_id": TEXT,
            "serial": TEXT,
            "server_name": TEXT,
            "not_after": nullable(STAMP),
            "node_crt": TEXT,
            "ca_crt": TEXT,
            "ignored": array(TEXT),
        }
    ),
)

_VERSION = Param("version", "the version that its author saw; another one is refused with 409", limited(0, 2**53 - 1))
CLIENTS = Param("clients", "true: also while devices have peers on it, and lose them; absent: only with version", BOOL)
_RECORDED = ("PushedRevision", "AppliedRevision", "AmneziaPeers", "Reloaded")
"""Of a push, in the audit log (management-plane.md 3.2)."""
_AFTER = Param("after", "the cursor of the page before: a name")
_REGION = Param("region", "only nodes of these regions, separated by commas")


def _list(call: Call) -> Any:
    limit = call.limit(ALL, ALL)
    regions = call.word("region")
    chosen = tuple(regions.split(",")) if regions else ()
    found = call.ask("fleet", fleet.ListNodes(call.word("after") or "", limit + 1, call.wanted(), chosen))
    active = call.active_sessions()
    candidate = _candidate(call)
    located = call.locate(views.host_of_node(view.node) for view in found[:limit])
    page = [views.node(view, active, candidate, located) for view in found[:limit]]
    return Reply(page, after=page[-1]["name"] if len(found) > limit else None)


def _add(call: Call) -> Any:
    body = call.body
    message = fleet.AddNode(
        call.caller,
        body.need("name", str),
        body.need("control_addr", str),
        body.get("region", str) or "",
        body.get("public_ip", str) or "",
        policy(body.object("policy")),
        unique=bool(body.get("unique", bool)),
    )
    return views.node_brief(call.change("fleet", message))


def _show(call: Call) -> Any:
    return _shown(call, None)


def _shown(call: Call, key: str | None) -> Any:
    """``key`` None: the node that the path names."""
    view = call.view(key)
    located = call.locate([views.host_of_node(view.node)])
    return views.node(view, call.active_sessions(), _candidate(call), located)


def _candidate(call: Call) -> str:
    """The version of the agent that an upgrade would install; empty: unknown."""
    return candidate_version(str(call.services.setting("node.binary_path")))


def _edit(call: Call) -> Any:
    """What is not given stays; so does what is given of the policy only in part."""
    body = call.body
    # What stays of the policy has to be looked up; nothing else needs a second question.
    present = call.node().policy if any(name in body for name in _POLICY_KEYS) else NetworkPolicy()
    message = fleet.EditNode(
        call.caller,
        one_line("node", call.path["key"]),
        body.need("version", int),
        body.get("name", str),
        body.get("region", str),
        body.get("control_addr", str),
        body.texts("endpoint_ips"),
        body.get("endpoint_ports", str),
        body.get("decoy_site", str),
        # If the node has changed since it was read here, the version is stale and nothing of this counts.
        policy_change(body, present),
        _machine(call),
        bool(body.get("unique", bool)),
    )
    changed = call.change("fleet", message)
    return _shown(call, changed.id)  # by what it is called in the path it may not be there any more


def _machine(call: Call) -> str | None:
    """The id of the machine that the body names in any way; whoever sends back what was read may send an empty one."""
    said: str | None = call.body.get("server_id", str)
    if not said:
        return said
    found: Server = call.ask("servers", GetServer(one_line("server_id", said)))
    return found.id


def may_drop_clients(call: Call) -> bool:
    """Whether a node may be removed although clients use it. Who names no version may be a caller of the existing
    controller, which refuses that; who does saw the node, and was asked.
    """
    said = call.flag("clients")
    return call.number("version") is not None if said is None else said


def _remove(call: Call) -> None:
    node = call.node()
    check_not_set_up(call, "node.add", node.id)
    call.change("fleet", fleet.RemoveNode(call.caller, node.id, call.number("version"), clients=may_drop_clients(call)))


def _enable(call: Call) -> Any:
    return _set_enabled(call, enabled=True)


def _disable(call: Call) -> Any:
    return _set_enabled(call, enabled=False)


def _set_enabled(call: Call, *, enabled: bool) -> Any:
    message = fleet.SetNodeEnabled(call.caller, call.node().id, enabled, call.body.get("version", int))
    return views.node_brief(call.change("fleet", message))


def _enroll(call: Call) -> Any:
    csr, node = call.body.text("csr"), call.node()
    message = ca.IssueNodeCertificate(call.caller, node.id, csr.encode(), call.seen("node", node.id, node.name))
    return views.issued(call.change("certificate_authority", message))


def _revoke(call: Call) -> Any:
    serial, reason = call.body.get("serial", str), call.body.get("reason", str) or ""
    node = call.node()
    seen = call.seen("node", node.id, node.name)
    message = ca.RevokeNodeCertificates(call.caller, node.id, serial, reason[:200], seen)
    return {"revoked": list(call.change("certificate_authority", message))}


def _push(call: Call) -> Any:
    node = call.node()
    try:
        outcome: links.PushOutcome = _ask_link(call, node, links.PushNow())
    except CoxswainError as error:
        # It may have reached the node, or still will: that somebody asked for it is in the log in any case.
        call.change("fleet", fleet.RecordPush(call.caller, node.id, error=str(error)))
        error.audited = 0
        raise
    answer = views.push_outcome(outcome)
    call.change("fleet", fleet.RecordPush(call.caller, node.id, {name: answer[name] for name in _RECORDED}))
    return answer


def _look(call: Call) -> None:
    node = call.node()
    call.ask(f"node_link:{node.id}", links.Look())
    call.change("fleet", fleet.RecordPush(call.caller, node.id, action="node.look"))


def _plan(call: Call) -> Any:
    return views.plan(_ask_link(call, call.node(), links.PreviewPlan()))


def _status(call: Call) -> Any:
    """The node asked now, and then how it is known."""
    node = call.node()
    plan = _ask_link(call, node, links.PreviewPlan())
    return views.node(call.view(node.id), call.active_sessions()) | {"plan": views.plan(plan)}


def _ask_link(call: Call, node: Node, message: Any) -> Any:
    return call.ask(f"node_link:{node.id}", message, NODE_S)


_READ, _ADMIN = Scope.READONLY, Scope.ADMIN

ROUTES = (
    Route(
        "GET", "/api/nodes", _READ, "All nodes, by name.", _list, returns=array(NODE),
        query=(search("name, region or address"), _AFTER, LIMIT, _REGION),
    ),
    Route(
        "POST", "/api/nodes", _ADMIN, "Takes a node into the inventory.", _add, "node.add", "node",
        STORED_NODE, 201, (409,),
        obj(
            {"name": TEXT, "control_addr": TEXT},
            {"region": TEXT, "public_ip": TEXT, "policy": nullable(_POLICY), "unique": _UNIQUE},
        ),
    ),
    Route("GET", "/api/nodes/{key}", _READ, "One node, by id or name.", _show, returns=NODE, also=(404,)),
    Route(
        "PATCH", "/api/nodes/{key}", _ADMIN, "Changes what is given of a node.", _edit, "node.update",
        returns=NODE, target="node", also=(404, 409),
        body=obj(
            {"version": INT},
            {"name": TEXT, "region": TEXT, "control_addr": TEXT, "endpoint_ips": array(TEXT), "endpoint_ports": TEXT}
            | {"decoy_site": TEXT, "server_id": TEXT, "unique": _UNIQUE}
            | _POLICY_KEYS,
        ),
    ),
    Route(
        "DELETE", "/api/nodes/{key}", _ADMIN, "Takes a node out of the inventory.", _remove, "node.rm",
        status=204, query=(_VERSION, CLIENTS), target="node", also=(404, 409),
    ),
    Route(
        "POST", "/api/nodes/{key}/enable", _ADMIN, "Holds the link to a node again.", _enable, "node.enable",
        returns=STORED_NODE, body=obj({}, {"version": nullable(INT)}), target="node", also=(404, 409),
    ),
    Route(
        "POST", "/api/nodes/{key}/disable", _ADMIN, "Ends the link to a node until it is enabled.", _disable, "node.disable",
        returns=STORED_NODE, body=obj({}, {"version": nullable(INT)}), target="node", also=(404, 409),
    ),
    Route(
        "POST", "/api/nodes/{key}/enroll", _ADMIN, "Signs a node's certificate request.", _enroll, "node.enroll",
        returns=ISSUED, status=201, body=obj({"csr": TEXT}, {"version": nullable(INT)}), target="node", also=(404, 409),
    ),
    Route(
        "POST", "/api/nodes/{key}/revoke", _ADMIN, "Revokes certificates of a node.", _revoke, "node.revoke",
        body=obj({}, {"serial": nullable(TEXT), "reason": nullable(TEXT), "version": nullable(INT)}),
        returns=obj({"revoked": array(TEXT)}), target="node", also=(404, 409),
    ),
    Route(
        "POST", "/api/nodes/{key}/push", _ADMIN, "Pushes what a node should be, now.", _push, "node.push", "node",
        PUSH_RESULT, waits_for_node=True, also=(404, 502),
    ),
    Route(
        "POST", "/api/nodes/{key}/look", _ADMIN, "Has a node looked at soon.", _look, "node.look", "node",
        status=202, also=(404,),
    ),
    Route(
        "GET", "/api/nodes/{key}/plan", _READ, "What would be done to a node now.", _plan, returns=PLAN,
        waits_for_node=True, also=(404, 502),
    ),
    Route(
        "GET", "/api/nodes/{key}/status", _READ, "A node, asked now.", _status, returns=NODE_STATUS,
        waits_for_node=True, also=(404, 502),
    ),
)  # fmt: skip
