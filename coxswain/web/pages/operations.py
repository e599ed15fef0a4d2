"""Changes of several steps, as they happen."""

from __future__ import annotations

from typing import Any

from coxswain.api.call import Call
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES"]

_PAGE = 50


def _list(call: Call) -> dict[str, Any]:
    after = call.word("after") or ""
    found = ask(call, "/api/operations", limit=_PAGE, after=after)
    return {"operations": found.value, "after": found.after, "query": {"after": after}}


def _show(call: Call) -> dict[str, Any]:
    return {"o": ask(call, f"/api/operations/{call.path['key']}").value, "here": "/operations"}


PAGES = (
    page("/operations", "operations.html", _list, title="Operations", query=("after",)),
    page("/operations/{key}", "operation.html", _show, title="Operation"),
    fragment("/ui/fragments/operations", "_operations.html", _list, query=("after",)),
    fragment("/ui/fragments/operations/{key}", "_operation.html", _show),
)
