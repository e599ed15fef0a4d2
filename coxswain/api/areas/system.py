"""The daemon itself: is it there, is it well, which parts of it run."""

from __future__ import annotations

import time
from operator import itemgetter
from typing import Any

from coxswain.api import metrics, views
from coxswain.api.call import ALL, Call
from coxswain.api.openapi import document
from coxswain.api.paging import LIMIT, search
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import BOOL, INT, NUMBER, TEXT, array, obj, shape
from coxswain.errors import CoxswainError, Unauthenticated
from coxswain.messages import audit, control_paths, fleet, sessions
from coxswain.messages.access import RecordAction

__all__ = ["ROUTES"]

VERSION = shape("Version", obj({"version": TEXT}))
READINESS = shape(
    "Readiness",
    obj({"ready": BOOL}, {"down": array(TEXT), "parts": {"type": "object", "additionalProperties": TEXT}}),
)
_READY_S = 2.0
_COUNTS = {"type": "object", "additionalProperties": INT}
STATUS = shape(
    "Status",
    obj(
        {
            "version": TEXT,
            "pid": INT,
            "store": TEXT,
            "state_dir": TEXT,
            "chaos": BOOL | {"description": "it lets its parts be harmed, for demonstrations"},
            "uptime_seconds": INT,
            "fleet": obj(
                {
                    "nodes": INT,
                    "in_sync": INT,
                    "troubled": INT | {"description": "unreachable, in error, or not as they should be"},
                    "coming_up": INT | {"description": "neither, and not disabled"},
                    "by_link_state": _COUNTS,
                    "by_status": _COUNTS,
                    "users": INT,
                    "devices": INT,
                    "peers": INT,
                }
            ),
            "sessions": obj({"active": INT, "opened": INT, "closed": INT, "events": INT, "duplicates": INT}),
            "control_path": obj(
                {
                    "route": TEXT | {"description": "direct, egress, onion; refused: nothing is dialled; unknown"},
                    "hops": array(TEXT),
                    "reason": TEXT | {"description": "why nothing is dialled"},
                    "connections": INT | {"description": "that go over relays now"},
                    "relay_sessions": INT | {"description": "sessions with relays that stand"},
                }
            ),
            "audit": obj({"size": INT, "row_hash": TEXT, "findings": array(TEXT)}),
            "restarts": INT,
            "down": array(TEXT),
        }
    ),
)
_ACTOR = {
    "id": TEXT,
    "state": TEXT,
    "incarnation": INT,
    "restarts": INT,
    "uptime_s": NUMBER,
    "mailbox": INT | {"description": "messages that wait"},
    "busy_s": NUMBER,
    "busy_with": TEXT | {"description": "a message"},
    "zombies": INT | {"description": "abandoned threads that still run"},
    "last_failure": TEXT,
    "last_failure_at": NUMBER | {"description": "epoch seconds; 0: never"},
}
_CHILDREN = array({"$ref": "#/components/schemas/TreeNode"})
TREE = shape("TreeNode", obj(_ACTOR | {"kind": TEXT, "strategy": TEXT, "children": _CHILDREN}))
_NAME = TEXT | {"description": "of the node; its id, where nobody can say the name just now"}
LINK = shape("LinkActor", obj(_ACTOR | {"node_id": TEXT, "name": _NAME}))


def _health(_call: Call) -> None:
    """It answers: that is all."""


def _ready(call: Call) -> Any:
    """Which parts are up is for those who may read it; the rest learns only whether all are."""
    tree = call.services.tree(links=False)
    down = _down(tree)
    try:
        if call.ask("audit_writer", audit.GetAuditFindings(), _READY_S):
            down.append("audit_log")
    except CoxswainError:
        down = sorted({*down, "audit_writer"})
    found: dict[str, Any] = {"ready": not down}
    if _may_read(call):
        found |= {"down": down, "parts": {c["id"]: c["state"] for c in _workers(tree)}}
    return Reply(found, status=503 if down else 200)


def _may_read(call: Call) -> bool:
    try:
        return call.who.scope >= Scope.READONLY
    except Unauthenticated:
        if call.request.get_header("Authorization"):
            raise  # a credential that is not good is never passed over
        return False
    except CoxswainError:
        return False


def _down(tree: dict[str, Any]) -> list[str]:
    return [c["id"] for c in _workers(tree) if c["state"] != "running"]


