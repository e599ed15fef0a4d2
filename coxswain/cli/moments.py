"""Times as options of commands take them: when it was, or how long ago that is."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click

__all__ = ["Moment"]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A time, or how long ago that was; becomes RFC 3339 in UTC, as the API takes it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return _written(_parsed(value))
        except (ValueError, OverflowError):  # the year 0 and before are no times
            self.fail(f"{value!r} is neither like 30m, 24h or 7d, nor like 2026-01-02 or 2026-01-02T03:04:05Z", param, ctx)


def _parsed(value: str) -> dt.datetime:
    count, unit = value[:-1], value[-1:]
    if unit in _UNITS and count.isascii() and count.isdigit():
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(count) * _UNITS[unit])
    return dt.datetime.fromisoformat(value)


def _written(moment: dt.datetime) -> str:
    """Without an offset it is a time of this machine."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
