"""How many alerts were opened when, as stacked columns: 1,000 by 100 units, as in ``coxswain.web.chart``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coxswain.web.chart import HEIGHT, WIDTH, Mark, Range, ticks, time_marks

__all__ = ["AlertChart", "alert_chart"]

_SEVERITIES = ("critical", "warning", "info")
_GAP = 0.12


@dataclass(frozen=True, slots=True)
class Part:
    """One rectangle: the alerts of one severity that were opened in one stretch."""

    x: float
    width: float
    y: float
    height: float
    severity: str
    words: str


@dataclass(frozen=True, slots=True)
class AlertChart:
    """``totals``: how many of each severity. ``table``: stretches in which there were any, the newest first."""

    range: Range
    parts: tuple[Part, ...]
    totals: tuple[tuple[str, int], ...]
    y: tuple[Mark, ...]
    x: tuple[Mark, ...]
    words: str
    table: tuple[tuple[str, tuple[int, ...]], ...]


def alert_chart(series: Mapping[str, Any], span: Range) -> AlertChart:
    """From what ``GET /api/alerts/series`` answers."""
    points: Sequence[Mapping[str, Any]] = series["points"]
    scale = ticks(max((sum(point[severity] for severity in _SEVERITIES) for point in points), default=0), whole=True)
    top = scale[-1]
    width = WIDTH / max(1, len(points))
    parts, table = [], []
    for place, point in enumerate(points):
        below = 0
        for severity in _SEVERITIES:
            count = point[severity]
            if count:
                height = HEIGHT * count / top
                y = HEIGHT - HEIGHT * below / top - height
                x = width * (place + _GAP)
                words = f"{point['at'][:16].replace('T', ' ')} UTC: {count} {severity}"
                across = width * (1 - 2 * _GAP)
                parts.append(Part(round(x, 1), round(across, 1), round(y, 1), round(height, 1), severity, words))
                below += count
        if below:
            table.append((point["at"], tuple(point[severity] for severity in _SEVERITIES)))
    totals = tuple((severity, sum(point[severity] for point in points)) for severity in _SEVERITIES)
    since = dt.datetime.fromisoformat(series["since"])
    said = ", ".join(f"{count} {severity}" for severity, count in totals)
    return AlertChart(
        span,
        tuple(parts),
        totals,
        tuple(Mark(round(100 - 100 * value / top, 2), f"{value:,.0f}") for value in scale),
        time_marks(since, series["step_seconds"] * len(points), span),
        f"Alerts that were opened in {span.words}: {said}.",
        tuple(reversed(table)),
    )
