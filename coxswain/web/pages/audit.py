"""Who did what, and whether the log of it is still what it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Scope
from coxswain.errors import CoxswainError, InvalidInput
from coxswain.moments import FORMS, moment
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page

__all__ = ["PAGES"]

_PAGE = 100
_FILTERS = ("action", "actor", "target_id", "result", "since", "until", "after")


def _load(call: Call) -> dict[str, Any]:
    query = {name: call.word(name) or "" for name in _FILTERS}
    try:
        found = ask(call, "/api/audit", limit=_PAGE, **query | _times(query))
    except InvalidInput as error:  # beside the form, where it is put right
        return {"records": [], "names": {}, "after": None, "query": query, "problem": str(error), "remedy": error.remedy}
    mentioned = ({"id": word} for record in found.value for word in words_of(record.get("detail", {})))
    names = names_of(call, [*found.value, *mentioned], "target_id", "id")
    return {"records": found.value, "names": names, "after": found.after, "query": query, "problem": ""}


def _times(query: dict[str, str]) -> dict[str, str]:
    """``since`` and ``until`` as the API takes them; days are those of UTC, in which the page shows times."""
    now = dt.datetime.now(dt.UTC)
    found = {}
    for name in ("since", "until"):
        if text := query[name]:
            try:
                found[name] = moment(text, now, dt.UTC)
            except ValueError:
                raise InvalidInput(f"{name}: {text[:80]!r} is neither {FORMS}") from None
    return found


def words_of(detail: Any) -> Iterator[str]:
    """Every text in a detail, however deep; some are ids."""
    match detail:
        case str():
            yield detail
        case dict():
            yield from (word for value in detail.values() for word in words_of(value))
        case list():
            yield from (word for value in detail for word in words_of(value))


def _verify(call: Call) -> dict[str, Any]:
    try:
        return {"report": ask(call, "/api/audit/verify").value, "error": ""}
    except CoxswainError as error:
        return {"report": None, "error": str(error)}


PAGES = (
    page("/audit", "audit.html", _load, title="Audit log", scope=Scope.ADMIN, query=_FILTERS),
    fragment("/ui/fragments/audit", "_audit.html", _load, scope=Scope.ADMIN, query=_FILTERS),
    fragment("/ui/fragments/audit/verify", "_verify.html", _verify, scope=Scope.ADMIN),
)
