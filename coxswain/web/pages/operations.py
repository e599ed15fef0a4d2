"""Changes of several steps, as they happen."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page, tolerant
from coxswain.web.render import Gone

__all__ = ["PAGES", "names_of_targets", "under_way"]

_PAGE = 50
_OVER = ("done", "undone", "cancelled")
_TOLD_AT_ONCE = ("srv_", "pth_", "rly_", "cpath_")
"""Of these the inventory itself knows whether they are there."""


def under_way(call: Call, key: str) -> dict[str, Any]:
    """What is being done to that thing, or failed and waits for somebody; the newest first."""
    found = tolerant(call, "/api/operations", [], target=key, limit=5)
    return {"under_way": [each for each in found if each["state"] not in _OVER and not each["overtaken_by"]]}


def names_of_targets(operations: list[dict[str, Any]], known: dict[str, str]) -> dict[str, str]:
    """What operations are about and no inventory has: each knows what that is to be, or was, called. ``known``: the names
    of what is there.
    """
    found: dict[str, str] = {}
    for each in operations:
        target, name = each["target_id"], each["params"].get("name")
        if not target or not name or target in known:
            continue
        if target == each["params"].get("ssh_host"):  # a machine that is not in yet goes by its address
            name = f"{name} ({target})"
        elif each["state"] == "done" and target.startswith(_TOLD_AT_ONCE):
            name = f"{name} (removed)"
        found.setdefault(target, Gone(name))
    return found


def _list(call: Call) -> dict[str, Any]:
    after = call.word("after") or ""
    found = ask(call, "/api/operations", limit=_PAGE, after=after)
    names = names_of(call, found.value, "target_id")
    names |= names_of_targets(found.value, names)
    return {"operations": found.value, "names": names, "after": found.after, "query": {"after": after}}


def _show(call: Call) -> dict[str, Any]:
    found = ask(call, f"/api/operations/{call.path['key']}").value
    given = [each for value in found["params"].values() for each in (value if isinstance(value, list) else [value])]
    rows = [each if isinstance(each, dict) else {"target_id": each} for each in given]  # a rollout's nodes are dicts
    names: dict[str, str] = {each["node_id"]: Gone(each["name"]) for each in rows if {"node_id", "name"} <= each.keys()}
    names |= names_of(call, [found, *rows], "target_id", "node_id")
    names |= names_of_targets([found], names)
    return {"o": found, "names": names, "here": "/operations"}


PAGES = (
    page("/operations", "operations.html", _list, title="Operations", query=("after",)),
    page("/operations/{key}", "operation.html", _show, title="Operation"),
    fragment("/ui/fragments/operations", "_operations.html", _list, query=("after",)),
    fragment("/ui/fragments/operations/{key}", "_operation.html", _show),
)
