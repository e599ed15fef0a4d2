"""Live events, for whoever polls."""

from __future__ import annotations

from typing import Any

from coxswain.api import views
from coxswain.api.call import Call
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import INT, array, limited, nullable, obj, shape
from coxswain.messages import hub

__all__ = ["ROUTES"]

EVENTS = shape("Events", obj({"events": array({"type": "object"}), "last_seq": INT, "dropped": nullable(INT)}))


def _events(call: Call) -> Any:
    after, limit = call.number("after", 0) or 0, call.limit(default=500, high=5_000)
    return views.events(call.ask("event_hub", hub.EventsAfter(after, limit)))


ROUTES = (
    Route(
        "GET",
        "/api/events",
        Scope.MONITOR,
        "Live events after a number.",
        _events,
        returns=EVENTS,
        query=(
            Param("after", "the number of the last event that was seen", limited(0, 2**53 - 1)),
            Param("limit", "how many at most; 0 or absent: 500", limited(0, 5_000)),
        ),
    ),
)
