"""How many alerts there are now, and were opened over time: the dashboard's badge and chart."""

from __future__ import annotations

import datetime as dt
from typing import Any

from coxswain.alerts.model import Severity
from coxswain.api.call import Call
from coxswain.api.route import Param, Route, Scope
from coxswain.api.schema import INT, STAMP, array, limited, obj, shape
from coxswain.errors import InvalidInput
from coxswain.messages import alerts as m

__all__ = ["ROUTES"]

_MOST_POINTS = 1_000
_POINTS = 60
_STEPS_S = (300, 1_800, 10_800, 43_200, 86_400, 604_800, 2_592_000)
_DAY_S = 86_400
_SEVERITIES = tuple(severity.value for severity in Severity)
_COUNTS = dict.fromkeys(_SEVERITIES, INT)
SUMMARY = shape("AlertSummary", obj({"open": INT, **_COUNTS}))
SERIES = shape(
    "AlertSeries",
    obj({"since": STAMP, "step_seconds": INT, "points": array(obj({"at": STAMP, **_COUNTS}))}),
)  # fmt: skip


def _summary(call: Call) -> Any:
    found: dict[str, int] = call.ask("alert_engine", m.CountOpen())
    counts = {severity: found.get(severity, 0) for severity in _SEVERITIES}
    return {"open": sum(counts.values()), **counts}


def _series(call: Call) -> Any:
    """Stretches begin at whole multiples of the step since the epoch; the last one is that of now."""
    now = dt.datetime.now(dt.UTC).timestamp()
    asked = call.instant("since")
    since = now - _DAY_S if asked is None else asked / 1e6
    step = call.number("step", None, low=60, high=2_592_000) or _step(now - since)
    first, last = int(since // step), int(now // step)
    if last - first >= _MOST_POINTS:
        raise InvalidInput(f"step: {step} s since then makes more than {_MOST_POINTS} points; take a longer one")
    found: dict[tuple[int, str], int] = call.ask("alert_engine", m.CountOpened(first * step * 1_000_000, step * 1_000_000))
    points = [
        {"at": _at(stretch * step), **{severity: found.get((stretch, severity), 0) for severity in _SEVERITIES}}
        for stretch in range(first, last + 1)
    ]
    return {"since": _at(first * step), "step_seconds": step, "points": points}


def _at(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat().replace("+00:00", "Z")


def _step(seconds: float) -> int:
    return next((step for step in _STEPS_S if seconds / step <= _POINTS), _STEPS_S[-1])


ROUTES = (
    Route("GET", "/api/alerts/summary", Scope.MONITOR, "How many alerts wait for somebody.", _summary, returns=SUMMARY),
    Route(
        "GET", "/api/alerts/series", Scope.MONITOR, "How many alerts were opened over time, by severity.", _series,
        returns=SERIES,
        query=(
            Param("since", "from when on; absent: a day ago", STAMP),
            Param("step", "seconds of each stretch; absent: so that there are at most 60", limited(60, 2_592_000)),
        ),
    ),
)  # fmt: skip
