"""Pages and fragments as routes: ask the API's handlers, fill a template.

A page never asks an actor itself. What it shows is what the API answers to the same credential, so there is one set of rules
for both, and whatever a page can show a script can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import falcon

from coxswain.api.bodies import Body
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.errors import CoxswainError, Refused
from coxswain.messages.hub import LastEvent
from coxswain.web.navigation import Group, navigation
from coxswain.web.render import render

__all__ = ["HTML", "Answer", "ask", "fragment", "page", "row_keys", "shortest_password", "tolerant"]

HTML = "text/html; charset=utf-8"
Context = Mapping[str, Any]

_MOST_ROWS = 100
_KEY = re.compile(r"\w{1,64}")
"""An id, and nothing that would be another path."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said. ``after``: the cursor of the next page; None: there is none."""

    value: Any
    after: str | int | None = None


def ask(call: Call, path: str, **params: str | int | None) -> Answer:
    """What ``GET path`` answers to whoever asks for the page. Raises ``CoxswainError`` as that does."""
    route, parts = _find(path, call.path.values())
    if call.who.scope < route.scope:
        raise Refused(f"GET {route.path}: needs the scope {route.scope.word}")
    query = {name: str(value) for name, value in params.items() if value not in (None, "")}
    request = cast("falcon.Request", SimpleNamespace(params=query, env=call.request.env))
    inner = Call(call.services, call.door, request, parts, Body({}))
    inner.__dict__["who"] = call.who
    value = route.handler(inner)
    return Answer(value.value, value.after) if isinstance(value, Reply) else Answer(value)


def row_keys(call: Call) -> list[str] | None:
    """The ids of the rows that are asked for, ``?keys=`` with commas; None: all of the page."""
    keys = call.word("keys")
    if keys is None:
        return None
    return [key for key in keys.split(",")[:_MOST_ROWS] if _KEY.fullmatch(key)]


def tolerant(call: Call, path: str, default: Any, **params: str | int | None) -> Any:
    """The value alone; ``default`` where the API cannot say just now. For what a page can do without."""
    try:
        return ask(call, path, **params).value
    except CoxswainError:
        return default


def shortest_password(call: Call) -> int:
    """Characters that a new password has at least, for the forms that take one."""
    return int(call.services.setting("admin.password_min_length"))


def page(
    path: str,
    template: str,
    load: Callable[[Call], Context],
    *,
    title: str,
    scope: Scope = Scope.READONLY,
    query: tuple[str, ...] = (),
) -> Route:
    """A whole page, with navigation around ``template``."""

    def show(call: Call) -> Reply:
        around = {"title": title, "here": path, "who": call.who, "navigation": _navigation(), "seq": _last_event(call)}
        context = {**around, **load(call)}
        return Reply(raw=render(template, context), media_type=HTML)

    return _route(path, f"Page: {title}.", show, scope, query)


def fragment(
    path: str,
    template: str,
    load: Callable[[Call], Context],
    *,
    scope: Scope = Scope.READONLY,
    query: tuple[str, ...] = (),
    personal: bool = False,
) -> Route:
    """A piece of a page, for ``static/live.js``. ``?keys=`` asks for some rows only.

    ``?seen=`` is the number of the newest event that the browser has heard of: pieces that show it are made once, for all
    browsers (``coxswain.live.renderings``). ``personal``: it looks different to different people, so it is made for each.
    """

    def show(call: Call) -> Reply:
        def make() -> bytes:
            return render(template, load(call))

        seen = call.number("seen")
        if personal:
            return Reply(raw=make(), media_type=HTML)
        asked = tuple(sorted((name, str(value)) for name, value in call.query.items() if name != "seen"))
        key = (call.request.path, asked, call.who.scope)
        return Reply(raw=call.services.renderings.get(key, seen, make), media_type=HTML)

    return _route(path, f"Fragment: {template}.", show, scope, ("keys", "seen", *query))


def _route(path: str, summary: str, show: Callable[[Call], Reply], scope: Scope, query: tuple[str, ...]) -> Route:
    params = tuple(Param(name, "see the API route behind this page") for name in query)
    return Route("GET", path, scope, summary, show, query=params, media_type=HTML, also=(404,))


def _last_event(call: Call) -> int | str:
    """The number from which the page follows, so that nothing is lost in between. Empty: nobody knows it now."""
    try:
        found: int = call.ask("event_hub", LastEvent())
    except CoxswainError:
        return ""
    return found


@cache
def _navigation() -> tuple[Group, ...]:
    from coxswain.web.table import PAGES  # noqa: PLC0415 - the table has the pages in it

    return navigation(route.path for route in PAGES)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Route], ...]:
    from coxswain.api.table import ROUTES  # noqa: PLC0415 - only pages need it

    found = [route for route in ROUTES if route.method == "GET" and route.path.startswith("/api/")]
    return tuple((re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path)), route) for route in found)


def _find(path: str, given: Iterable[str]) -> tuple[Route, dict[str, str]]:
    """The route that answers ``path``. ``given``: what somebody wrote in the address of the page. Where it can be a key, it
    is one: ``/alerts/series`` is about an alert of that id, which there is not.
    """
    named = []
    for pattern, route in _patterns():
        match = pattern.fullmatch(path)
        if match:
            named.append((len(match.groupdict()), route, match.groupdict()))
    if not named:
        raise LookupError(f"no GET route answers {path}")
    keys = set(given).intersection(path.split("/"))
    with_them = [found for found in named if keys <= set(found[2].values())]
    _, route, parts = min(with_them or named, key=lambda found: found[0])
    return route, parts
