"""The fleet at a glance: counters, map, nodes, and what happens."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.regions import REGIONS
from coxswain.web.fleet_map import fleet_map
from coxswain.web.page import ask, fragment, page, row_keys
from coxswain.web.pages.charts import over_time

__all__ = ["PAGES"]

_PAGE = 50


def _load(call: Call) -> dict[str, Any]:
    codes = call.services.setting("fleet.regions") or sorted(REGIONS)
    return _page(call) | _counters(call) | _map(call) | {"region_codes": codes} | over_time(call)


def _page(call: Call) -> dict[str, Any]:
    region = call.word("region") or ""
    found = ask(call, "/api/nodes", limit=_PAGE, after=call.word("after"), region=region)
    return {"nodes": found.value, "after": found.after, "region": region.replace(",", ", ")}


def _counters(call: Call) -> dict[str, Any]:
    return {"s": ask(call, "/api/status").value}


def _map(call: Call) -> dict[str, Any]:
    control = next((path for path in ask(call, "/api/control-paths").value if path["active"]), None)
    return {"map": fleet_map(ask(call, "/api/map").value, ask(call, "/api/paths").value, control)}


def _rows(call: Call) -> dict[str, Any]:
    keys = row_keys(call)
    if keys is None:
        return _page(call)
    nodes = []
    for key in keys:
        try:
            nodes.append(ask(call, f"/api/nodes/{key}").value)
        except NotFound:
            continue  # it was removed; its row goes as well
    return {"nodes": nodes}


_QUERY = ("region", "after", "range")

PAGES = (
    page("/", "fleet.html", _load, title="Fleet", query=_QUERY),
    fragment("/ui/fragments/counters", "_counters.html", _counters, query=_QUERY),
    fragment("/ui/fragments/map", "_map.html", _map, query=_QUERY),
    fragment("/ui/rows/nodes", "_node_rows.html", _rows, query=_QUERY),
)
