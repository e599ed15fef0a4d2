"""Traffic, sessions and availability over time: a part of the fleet's page and of each node's."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.api.call import Call
from coxswain.api.route import Scope
from coxswain.errors import CoxswainError, NotFound
from coxswain.web.chart import RANGES, Charts, Range, charts
from coxswain.web.page import ask, fragment

__all__ = ["PAGES", "over_time"]


def over_time(call: Call, node: str | None = None) -> dict[str, Any]:
    """What ``_over_time.html`` needs. ``node``: its id; None: the fleet."""
    span = _range(call)
    of = {
        "here": f"/nodes/{node}" if node else "/",
        "fragment": f"/ui/fragments/charts/{node}" if node else "/ui/fragments/charts",
        "range": span.name,
    }
    return {"c": _charts(call, span, node), "spans": RANGES, "charts_of": of}


def _fragment(call: Call) -> dict[str, Any]:
    return {"c": _charts(call, _range(call), call.path.get("key"))}


def _range(call: Call) -> Range:
    wanted = call.word("range")
    return next((span for span in RANGES if span.name == wanted), RANGES[0])


def _charts(call: Call, span: Range, node: str | None) -> Charts | None:
    """None: not to be had just now. A page is more than its charts."""
    since = (
        (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=span.seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
    try:
        return charts(ask(call, "/api/metrics/series", since=since, node=node).value, span)
    except NotFound:
        raise
    except CoxswainError:
        return None


_QUERY = ("range", "region", "after")

PAGES = (
    fragment("/ui/fragments/charts", "_charts.html", _fragment, scope=Scope.MONITOR, query=_QUERY),
    fragment("/ui/fragments/charts/{key}", "_charts.html", _fragment, scope=Scope.MONITOR, query=_QUERY),
)
