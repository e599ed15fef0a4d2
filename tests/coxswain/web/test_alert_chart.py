"""The chart of alerts: columns that stack, words that say the same, and a table."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coxswain.web.alert_chart import alert_chart
from coxswain.web.chart import HEIGHT, RANGES, WIDTH
from coxswain.web.render import render

DAY = RANGES[0]


def series(*counts: tuple[int, int, int]) -> dict[str, Any]:
    points = [
        {"at": f"2026-03-01T{number:02d}:00:00Z", "critical": critical, "warning": warning, "info": info}
        for number, (critical, warning, info) in enumerate(counts)
    ]
    return {"since": "2026-03-01T00:00:00Z", "step_seconds": 3_600, "points": points}


def test_severities_stack_with_the_worst_at_the_bottom() -> None:
    chart = alert_chart(series((1, 2, 1), (0, 0, 0), (0, 0, 2)), DAY)
    bottom, middle, top, other = chart.parts
    assert [part.severity for part in chart.parts] == ["critical", "warning", "info", "info"]
    assert bottom.y + bottom.height == HEIGHT
    assert (middle.y + middle.height, top.y + top.height) == (bottom.y, middle.y)
    assert top.y == 0, "four are as many as the scale goes to"
    assert other.x > top.x
    assert bottom.words == "2026-03-01 00:00 UTC: 1 critical"
    assert chart.words == "Alerts that were opened in the last 24 hours: 1 critical, 2 warning, 3 info."
    assert chart.table == (("2026-03-01T02:00:00Z", (0, 0, 2)), ("2026-03-01T00:00:00Z", (1, 2, 1)))


def test_where_there_were_none_it_says_so() -> None:
    for empty in (series(), series((0, 0, 0))):
        text = render("_alert_chart.html", {"chart": alert_chart(empty, DAY)}).decode()
        assert "None were opened in this time." in text
        assert "<rect" not in text.partition('class="plot"')[2]


@given(st.lists(st.tuples(*(st.integers(0, 10_000),) * 3), max_size=24))
def test_nothing_leaves_the_picture(counts: list[tuple[int, int, int]]) -> None:
    for part in alert_chart(series(*counts), DAY).parts:
        assert part.y >= -0.1 and part.y + part.height <= HEIGHT + 0.15
        assert part.x >= 0 and part.x + part.width <= WIDTH + 0.15
