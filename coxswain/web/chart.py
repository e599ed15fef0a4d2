"""Charts as SVG: from a time series, as the API tells it, to what the template draws.

A chart is a picture of 1,000 by 100 units that the browser stretches to its card; lines and words are not stretched.
Everything is an attribute, because the pages' policy allows no style in them. What is not known is left blank and shaded,
never drawn as 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from coxswain.web.render import human_bytes

__all__ = [
    "HEIGHT",
    "RANGES",
    "WIDTH",
    "Bar",
    "Bars",
    "Chart",
    "Charts",
    "Line",
    "Mark",
    "Range",
    "charts",
    "ticks",
    "time_marks",
]

WIDTH, HEIGHT = 1_000, 100
_BARS = 60
_STILL_NOW = 3
_LEAST = 1e-6
"""What is less than this (of bytes, of sessions) is drawn as what it is: nothing."""
_TABLE_ROWS = 24

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Range:
    """A time that charts may show. ``tick_s``: seconds between two words below them; ``clock``: what these say."""

    name: str
    title: str
    words: str
    seconds: int
    tick_s: int
    clock: str


RANGES = (
    Range("day", "24 h", "the last 24 hours", 86_400, 6 * 3_600, "time"),
    Range("week", "7 days", "the last 7 days", 7 * 86_400, 86_400, "day"),
    Range("month", "30 days", "the last 30 days", 30 * 86_400, 7 * 86_400, "date"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A word at an axis; ``at``: per cent of its length. ``iso``: the time that it stands for."""

    at: float
    text: str
    iso: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: path data, what it is now (in words), and all its values, for the script that tells the one pointed at."""

    name: str
    line: str
    area: str
    now: str
    values: str


@dataclass(frozen=True, slots=True)
class Chart:
    """``unknown``: path data of what nothing is known of. ``y``: words at the left, in per cent from the top."""

    title: str
    kind: str
    lines: tuple[Line, ...]
    unknown: str
    y: tuple[Mark, ...]
    x: tuple[Mark, ...]
    words: str
    is_empty: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One column, in units of the picture; ``tone``: how good it is; ``words``: for the tooltip."""

    x: float
    width: float
    height: float
    tone: str
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Availability: a column for each stretch."""

    title: str
    bars: tuple[Bar, ...]
    mean: str
    y: tuple[Mark, ...]
    x: tuple[Mark, ...]
    words: str
    is_empty: bool


@dataclass(frozen=True, slots=True)
class Charts:
    """All of one subject, over one range. ``table``: the same as rows, the newest first: time and four cells."""

    range: Range
    since: str
    step: int
    traffic: Chart
    sessions: Chart
    availability: Bars
    table: tuple[tuple[str, tuple[str, ...]], ...]


_SHARES = (Mark(100.0, "0 %"), Mark(50.0, "50 %"), Mark(0.0, "100 %"))


def charts(series: Mapping[str, Any], span: Range) -> Charts:
    """From what ``GET /api/metrics/series`` answers."""
    points = series["points"]
    to_clients = [point["tx_bytes_per_second"] for point in points]
    from_clients = [point["rx_bytes_per_second"] for point in points]
    sessions = [point["sessions"] for point in points]
    available = [point["availability"] for point in points]
    since = dt.datetime.fromisoformat(series["since"])
    marks = time_marks(since, series["step_seconds"] * len(points), span)
    below = span, marks
    traffic = (("Down", to_clients), ("Up", from_clients))
    return Charts(
        span,
        series["since"],
        series["step_seconds"],
        _chart("Traffic", "traffic", traffic, _rate, below),
        _chart("Sessions", "sessions", (("Open sessions", sessions),), _count, below),
        _bars(available, marks, since, series["step_seconds"], span),
        _table([point["at"] for point in points], to_clients, from_clients, sessions, available),
    )


def ticks(most: float, *, whole: bool = False) -> tuple[float, ...]:
    """Round numbers from 0 up to the first one that is not below ``most``: up to four steps of 1, 2 or 5 times 10**n.

    ``whole``: none between two whole numbers.
    """
    if most < _LEAST:
        return 0.0, 1.0
    size = 1.0
    while size > most:
        size /= 10
    while size * 10 <= most:
        size *= 10
    step = next(step for step in (size / 5, size / 2, size, 2 * size, 5 * size) if step * 4 >= most)
    if whole:
        step = max(1.0, step)
    count = 1
    while step * count < most:
        count += 1
    return tuple(step * number for number in range(count + 1))


def _chart(
    title: str,
    kind: str,
    series: Sequence[tuple[str, Values]],
    words: Callable[[float | None], str],
    below: tuple[Range, tuple[Mark, ...]],
) -> Chart:
    span, x = below
    known = [value for _, values in series for value in values if value is not None]
    scale = ticks(max(known, default=0.0), whole=words is _count)
    top = scale[-1]
    lines = []
    said = []
    for name, values in series:
        line, area = _paths(values, top)
        have = [value for value in values if value is not None]
        now, most = words(_latest(values)), words(max(have, default=None))
        lines.append(Line(name, line, area, now, ",".join("" if v is None else f"{v:.4g}" for v in values)))
        mean = words(sum(have) / len(have) if have else None)
        said.append(f"{name}: now {now}, on average {mean}, at most {most}")
    gaps = _unknown([all(values[place] is None for _, values in series) for place in range(len(series[0][1]))])
    y = tuple(Mark(round(100 - 100 * value / top, 2), words(value)) for value in scale)
    return Chart(title, kind, tuple(lines), gaps, y, x, f"{title}, {span.words}. {'. '.join(said)}.", not known)


def _paths(values: Values, top: float) -> tuple[str, str]:
    """A line through the middle of each stretch, and the area below it; both begin anew after what is not known."""
    width = WIDTH / max(1, len(values))
    line, area = [], []
    for known, run in groupby(enumerate(values), key=lambda pair: pair[1] is not None):
        if not known:
            continue
        places = [(width * (place + 0.5), HEIGHT - HEIGHT * (value or 0.0) / top) for place, value in run]
        if len(places) == 1:  # a point has no length
            (x, y) = places[0]
            places = [(x - width / 2, y), (x + width / 2, y)]
        drawn = "L".join(f"{x:.4g} {y:.3g}" for x, y in places)
        line.append(f"M{drawn}")
        area.append(f"M{places[0][0]:.4g} {HEIGHT}L{drawn}L{places[-1][0]:.4g} {HEIGHT}z")
    return "".join(line), "".join(area)


def _unknown(unknown: Sequence[bool]) -> str:
    """Rectangles over the stretches of which nothing is known."""
    width = WIDTH / max(1, len(unknown))
    drawn = []
    for is_unknown, run in groupby(enumerate(unknown), key=lambda pair: pair[1]):
        if is_unknown:
            places = [place for place, _ in run]
            drawn.append(f"M{width * places[0]:.4g} 0h{width * len(places):.4g}v{HEIGHT}h-{width * len(places):.4g}z")
    return "".join(drawn)


def _bars(available: Values, x: tuple[Mark, ...], since: dt.datetime, step: int, span: Range) -> Bars:
    per_bar = -(-len(available) // _BARS) or 1
    count = -(-len(available) // per_bar)
    width = WIDTH / max(1, count)
    bars = []
    for number in range(count):
        mean = _mean(available[number * per_bar : (number + 1) * per_bar])
        at = (since + dt.timedelta(seconds=step * per_bar * number)).strftime("%d %b %H:%M UTC")
        height = HEIGHT if mean is None else max(6.0, HEIGHT * mean)
        bars.append(Bar(round(width * (number + 0.12), 1), round(width * 0.76, 1), round(height, 1), _how_good(mean),
                        f"{at}: {_share(mean)}"))  # fmt: skip
    mean = _mean(available)
    known = sum(value is not None for value in available)
    words = f"Availability of links, {span.words}: {_share(mean)} of the time that is known"
    return Bars("Links up", tuple(bars), _share(mean), _SHARES, x, f"{words}.", not known)


def time_marks(since: dt.datetime, seconds: int, span: Range) -> tuple[Mark, ...]:
    """Words below a chart at round times, but none so near an edge that it would be cut."""
    begin = int(since.timestamp())
    first = -(-begin // span.tick_s) * span.tick_s
    found = []
    for at in range(first, begin + seconds + 1, span.tick_s):
        share = 100 * (at - begin) / max(1, seconds)
        if 4 <= share <= 96:
            moment = dt.datetime.fromtimestamp(at, dt.UTC)
            text = moment.strftime({"time": "%H:%M", "day": "%a", "date": "%d %b"}[span.clock])
            found.append(Mark(round(share, 2), text, moment.isoformat().replace("+00:00", "Z")))
    return tuple(found)


def _table(at: Sequence[str], *columns: Values) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """At most so many rows that somebody may want to hear them; each is the mean of what it stands for."""
    per_row = -(-len(at) // _TABLE_ROWS) or 1
    words = (_rate, _rate, _count, _share)
    rows = []
    for start in range(0, len(at), per_row):
        cells = tuple(word(_mean(column[start : start + per_row])) for word, column in zip(words, columns, strict=True))
        rows.append((at[start], cells))
    return tuple(reversed(rows))


def _latest(values: Values) -> float | None:
    """The newest stretch has only just begun and may have nothing in it yet."""
    return next((value for value in reversed(values[-_STILL_NOW:]) if value is not None), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rate(value: float | None) -> str:
    return human_bytes(None if value is None else round(value)) + ("" if value is None else "/s")


def _count(value: float | None) -> str:
    if value is None:
        return human_bytes(None)
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _share(value: float | None) -> str:
    """Never 100 % where something was missing."""
    if value is None:
        return "not known"
    if value >= 1:
        return "100 %"
    return f"{min(99.99, 100 * value):.2f} %"


def _how_good(mean: float | None) -> str:
    if mean is None:
        return "none"
    return "good" if mean >= 0.999 else "warn" if mean >= 0.95 else "bad"
