"""What an operator calls things whose ids a page got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.web.page import ask
from coxswain.web.render import Gone

__all__ = ["names_of"]

_HISTORIC = ("nod", "dev", "usr")
"""Prefixes of what is named in one question, also when it is gone."""
_ROUTES = {"pth": "/api/paths", "rly": "/api/relays", "cpath": "/api/control-paths"}


def names_of(call: Call, rows: Iterable[Mapping[str, Any]], *fields: str) -> dict[str, str]:
    """Id to name of what the ``fields`` of these rows mention; ``Gone`` if it was removed. Unknown ones are not in it."""
    mentioned = {value for row in rows for field in fields if isinstance(value := row.get(field), str)}
    named = call.names(value for value in mentioned if value.partition("_")[0] in _HISTORIC)
    found: dict[str, str] = {
        each.id: Gone(f"{each.name} (removed)") if each.removed_at else each.name for each in named.values()
    }
    for wanted in sorted(mentioned):
        route = _ROUTES.get(wanted.partition("_")[0])
        if route is not None:
            with suppress(NotFound):
                found[wanted] = ask(call, f"{route}/{wanted}").value["name"]
    if any(wanted.startswith("srv_") for wanted in mentioned):  # there are few, and no route that shows one
        found |= {server["id"]: server["name"] for server in ask(call, "/api/servers").value}
    return found