def _workers(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """All but the links, whose troubles are ordinary life."""
    if tree["id"] == "node_links":
        return [tree]
    return [tree, *(found for child in tree["children"] for found in _workers(child))]


def _version(call: Call) -> Any:
    return {"version": call.services.identity.version}


def _status(call: Call) -> Any:
    identity = call.services.identity
    head: audit.AuditHead = call.ask("audit_writer", audit.GetAuditHead())
    tree = call.services.tree(links=False)
    return {
        "version": identity.version,
        "pid": identity.pid,
        "store": identity.store,
        "state_dir": identity.state_dir,
        "chaos": identity.chaos,
        "uptime_seconds": int(time.time() - identity.started_at),
        "fleet": views.summary(call.ask("fleet", fleet.GetSummary())),
        "sessions": views.session_counts(call.ask("session_tracker", sessions.GetSessionCounts())),
        "control_path": _route(call),
        "audit": {
            "size": head.size,
            "row_hash": head.row_hash,
            "findings": list(call.ask("audit_writer", audit.GetAuditFindings())),
        },
        "restarts": sum(c["restarts"] for c in _workers(tree)),
        "down": _down(tree),
    }


def _route(call: Call) -> Any:
    """A status is wanted most when a part does not answer."""
    try:
        state: control_paths.RouteState = call.ask("servers", control_paths.GetRouteState(), _READY_S)
    except CoxswainError as error:
        state = control_paths.RouteState("unknown", reason=str(error))
    return {
        "route": state.kind,
        "hops": list(state.hops),
        "reason": state.reason,
        "connections": state.connections,
        "relay_sessions": state.sessions,
    }


def _tree(call: Call) -> Any:
    return call.services.tree(links=call.flag("links") is not False)


def _links(call: Call) -> Any:
    """Also answered while the fleet does not: it is wanted most when a part is down."""
    try:
        found: list[fleet.Whereabouts] = call.ask("fleet", fleet.GetWhereabouts(), _READY_S)
    except CoxswainError:
        found = []
    names = {node.id: node.name for node in found}
    every = bool(call.flag("all"))
    links = chosen_links(call.services.tree(), names, every=every, wanted=call.wanted(), after=call.word("after") or "")
    page = links[: call.limit(ALL, ALL)]
    return Reply(page, after=page[-1]["name"] if page and len(links) > len(page) else None)


def chosen_links(
    tree: dict[str, Any], names: dict[str, str], *, every: bool = False, wanted: str = "", after: str = ""
) -> list[dict[str, Any]]:
    """The actors of nodes' links, by the names of their nodes; unless ``every``, those that fell by
    themselves or do not run: a restart of ``node_links`` restarts all.

    Args:
        tree: all of it.
        names: of nodes, by id.
        wanted: a part of a name, in any case, or an id; empty: any.
        after: only names after this one.
    """
    found = []
    for link in _below(tree, "node_links"):
        node_id = link["id"].partition(":")[2]
        name = names.get(node_id, node_id)
        is_told = every or link["restarts"] > 0 or link["state"] != "running"
        if is_told and name > after and (wanted.lower() in name.lower() or wanted == node_id):
            found.append({key: link[key] for key in _ACTOR} | {"node_id": node_id, "name": name})
    return sorted(found, key=itemgetter("name"))


def _below(tree: dict[str, Any], supervisor: str) -> list[dict[str, Any]]:
    children: list[dict[str, Any]] = tree["children"]
    return children if tree["id"] == supervisor else [found for child in children for found in _below(child, supervisor)]


def _metrics(call: Call) -> Any:
    return Reply(raw=metrics.exposition(call.services, time.time()), media_type=metrics.MEDIA_TYPE)


def _openapi(call: Call) -> Any:
    from coxswain.api.table import ROUTES as EVERY  # noqa: PLC0415 - the table has this module in it

    return document(EVERY, call.services.identity.version)


def _chaos(call: Call) -> None:
    body = call.body
    actor, how, seconds = body.need("actor", str), body.need("how", str), body.get("seconds", int) or 3600
    call.services.check_harm(actor, how)
    # Recorded first: it may be the part that records which is harmed.
    detail = {"how": how, "seconds": seconds}
    call.change("access", RecordAction(call.caller, "chaos.harm", ("actor", actor), detail))
    call.services.harm(actor, how, float(seconds))


_AFTER = Param("after", "the cursor of the page before: a node's name")
_ALL = Param("all", "true: also those that run and never fell", BOOL)
_LINKS = Param("links", "false: without the nodes' links, of which there may be thousands", BOOL)

ROUTES = (
    Route("GET", "/healthz", Scope.NONE, "Whether the daemon answers.", _health),
    Route("GET", "/readyz", Scope.NONE, "Whether every part of it runs.", _ready, returns=READINESS, also=(401, 503)),
    Route("GET", "/api/version", Scope.READONLY, "Which release this is.", _version, returns=VERSION),
    Route("GET", "/api/status", Scope.READONLY, "The daemon and its fleet in numbers.", _status, returns=STATUS),
    Route(
        "GET", "/metrics", Scope.MONITOR, "For Prometheus.", _metrics, media_type=metrics.MEDIA_TYPE,
    ),
    Route(
        "GET", "/api/openapi.json", Scope.READONLY, "All this as an OpenAPI 3.1 document.", _openapi,
        returns={"type": "object"},
    ),
    Route("GET", "/api/tree", Scope.READONLY, "The service tree.", _tree, returns=TREE, query=(_LINKS,)),
    Route(
        "GET", "/api/tree/links", Scope.READONLY,
        "The actors of nodes' links that fell by themselves or do not run, by the names of their nodes.", _links,
        returns=array(LINK), query=(_ALL, search("the name of the node"), _AFTER, LIMIT),
    ),
    Route(
        "POST", "/api/chaos", Scope.ADMIN, "Hurts a part on purpose; only with serve --allow-chaos.", _chaos,
        "chaos.harm", "actor", status=204, also=(404,), body=obj({"actor": TEXT, "how": TEXT}, {"seconds": INT}),
    ),
)  # fmt: skip
