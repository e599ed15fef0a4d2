"""Times as people write them: when it was, or how long ago that is. For options of commands and fields of pages; the API
itself takes RFC 3339 alone (management-plane.md 3.2).
"""

from __future__ import annotations

import datetime as dt
import re

__all__ = ["FORMS", "moment"]

FORMS = "like 30m, 24h or 7d, nor like 2026-01-02 or 2026-01-02T03:04:05Z"
"""For the sentence that something is neither …"""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?[smhdw])+")
_PART = re.compile(r"([0-9.]+)([smhdw])")


def moment(text: str, now: dt.datetime, zone: dt.tzinfo | None = None) -> str:
    """RFC 3339 in UTC, as the API takes it. Raises ``ValueError``.

    Args:
        text: a date, a date and a time, or how long ago (as Go writes durations, and days and weeks).
        now: for how long ago it was.
        zone: of what has no offset; None: that of this machine.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            seconds = sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
            found = now - dt.timedelta(seconds=seconds)
        else:
            found = dt.datetime.fromisoformat(text)
            if found.tzinfo is None and zone is not None:
                found = found.replace(tzinfo=zone)
        return found.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:  # the year 0 and before are no times
        raise ValueError(f"{text!r} is in no year") from None
