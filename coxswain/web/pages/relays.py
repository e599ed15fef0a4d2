"""Relays: what carries the control plane where the controller itself cannot, or should not, be seen."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.page import ask, fragment, page, tolerant
from coxswain.web.pages.operations import under_way

__all__ = ["PAGES"]


def _relays(call: Call) -> dict[str, Any]:
    relays = ask(call, "/api/relays").value
    return {"relays": relays, "servers": _server_names(call) if relays else {}}


def _control(call: Call) -> dict[str, Any]:
    """By which relays the controller reaches nodes and machines; none active: directly."""
    paths = ask(call, "/api/control-paths").value
    return {"control": paths, "active": next((path for path in paths if path["active"]), None)}


def _all(call: Call) -> dict[str, Any]:
    return _relays(call) | _control(call)


def _server_names(call: Call) -> dict[str, str]:
    return {server["id"]: server["name"] for server in tolerant(call, "/api/servers", [])}


def _head(call: Call) -> dict[str, Any]:
    return {"r": ask(call, f"/api/relays/{call.path['key']}").value}


def _state(call: Call) -> dict[str, Any]:
    found = _head(call)
    return found | {"servers": _server_names(call)} | under_way(call, found["r"]["id"])


def _relay(call: Call) -> dict[str, Any]:
    found = _state(call)
    return found | {"title": found["r"]["name"], "here": "/relays"}


PAGES = (
    page("/relays", "relays.html", _all, title="Relays"),
    page("/relays/{key}", "relay.html", _relay, title="Relay"),
    fragment("/ui/fragments/relays", "_relays.html", _relays),
    fragment("/ui/fragments/control-paths", "_control_paths.html", _control),
    fragment("/ui/fragments/relays/{key}", "_relay_state.html", _state),
    fragment("/ui/fragments/relays/{key}/head", "_relay_head.html", _head),
)
