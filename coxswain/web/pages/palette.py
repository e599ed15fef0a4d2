"""Ctrl-K: finds pages, actions, nodes, users and devices by a part of their name, or of what else the API looks in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from coxswain.api.call import Call
from coxswain.web.navigation import navigation
from coxswain.web.page import ask, fragment

__all__ = ["ACTIONS", "PAGES"]

_MOST = 12

ACTIONS = (
    ("Add a node", "/#add-node"),
    ("Add a path", "/paths#add-path"),
    ("Add a profile", "/profiles#add-profile"),
    ("Add a server", "/servers#add-server"),
    ("Add a user", "/users#add-user"),
    ("Add an admin", "/admins#add-admin"),
    ("Add a control path", "/relays#add-control-path"),
    ("Create an API token", "/tokens#add-token"),
    ("Verify the audit log", "/audit#verify"),
)
"""What an action leads to: the dialog or button of that id on its page (``static/app.js``, ``fromAddress``)."""

_KINDS = (("node", "/api/nodes", "/nodes"), ("user", "/api/users", "/users"), ("device", "/api/devices", "/devices"))


def _find(call: Call) -> dict[str, Any]:
    wanted = call.wanted()
    return {"items": list(islice(_matches(call, wanted), _MOST))}


def _matches(call: Call, wanted: str) -> Iterator[dict[str, str]]:
    from coxswain.web.table import PAGES as ALL  # noqa: PLC0415 - the table has this page in it

    for group in navigation(route.path for route in ALL):
        for href, label in group.links:
            if wanted.lower() in label.lower():
                yield {"href": href, "text": label, "kind": "page"}
    if not wanted:
        return
    for label, href in ACTIONS:
        if wanted.lower() in label.lower():
            yield {"href": href, "text": label, "kind": "action"}
    for kind, route, page in _KINDS:
        for row in ask(call, route, q=wanted, limit=_MOST).value:
            yield {"href": f"{page}/{row['id']}", "text": row["name"], "kind": kind}


PAGES = (fragment("/ui/palette", "_palette.html", _find, query=("q",)),)
