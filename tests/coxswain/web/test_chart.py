"""What charts draw: round scales, gaps where nothing is known, words that say the same as the picture."""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.web.chart import RANGES, charts, ticks
from coxswain.web.render import render

DASH = "\N{EN DASH}"
DAY, WEEK, MONTH = RANGES
SINCE = dt.datetime(2026, 3, 1, 10, 35, tzinfo=dt.UTC)
known = st.floats(0, 1e12)
values = st.lists(st.one_of(st.none(), known), min_size=1, max_size=80)


def series(*columns: tuple[float | None, ...], step: int = 300) -> dict[str, Any]:
    """Points of (to clients, from clients, sessions, availability)."""
    names = ("tx_bytes_per_second", "rx_bytes_per_second", "sessions", "availability")
    points = [
        {"at": (SINCE + dt.timedelta(seconds=step * number)).isoformat(), **dict(zip(names, column, strict=True))}
        for number, column in enumerate(columns)
    ]
    return {"since": SINCE.isoformat(), "step_seconds": step, "points": points}


@given(st.floats(1e-6, 1e18), st.booleans())
def test_a_scale_is_round_begins_at_0_and_holds_all(most: float, whole: bool) -> None:
    scale = ticks(most, whole=whole)
    assert scale[0] == 0
    assert scale[-1] >= most
    assert scale[-2] < most, "no step more than is needed"
    assert 2 <= len(scale) <= 5
    steps = {f"{b - a:.3g}" for a, b in pairwise(scale)}
    assert len(steps) == 1
    assert f"{scale[1]:e}"[0] in "125"
    assert not whole or all(tick == int(tick) for tick in scale)


@pytest.mark.parametrize("most", [0.0, 5e-324, 1e-300, 9e-7])
def test_nothing_and_next_to_nothing_have_a_scale_too(most: float) -> None:
    assert ticks(most) == (0.0, 1.0)


@given(values)
def test_every_known_value_is_drawn_and_no_other(found: list[float | None]) -> None:
    chart = charts(series(*((value, value, value, None) for value in found)), DAY).traffic
    runs = len(re.findall("M", chart.lines[0].line))
    expected = sum(value is not None and (at == 0 or found[at - 1] is None) for at, value in enumerate(found))
    assert runs == expected
    unknown = len(re.findall("M", chart.unknown))
    assert unknown == sum(value is None and (at == 0 or found[at - 1] is not None) for at, value in enumerate(found))
    heights = [float(pair.split()[1]) for pair in re.findall(r"[\d.e+-]+ [\d.e+-]+", chart.lines[0].line)]
    assert all(0 <= height <= 100 for height in heights)
    assert chart.is_empty == all(value is None for value in found)


def test_an_unknown_stretch_splits_the_line_and_is_no_0() -> None:
    chart = charts(
        series((100.0, 0.0, 1.0, 1.0), (None, None, None, None), (100.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0)), DAY
    )
    assert chart.traffic.lines[0].line == "M0 0L250 0M625 0L875 100"
    assert chart.traffic.unknown == "M250 0h250v100h-250z"
    assert chart.sessions.words == "Sessions, the last 24 hours. Open sessions: now 0, on average 0.7, at most 1."


def test_words_say_unknown_where_nothing_is_known() -> None:
    found = charts(series((None, None, None, None)), DAY)
    assert found.traffic.lines[0].now == DASH
    assert found.availability.mean == "not known"
    assert found.availability.bars[0].tone == "none"
    assert found.table[0][1] == (DASH, DASH, DASH, "not known")
    text = render("_charts.html", {"c": found}).decode()
    assert text.count("Nothing is known of this time yet.") == 3


@pytest.mark.parametrize(
    ("up", "words", "tone"),
    [(1.0, "100 %", "good"), (0.99999, "99.99 %", "good"), (0.97, "97.00 %", "warn"), (0.2, "20.00 %", "bad"),
     (0.0, "0.00 %", "bad")],
)  # fmt: skip
def test_what_was_not_quite_all_of_the_time_is_never_called_all(up: float, words: str, tone: str) -> None:
    found = charts(series((None, None, None, up)), DAY).availability
    assert (found.mean, found.bars[0].tone) == (words, tone)
    assert found.bars[0].height > 0, "also a link that was never up has a column"


@pytest.mark.parametrize(("span", "step"), [(DAY, 300), (WEEK, 3_600), (MONTH, 86_400)])
def test_words_below_are_at_round_times_within_the_picture(span: Any, step: int) -> None:
    count = span.seconds // step
    found = charts(series(*[(1.0, 1.0, 1.0, 1.0)] * count, step=step), span)
    assert 3 <= len(found.traffic.x) <= 7
    for mark in found.traffic.x:
        at = dt.datetime.fromisoformat(mark.iso)
        assert int(at.timestamp()) % span.tick_s == 0
        assert mark.at == pytest.approx(100 * (at - SINCE).total_seconds() / span.seconds, abs=0.01)
    assert len(found.table) <= 24
    assert len(found.availability.bars) <= 60
    assert len(render("_charts.html", {"c": found})) < 40_000


def test_numbers_that_are_large_or_small_keep_their_unit() -> None:
    found = charts(series((1_250_000.0, 999.0, 12.4, 1.0)), DAY)
    assert [line.now for line in found.traffic.lines] == ["1.2 MB/s", "999 B/s"]
    assert [mark.text for mark in found.traffic.y] == ["0 B/s", "500 kB/s", "1.0 MB/s", "1.5 MB/s"]
    assert found.sessions.lines[0].now == "12"
