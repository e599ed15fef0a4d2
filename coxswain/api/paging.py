"""Pages of lists that are short enough for their owner to answer whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from coxswain.api.call import ALL, LONGEST_SEARCH, Call
from coxswain.api.route import Param, Reply
from coxswain.api.schema import limited
from coxswain.errors import NotFound

__all__ = ["LIMIT", "PAGE", "page_of", "search"]

T = TypeVar("T")

LIMIT = Param("limit", "how many at most; 0 or absent: all", limited(0, ALL))

PAGE = (Param("after", "the cursor of the page before: an id"), LIMIT)
"""The parameters of a list that ``page_of`` cuts."""


def search(where: str) -> Param:
    """The parameter that ``Call.wanted`` reads. ``where``: in what it looks."""
    schema = {"type": "string", "maxLength": LONGEST_SEARCH}
    return Param("q", f"a part of {where}, in any case of its letters, or an id", schema)


def page_of(call: Call, found: Sequence[T], id_of: Callable[[T], str], view: Callable[[T], Any]) -> Reply:
    """The page of ``found`` that was asked for. Raises ``NotFound`` if what ``after`` names is not there (any more)."""
    start, after, limit = 0, call.word("after"), call.limit(ALL, ALL)
    if after:
        places = [place for place, item in enumerate(found) if id_of(item) == after]
        if not places:
            raise NotFound(f"after: there is no {after[:80]!r} in this list", remedy="Start from the first page.")
        start = places[0] + 1
    page = found[start : start + limit]
    more = len(found) > start + len(page)
    return Reply([view(item) for item in page], after=id_of(page[-1]) if page and more else None)
