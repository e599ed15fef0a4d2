"""What is in a query string beside the parameters that its route takes.

Existing callers send more than anybody reads (a cache buster, ``pretty=1``), and it goes unheeded (management-plane.md 3.2).
A filter that was meant and goes unheeded answers with everything, though, so what looks meant is refused: a near miss of
what the route takes, what another route reads, and a credential, which would stand in every log on the way.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from coxswain.api.route import Route
from coxswain.errors import InvalidInput

__all__ = ["IGNORED", "beside", "given", "meaningful", "names", "refuse_in_body"]

IGNORED = "Cox-Ignored-Parameters"
"""The header that names what went unheeded."""

_NEAR = 0.7
"""``stauts`` and ``status`` are more alike than this; ``ts``, ``_``, ``pretty`` and ``format`` are like nothing."""

_CREDENTIALS = frozenset({"token", "access_token", "api_token", "api_key", "apikey", "authorization", "bearer", "password"})
_GUARDS = frozenset({"dry_run", "dry-run", "dryrun", "if_match", "if-match", "etag", "revision", "rev", "ver"})
"""Whoever sends one with a change means it not to be done just like that."""

_MOST_OTHERS = 20
"""Comparing them takes time, also on routes that ask nobody who they are."""

_MOST_NAMES = 8
_MOST_NAME = 40


def meaningful(routes: Iterable[Route]) -> frozenset[str]:
    """What some route reads, but ``limit``, which chooses nothing: who bounds what has no pages loses nothing."""
    return frozenset(param.name for route in routes for param in route.query) - {"limit"}


def beside(route: Route, params: Iterable[str], elsewhere: frozenset[str]) -> list[str]:
    """The names in ``params`` that the route does not take and that mean nothing. Raises ``InvalidInput`` for the others.

    ``elsewhere``: what ``meaningful`` found.
    """
    taken = sorted(param.name for param in route.query)
    others = [name for name in params if name not in taken]
    if len(others) > _MOST_OTHERS:
        raise InvalidInput(f"{len(others)} unknown parameters are too many; at most {_MOST_OTHERS}")
    for name in others:
        like = name.lower()
        near = difflib.get_close_matches(like[:_MOST_NAME], taken, n=1, cutoff=_NEAR)
        guard = route.unsafe and (like in _GUARDS or any(each in like for each in taken))
        if near or guard or like in elsewhere or like in _CREDENTIALS:
            known = ", ".join(taken) or "none"
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidInput(f"{name[:80]!a}: unknown parameter{hint}; accepted are {known}")
    return others


def names(found: list[str]) -> str:
    """The value of ``IGNORED``: percent-encoded, as anybody can write anything into an address, and not very long."""
    shown = [quote(name[:_MOST_NAME], safe="", errors="replace") for name in found[:_MOST_NAMES]]
    return ", ".join(shown + ["..."] * (len(found) > _MOST_NAMES))


def given(route: Route, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """What handlers read, of what the route takes. ``?since=&until=`` of a form that was not filled in asks for nothing; but
    a change whose guard is empty, ``?version=``, must not go unguarded.
    """
    taken = {param.name: param for param in route.query if param.name in params}
    return {name: params[name] for name, param in taken.items() if params[name] != "" or route.unsafe or param.empty_counts}


def refuse_in_body(route: Route, named: frozenset[str]) -> None:
    """Bodies of routes that take none go unheeded (management-plane.md 3.2: "—"); not so a guard in the wrong place."""
    for param in route.query:
        if param.name in named:
            raise InvalidInput(f"{param.name}: belongs into the query string here, as ?{param.name}=")
