"""How often somebody may try: free at first, then after a pause that doubles with every failure.

An attempt counts as failed from its beginning until it is known to have succeeded, so that many at once gain nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Limits", "Throttle"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient to be. Seconds.

    Attributes:
        free: failures before the first pause.
        first_s: the first pause; each further failure doubles it.
        longest_s: and no longer than this.
        forget_s: without an attempt for this long, all is forgotten.
        most_keys: how many are kept track of; the one that was quiet longest makes room.
    """

    free: int
    first_s: float
    longest_s: float
    forget_s: float = 900.0
    most_keys: int = 10_000


@dataclass(slots=True)
class _Track:
    failures: int
    blocked_until: float
    last: float


class Throttle:
    """Failures by key: an address, an account. Not thread-safe: it belongs to one actor."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tracks: OrderedDict[str, _Track] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until ``key`` may try again; 0: now."""
        track = self._tracks.get(key)
        if track is None or now - track.last > self._limits.forget_s:
            return 0.0
        return min(self._limits.longest_s, max(0.0, track.blocked_until - now))  # sums of floats may be a hair more

    def attempt(self, key: str, now: float) -> None:
        """It tries, and has failed until ``succeeded``."""
        track = self._tracks.pop(key, None)
        if track is None or now - track.last > self._limits.forget_s:
            track = _Track(0, 0.0, now)
        track.failures += 1
        track.last = now
        over = track.failures - self._limits.free
        if over >= 0:
            # The exponent is bounded: a float ends at 2**1024.
            track.blocked_until = now + min(self._limits.longest_s, self._limits.first_s * 2 ** min(over, 60))
        self._tracks[key] = track
        while len(self._tracks) > self._limits.most_keys:
            self._tracks.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Everything that ``key`` did wrong is forgotten."""
        self._tracks.pop(key, None)

    def __len__(self) -> int:
        return len(self._tracks)
