"""Machines that the controller can log in to, and what is installed on them."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES"]


def _servers(call: Call) -> dict[str, Any]:
    nodes = ask(call, "/api/nodes").value
    relays = ask(call, "/api/relays").value
    servers = ask(call, "/api/servers").value
    return {
        "servers": servers,
        "nodes_on": {s["id"]: [n for n in nodes if n["server_id"] == s["id"]] for s in servers},
        "relays_on": {s["id"]: [r for r in relays if r["server_id"] == s["id"]] for s in servers},
    }


def _load(call: Call) -> dict[str, Any]:
    found = _servers(call)
    installed = [node for nodes in found["nodes_on"].values() for node in nodes]
    candidate = next((node["available_version"] for node in installed), "")
    return found | {"installed": installed, "candidate": candidate, "key": ask(call, "/api/ssh-key").value["public_key"]}


PAGES = (
    page("/servers", "servers.html", _load, title="Servers"),
    fragment("/ui/fragments/servers", "_servers.html", _servers),
)
