"""Times as people write them."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.moments import moment

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("30m", "2026-03-01T11:30:00"),
        ("24h", "2026-02-28T12:00:00"),
        ("7d", "2026-02-22T12:00:00"),
        ("1w", "2026-02-22T12:00:00"),
        ("0s", "2026-03-01T12:00:00"),
        ("1h30m", "2026-03-01T10:30:00"),
        ("1.5h", "2026-03-01T10:30:00"),
        ("720h0m0s", "2026-01-30T12:00:00"),
        (" 2h ", "2026-03-01T10:00:00"),
        ("2026-01-31", "2026-01-31T00:00:00"),
        ("2026-01-31 08:15", "2026-01-31T08:15:00"),
        ("2026-01-31T08:15:30Z", "2026-01-31T08:15:30"),
        ("2026-01-31T08:15:30+02:00", "2026-01-31T06:15:30"),
    ],
)
def test_what_people_write(text: str, wanted: str) -> None:
    assert moment(text, NOW, dt.UTC) == f"{wanted}.000000Z"


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "5", "h", "-2h", "1h 30m", "1y", "1..5h", "\u0663h", "2026-02-30", "999999999w", "9" * 5_000 + "h"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        moment(text, NOW, dt.UTC)


def test_a_day_is_one_of_the_zone() -> None:
    assert moment("2026-01-31", NOW, dt.timezone(dt.timedelta(hours=2))) == "2026-01-30T22:00:00.000000Z"


@given(st.text(max_size=30) | st.from_regex(r"[0-9.smhdw:TZ+-]{1,30}", fullmatch=True))
def test_any_text_is_a_time_or_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        found = moment(text, NOW, dt.UTC)
        assert dt.datetime.fromisoformat(found).tzinfo is dt.UTC
