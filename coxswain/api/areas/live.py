"""The live stream (management-plane.md 4): as a WebSocket, as server-sent events, and for whoever polls."""

from __future__ import annotations

import re
from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Reply, Route, Scope
from coxswain.api.schema import INT, array, limited, nullable, obj, shape
from coxswain.errors import InvalidInput, Unavailable
from coxswain.live.frames import CLASSES
from coxswain.live.ring import Stretch
from coxswain.live.start import CAN_HAND_OVER, HAND_OVER, LiveStart, View, check_upgrade
from coxswain.live.wire import sees
from coxswain.messages import hub

__all__ = ["ROUTES"]

_MAX = 2**53 - 1
_EVENT_ID = re.compile(r"[0-9]{1,16}")

EVENTS = shape("Events", obj({"events": array({"type": "object"}), "last_seq": INT, "dropped": nullable(INT)}))


def _websocket(call: Call) -> Any:
    accept = check_upgrade(call.request.env)
    return _hand_over(call, accept, call.number("after") if call.word("after") else None, resumes="after" in _asked(call))


def _server_sent(call: Call) -> Any:
    after = call.number("after") if call.word("after") else None
    seen = call.request.get_header("Last-Event-ID")
    if seen and after is None:
        if not _EVENT_ID.fullmatch(seen):
            raise InvalidInput(f"Last-Event-ID: {seen[:40]!a} is no number of an event")
        after = int(seen)
    return _hand_over(call, "", after, resumes=True)


def _hand_over(call: Call, accept: str, after: int | None, *, resumes: bool) -> Any:
    environ = call.request.env
    if CAN_HAND_OVER not in environ:
        raise Unavailable("there is no live stream at this door")
    environ[HAND_OVER] = LiveStart(
        view=_view(call, websocket=bool(accept)),
        after=after,
        resumes=resumes,
        accept=accept,
        credential=call.door.credential(call.request),
        expires_at=call.who.expires_at,
        who=call.caller.actor,
    )
    return Reply(headers=() if accept else (("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")))


def _recent(call: Call) -> Any:
    after, limit = call.number("after", 0) or 0, call.limit(default=500, high=5_000)
    found: Stretch = call.ask("event_hub", hub.EventsAfter(after, limit))
    view = _view(call, websocket=False)
    return views.events(Stretch([e for e in found.events if sees(view, e)], found.first, found.last, found.missed))


def _view(call: Call, *, websocket: bool) -> View:
    words = call.word("class")
    classes = None if words is None else frozenset(word for word in words.split(",") if word)
    for word in classes or ():
        if word not in CLASSES:
            raise InvalidInput(f"class: {word[:40]!r} is none of {', '.join(CLASSES)}")
    return View(websocket, call.who.scope >= Scope.ADMIN, classes or None)


def _asked(call: Call) -> frozenset[str]:
    """The names in the query string, also those without a value."""
    pairs = str(call.request.query_string).split("&")
    return frozenset(pair.partition("=")[0] for pair in pairs)


_CLASS = Param("class", f"only events of these classes, separated by commas: {', '.join(CLASSES)}")

ROUTES = (
    Route(
        "GET",
        "/ws/events",
        Scope.MONITOR,
        "The live stream as a WebSocket. See live.md.",
        _websocket,
        status=101,
        also=(503,),
        query=(
            Param("after", "the number of the last event that was seen; empty: from now on, but tell numbers"),
            _CLASS,
        ),
        from_own_pages=True,
    ),
    Route(
        "GET",
        "/api/events",
        Scope.MONITOR,
        "The live stream as server-sent events; Last-Event-ID resumes it. See live.md.",
        _server_sent,
        also=(503,),
        media_type="text/event-stream",
        query=(Param("after", "the number of the last event that was seen"), _CLASS),
    ),
    Route(
        "GET",
        "/api/events/recent",
        Scope.MONITOR,
        "The last live events after a number, for whoever polls.",
        _recent,
        returns=EVENTS,
        query=(
            Param("after", "the number of the last event that was seen", limited(0, _MAX)),
            Param("limit", "how many at most; 0 or absent: 500", limited(0, 5_000)),
            _CLASS,
        ),
    ),
)
