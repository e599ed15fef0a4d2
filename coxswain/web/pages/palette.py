"""Ctrl-K: finds pages, nodes, users and devices by a part of their name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from coxswain.api.call import Call
from coxswain.web.navigation import navigation
from coxswain.web.page import ask, fragment

__all__ = ["PAGES"]

_MOST = 12
_PAGE = 1_000
_KINDS = (("node", "/api/nodes", "/nodes"), ("user", "/api/users", "/users"), ("device", "/api/devices", "/devices"))


def _find(call: Call) -> dict[str, Any]:
    wanted = (call.word("q") or "").strip().lower()
    return {"items": list(islice(_matches(call, wanted), _MOST))}


def _matches(call: Call, wanted: str) -> Iterator[dict[str, str]]:
    from coxswain.web.table import PAGES as ALL  # noqa: PLC0415 - the table has this page in it

    for group in navigation(route.path for route in ALL):
        for href, label in group.links:
            if wanted in label.lower():
                yield {"href": href, "text": label, "kind": "page"}
    if not wanted:
        return
    for kind, route, page in _KINDS:
        for row in _all(call, route):
            if wanted in row["name"].lower() or wanted in (row.get("email") or "").lower() or wanted == row["id"]:
                yield {"href": f"{page}/{row['id']}", "text": row["name"], "kind": kind}


def _all(call: Call, route: str) -> Iterator[dict[str, Any]]:
    after: str | int | None = None
    while True:
        found = ask(call, route, limit=_PAGE, after=after)
        yield from found.value
        after = found.after
        if after is None:
            return


PAGES = (fragment("/ui/palette", "_palette.html", _find, query=("q",)),)
