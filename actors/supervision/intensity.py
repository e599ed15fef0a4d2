"""When a supervisor gives up: restarts counted over a sliding window. Pure but for its memory."""

from __future__ import annotations

from collections import deque

from actors.supervision.spec import Intensity

__all__ = ["RestartCounter"]


class RestartCounter:
    """A sliding window of restarts; holds at most ``max_restarts + 1`` times."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._at: deque[float] = deque(maxlen=intensity.max_restarts + 1)

    def count(self, now: float) -> bool:
        """Counts one restart at ``now`` (monotonic seconds). False: that was one too many."""
        self._at.append(now)
        while self._at[0] <= now - self._intensity.period_s:
            self._at.popleft()
        return len(self._at) <= self._intensity.max_restarts
