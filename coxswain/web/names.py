"""What an operator calls things whose ids a page got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.web.page import ask

__all__ = ["names_of"]

_ROUTES = {
    "nod": "/api/nodes",
    "dev": "/api/devices",
    "usr": "/api/users",
    "pth": "/api/paths",
    "rly": "/api/relays",
    "cpath": "/api/control-paths",
}


def names_of(call: Call, rows: Iterable[Mapping[str, Any]], *fields: str) -> dict[str, str]:
    """Id to name of what the ``fields`` of these rows mention. What is gone keeps its id."""
    mentioned = {value for row in rows for field in fields if isinstance(value := row.get(field), str)}
    found = {}
    for wanted in sorted(mentioned):
        route = _ROUTES.get(wanted.partition("_")[0])
        if route is None:
            continue
        try:
            found[wanted] = ask(call, f"{route}/{wanted}").value["name"]
        except NotFound:
            continue
    if any(wanted.startswith("srv_") for wanted in mentioned):  # there are few, and no route that shows one
        found |= {server["id"]: server["name"] for server in ask(call, "/api/servers").value}
    return found
