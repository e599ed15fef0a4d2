"""Where traffic goes over more than one node."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.fleet_map import path_color
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES"]


def _paths(call: Call) -> dict[str, Any]:
    found = ask(call, "/api/paths").value
    own = [path | {"own_color": path["color"]} for path in found]
    return {"paths": [path | {"color": path_color(path, number)} for number, path in enumerate(own)]}


def _load(call: Call) -> dict[str, Any]:
    return _paths(call) | {"nodes": len(ask(call, "/api/nodes", limit=2).value)}


PAGES = (
    page("/paths", "paths.html", _load, title="Paths"),
    fragment("/ui/fragments/paths", "_paths.html", _paths),
)
