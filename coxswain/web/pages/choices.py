"""What may be chosen in a form: fetched when its dialog is opened, because there may be a thousand of it."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment

__all__ = ["PAGES"]

_MOST = 1_000
"""Who has more of something than this adds to it on its own page, or by script."""


def _nodes(call: Call) -> dict[str, Any]:
    nodes = ask(call, "/api/nodes", limit=_MOST).value
    return {"options": [(node["id"], _with(node["name"], node["region"])) for node in nodes]}


def _nodes_on_servers(call: Call) -> dict[str, Any]:
    """Those whose agent the controller can upgrade."""
    nodes = [node for node in ask(call, "/api/nodes").value if node["server_id"]]
    return {"options": [(node["id"], _with(node["name"], node["version_display"] or node["region"])) for node in nodes]}


def _paths(call: Call) -> dict[str, Any]:
    return {"options": [(path["id"], path["name"]) for path in ask(call, "/api/paths").value]}


def _devices(call: Call) -> dict[str, Any]:
    devices = ask(call, "/api/devices", limit=_MOST).value
    names = names_of(call, devices, "user_id")
    return {"options": [(d["id"], _with(d["name"], names.get(d["user_id"], d["user_id"]))) for d in devices]}


def _devices_of(call: Call) -> dict[str, Any]:
    devices = ask(call, f"/api/users/{call.path['key']}/devices", limit=_MOST).value
    return {"options": [(d["id"], d["name"]) for d in devices if d["status"] != "revoked"]}


def _hops(call: Call) -> dict[str, Any]:
    """Relays that a control path may lead over."""
    relays = [relay for relay in ask(call, "/api/relays").value if relay["egress"]]
    return {"options": [(r["id"], _with(r["name"], "onion" if r["onion"] else r["region"])) for r in relays]}


def _with(name: str, more: str) -> str:
    return f"{name} ({more})" if more else name


PAGES = (
    fragment("/ui/options/nodes", "_options.html", _nodes),
    fragment("/ui/options/nodes-on-servers", "_options.html", _nodes_on_servers),
    fragment("/ui/options/paths", "_options.html", _paths),
    fragment("/ui/options/devices", "_options.html", _devices),
    fragment("/ui/options/devices-of/{key}", "_options.html", _devices_of),
    fragment("/ui/options/hops", "_options.html", _hops),
)
