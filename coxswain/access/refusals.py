"""Which refusals get an audit record of their own, so that a flood of them cannot fill the disk.

The first few of an address and minute do; the rest are counted, and become one record when the minute is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Refusals", "Summary"]

_WINDOW_S = 60.0
_OTHERS = "(many addresses)"


@dataclass(frozen=True, slots=True)
class Summary:
    """What was not recorded one by one: ``count`` refusals of ``address`` from ``since`` on, by ``"<status> <route>"``."""

    address: str
    since: float
    count: int
    what: dict[str, int]


@dataclass(slots=True)
class _Minute:
    since: float
    seen: int = 0
    counted: dict[str, int] = field(default_factory=dict)


class Refusals:
    """Not thread-safe: it belongs to one actor.

    Args:
        each: records of its own that an address gets in a minute.
        most_addresses: kept apart at once; those beyond share one.
        most_kinds: of routes and statuses told apart in a summary.
    """

    def __init__(self, each: int = 10, most_addresses: int = 200, most_kinds: int = 20) -> None:
        self._each, self._most, self._kinds = each, most_addresses, most_kinds
        self._minutes: dict[str, _Minute] = {}

    def note(self, address: str, what: str, now: float) -> bool:
        """Whether this one gets a record of its own. If not, it is counted."""
        if address not in self._minutes and len(self._minutes) >= self._most:
            address = _OTHERS
        minute = self._minutes.setdefault(address, _Minute(now))
        minute.seen += 1
        if minute.seen <= self._each:
            return True
        kind = what if what in minute.counted or len(minute.counted) < self._kinds else "others"
        minute.counted[kind] = minute.counted.get(kind, 0) + 1
        return False

    def over(self, now: float, *, all_of_them: bool = False) -> list[Summary]:
        """Summaries of the minutes that are over; they are forgotten with this. ``all_of_them``: at a stop."""
        ended = [a for a, m in self._minutes.items() if all_of_them or not 0 <= now - m.since < _WINDOW_S]
        found = []
        for address in ended:
            minute = self._minutes.pop(address)
            if minute.counted:
                found.append(Summary(address, minute.since, sum(minute.counted.values()), minute.counted))
        return found
