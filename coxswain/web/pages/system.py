"""The controller itself: its service tree as it is now, and its certificates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coxswain.api.call import Call
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES"]

_PAGE = 50


def _rows(call: Call) -> dict[str, Any]:
    status = ask(call, "/api/status").value
    return {"tree": list(_flat(ask(call, "/api/tree", links="false").value, 0)), "chaos": status["chaos"]}


def _flat(node: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """The tree as rows; node links have a table of their own, or a fleet of thousands would bury the rest."""
    yield node | {"depth": depth}
    for child in node["children"]:
        yield from _flat(child, depth + 1)


def _links(call: Call) -> dict[str, Any]:
    query = {"links": call.word("links") or "", "q": call.word("q") or "", "after": call.word("after") or ""}
    every = "true" if query["links"] == "all" else None
    found = ask(call, "/api/tree/links", all=every, q=query["q"], after=query["after"], limit=_PAGE)
    return {"links": found.value, "after": found.after, "query": query, "chaos": call.services.identity.chaos}


def _counters(call: Call) -> dict[str, Any]:
    return {"s": ask(call, "/api/status").value}


def _load(call: Call) -> dict[str, Any]:
    return _counters(call) | _rows(call) | _links(call) | {"ca": ask(call, "/api/ca").value}


_QUERY = ("links", "q", "after")

PAGES = (
    page("/system", "system.html", _load, title="System", query=_QUERY),
    fragment("/ui/fragments/system", "_system_counters.html", _counters, query=_QUERY),
    fragment("/ui/rows/tree", "_tree_rows.html", _rows, query=_QUERY),
    fragment("/ui/fragments/system/links", "_link_table.html", _links, query=_QUERY),
)
