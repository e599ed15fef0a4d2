"""One node: how it is, what would be done to it, who is connected; its settings and what can be done to it."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.errors import CoxswainError
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page, tolerant
from coxswain.web.pages.alerts import alerts_about
from coxswain.web.pages.charts import over_time
from coxswain.web.pages.operations import under_way
from coxswain.web.pages.sessions import recent_sessions

__all__ = ["PAGES"]

_PEERS = 20


def _load(call: Call) -> dict[str, Any]:
    found = _state(call)
    node = found["node"]
    return (
        found
        | {"title": node["name"], "here": "/", "plan": None, "reason": ""}
        | _links(call, node["id"])
        | _sessions(call)
        | alerts_about(call, node=node["id"])
        | over_time(call, node["id"])
    )


def _state(call: Call) -> dict[str, Any]:
    node = ask(call, f"/api/nodes/{call.path['key']}").value
    return {"node": node} | under_way(call, node["id"])


def _plan(call: Call) -> dict[str, Any]:
    try:
        plan = ask(call, f"/api/nodes/{call.path['key']}/plan").value
    except CoxswainError as error:
        return {"plan": None, "reason": str(error)}
    peers = plan["peers"][:_PEERS]
    return {"plan": plan | {"peers": peers}, "reason": "", "names": names_of(call, peers, "device_id")}


def _links(call: Call, node_id: str = "") -> dict[str, Any]:
    """What leads from this node to others, and to it, over which paths."""
    key = node_id or call.path["key"]
    paths = tolerant(call, "/api/paths", [])
    rows = [
        link
        | {
            "is_entry": link["entry_node_id"] == key,
            "other": link["exit_node_id"] if link["entry_node_id"] == key else link["entry_node_id"],
            "paths": [path["name"] for path in paths if any(each["id"] == link["id"] for each in path["links"])],
        }
        for link in tolerant(call, "/api/node-links", [])
        if key in (link["entry_node_id"], link["exit_node_id"])
    ]
    return {"links": rows, "link_names": names_of(call, rows, "other")}


def _sessions(call: Call) -> dict[str, Any]:
    return recent_sessions(call, node=call.path["key"])


_QUERY = ("range",)

PAGES = (
    page("/nodes/{key}", "node.html", _load, title="Node", query=_QUERY),
    fragment("/ui/fragments/nodes/{key}", "_node_state.html", _state, query=_QUERY),
    fragment("/ui/fragments/nodes/{key}/head", "_node_head.html", _state, query=_QUERY),
    fragment("/ui/fragments/nodes/{key}/plan", "_plan.html", _plan, query=_QUERY),
    fragment("/ui/fragments/nodes/{key}/links", "_inner_links.html", _links, query=_QUERY),
    fragment("/ui/fragments/nodes/{key}/sessions", "_session_table.html", _sessions, query=_QUERY),
)
