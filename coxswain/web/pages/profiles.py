"""Where each device enters and leaves, and how."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES", "profiles_of"]

_PAGE = 50


def profiles_of(call: Call, **of: str) -> dict[str, Any]:
    """Profiles and the names in them. ``of``: parameters of ``GET /api/profiles``."""
    found = ask(call, "/api/profiles", limit=_PAGE, **of)
    paths = {path["id"]: path["name"] for path in ask(call, "/api/paths").value}
    names = names_of(call, found.value, "node_id", "device_id") | paths
    return {"profiles": found.value, "names": names, "after": found.after}


def _load(call: Call) -> dict[str, Any]:
    query = {name: call.word(name) or "" for name in ("device", "user", "after")}
    return profiles_of(call, **query) | {"devices": ask(call, "/api/devices", limit=1).value, "query": query}


def _table(call: Call) -> dict[str, Any]:
    return profiles_of(call, **{name: call.word(name) or "" for name in ("device", "user", "after")})


PAGES = (
    page("/profiles", "profiles.html", _load, title="Profiles", query=("device", "user", "after")),
    fragment("/ui/fragments/profiles", "_profiles.html", _table, query=("device", "user", "after")),
)
