"""Who is, and was, connected."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Scope
from coxswain.errors import InvalidInput, NotFound
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES", "recent_sessions"]

_PAGE = 50
_FEW = 10
_FILTERS = ("active", "node", "device", "user", "country")


def _load(call: Call) -> dict[str, Any]:
    query = {name: call.word(name) or "" for name in (*_FILTERS, "after")}
    try:
        found = ask(call, "/api/sessions/history", limit=_PAGE, **query)
    except (InvalidInput, NotFound) as error:  # beside the form, where it is put right
        return {"sessions": [], "after": None, "query": query, "problem": str(error), "remedy": error.remedy}
    return {"sessions": found.value, "after": found.after, "query": query, "problem": ""}


def recent_sessions(call: Call, **of: str) -> dict[str, Any]:
    """The last few sessions of one node, user or device, for its own page."""
    rows = ask(call, "/api/sessions/history", limit=_FEW, **of).value
    return {"sessions": rows, "problem": ""}


PAGES = (
    page("/sessions", "sessions.html", _load, title="Sessions", scope=Scope.MONITOR, query=(*_FILTERS, "after")),
    fragment("/ui/fragments/sessions", "_session_table.html", _load, scope=Scope.MONITOR, query=(*_FILTERS, "after")),
)
