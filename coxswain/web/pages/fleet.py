"""The fleet at a glance: counters, map, nodes, and what happens."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.errors import NotFound
from coxswain.web.fleet_map import fleet_map
from coxswain.web.page import ask, fragment, page
from coxswain.web.pages.charts import over_time
from coxswain.web.regions import REGIONS

__all__ = ["PAGES"]

_PAGE = 100
_ON_MAP = 10_000


def _load(call: Call) -> dict[str, Any]:
    everything = ask(call, "/api/nodes", limit=_ON_MAP).value
    region = call.word("region") or ""
    chosen = [node for node in everything if not region or node["region"] in region.split(",")]
    start = call.word("after") or ""
    rows = [node for node in chosen if node["name"] > start]
    return {
        "s": ask(call, "/api/status").value,
        "map": fleet_map(everything, ask(call, "/api/paths").value),
        "credit": None,
        "nodes": rows[:_PAGE],
        "after": rows[_PAGE - 1]["name"] if len(rows) > _PAGE else None,
        "region": region.replace(",", ", "),
        "region_codes": sorted(REGIONS),
    } | over_time(call)


def _counters(call: Call) -> dict[str, Any]:
    return {"s": ask(call, "/api/status").value}


def _map(call: Call) -> dict[str, Any]:
    nodes = ask(call, "/api/nodes", limit=_ON_MAP).value
    return {"map": fleet_map(nodes, ask(call, "/api/paths").value), "credit": None}


def _rows(call: Call) -> dict[str, Any]:
    keys = call.word("keys")
    if keys is None:
        return {"nodes": _load(call)["nodes"]}
    nodes = []
    for key in keys.split(",")[:_PAGE]:
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
