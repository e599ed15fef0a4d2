"""What an operator calls things whose ids a page got."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.web.page import ask
from coxswain.web.render import Gone

__all__ = ["names_of"]

_ROUTES = {
    "nod": "/api/nodes",
    "dev": "/api/devices",
    "usr": "/api/users",
    "pth": "/api/paths",
    "rly": "/api/relays",
    "cpath": "/api/control-paths",
}


_ID = re.compile(r"[a-z]{1,8}_\w{1,64}")
_AT_ONCE = 20


def names_of(call: Call, rows: Iterable[Mapping[str, Any]], *fields: str) -> dict[str, str]:
    """Id to name of what the ``fields`` of these rows mention; ``Gone`` if it was removed. Unknown ones are not in it."""
    mentioned = {value for row in rows for field in fields if isinstance(value := row.get(field), str)}
    found: dict[str, str] = {}
    gone = []
    for wanted in sorted(mentioned):
        route = _ROUTES.get(wanted.partition("_")[0])
        if route is None:
            continue
        try:
            found[wanted] = ask(call, f"{route}/{wanted}").value["name"]
        except NotFound:
            gone.append(wanted)
    gone = [each for each in gone if _ID.fullmatch(each)]
    for start in range(0, len(gone), _AT_ONCE):
        removed = ask(call, "/api/removed", ids=",".join(gone[start : start + _AT_ONCE])).value
        found |= {each["id"]: Gone(f"{each['name']} (removed)") for each in removed}
    if any(wanted.startswith("srv_") for wanted in mentioned):  # there are few, and no route that shows one
        found |= {server["id"]: server["name"] for server in ask(call, "/api/servers").value}
    return found
