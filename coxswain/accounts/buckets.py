"""How often somebody may try: token buckets by key, bounded in number. Time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from coxswain.errors import Throttled

__all__ = ["Buckets", "Rate"]

_MOST_KEYS = 10_000
"""Beyond, the one that was not used for the longest time is forgotten; it is full again by then, or nearly so."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, and one more every ``per_s`` seconds."""

    burst: int
    per_s: float


class Buckets:
    """One bucket per key. For one thread."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> None:
        """Raises ``Throttled`` if it is empty. ``now``: seconds of a clock that only goes forward."""
        level = self._level(key, now)
        if level < 1:
            wait = (1 - level) * self._rate.per_s
            raise Throttled("too many attempts; try again later", retry_after=wait)
        self._put(key, level - 1, now)

    def give_back(self, key: str, now: float) -> None:
        """What was taken for an attempt that was good."""
        self._put(key, min(self._rate.burst, self._level(key, now) + 1), now)

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (float(self._rate.burst), now))
        return min(self._rate.burst, level + max(0.0, now - at) / self._rate.per_s)

    def _put(self, key: str, level: float, now: float) -> None:
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > _MOST_KEYS:
            self._levels.popitem(last=False)
