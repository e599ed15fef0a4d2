"""Times as options of commands take them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import click

from coxswain.moments import FORMS, moment

__all__ = ["Moment"]


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A time, or how long ago that was; becomes RFC 3339 in UTC, as the API takes it. Without an offset it is a time of this
    machine.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return moment(value, dt.datetime.now(dt.UTC))
        except ValueError:
            self.fail(f"{value!r} is neither {FORMS}", param, ctx)
