"""What the rules found: what is open, what somebody takes care of, what is over; and how much of it over time."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.alerts.facts import TITLES
from coxswain.api.call import Call
from coxswain.api.route import Scope
from coxswain.web.alert_chart import alert_chart
from coxswain.web.chart import RANGES, Range
from coxswain.web.names import names_of
from coxswain.web.page import ask, fragment, page, tolerant

__all__ = ["PAGES", "alerts_about"]

_PAGE = 25
_FEW = 5
_FILTERS = ("show", "severity", "kind", "device", "user", "node", "after", "range")
_VIEWS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("open", "Open", {"status": "open", "snoozed": "false"}),
    ("acknowledged", "Acknowledged", {"status": "acknowledged", "snoozed": "false"}),
    ("snoozed", "Snoozed", {"snoozed": "true"}),
    ("resolved", "Resolved", {"status": "resolved"}),
    ("all", "All", {}),
)


def _list(call: Call) -> dict[str, Any]:
    query = {name: call.word(name) or "" for name in _FILTERS}
    show, _, wanted = next((view for view in _VIEWS if view[0] == query["show"]), _VIEWS[0])
    of = {name: query[name] for name in ("severity", "kind", "device", "user", "node", "after")}
    found = ask(call, "/api/alerts", limit=_PAGE, **wanted, **of)
    rows = found.value["alerts"]
    return {
        "alerts": rows,
        "names": _names(call, rows),
        "after": found.after,
        "query": query | {"show": show},
    }


def _names(call: Call, alerts: list[dict[str, Any]]) -> dict[str, str]:
    return names_of(call, alerts, "device_id", "user_id", "node_id")


def alerts_about(call: Call, **of: str) -> dict[str, Any]:
    """What is not resolved about one node, user or device, for its own page. ``of``: a filter of ``GET /api/alerts``."""
    found = tolerant(call, "/api/alerts", None, limit=_FEW, unresolved="true", **of)
    return {"about": found and found["alerts"], "about_query": of}


def _load(call: Call) -> dict[str, Any]:
    rules = tolerant(call, "/api/analytics/status", None)
    warning = rules["backend_warning"] if rules else ""
    return (
        _list(call)
        | _chart(call)
        | {
            "rules": rules,
            "warning": warning,
            "views": [(name, title) for name, title, _ in _VIEWS],
            "kinds": TITLES,
        }
    )


def _one(call: Call) -> dict[str, Any]:
    alert = ask(call, f"/api/alerts/{call.path['key']}").value
    return {"a": alert, "names": _names(call, [alert]), "title": alert["title"], "here": "/alerts"}


def _count(call: Call) -> dict[str, Any]:
    return {"open_alerts": ask(call, "/api/alerts/summary").value["open"]}


def _range(call: Call) -> Range:
    wanted = call.word("range")
    return next((span for span in RANGES if span.name == wanted), RANGES[1])


def _chart(call: Call) -> dict[str, Any]:
    span = _range(call)
    since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=span.seconds)
    stamp = since.isoformat(timespec="seconds").replace("+00:00", "Z")
    series = tolerant(call, "/api/alerts/series", None, since=stamp)  # a page is more than its chart
    return {"chart": alert_chart(series, span) if series else None, "spans": RANGES, "range": span.name}


def _about(call: Call) -> dict[str, Any]:
    kind, key = call.path["kind"], call.path["key"]
    return alerts_about(call, **({kind: key} if kind in ("node", "user", "device") else {"node": "-"}))


_MONITOR = Scope.MONITOR

PAGES = (
    page("/alerts", "alerts.html", _load, title="Alerts", scope=_MONITOR, query=_FILTERS),
    page("/alerts/{key}", "alert.html", _one, title="Alert", scope=_MONITOR),
    fragment("/ui/fragments/alerts", "_alerts.html", _list, scope=_MONITOR, query=_FILTERS),
    fragment("/ui/fragments/alerts/count", "_alert_count.html", _count, scope=_MONITOR),
    fragment("/ui/fragments/alerts/chart", "_alert_chart.html", _chart, scope=_MONITOR, query=_FILTERS),
    fragment("/ui/fragments/alerts/about/{kind}/{key}", "_alerts_about.html", _about, scope=_MONITOR),
    fragment("/ui/fragments/alerts/{key}", "_alert.html", _one, scope=_MONITOR),
)
