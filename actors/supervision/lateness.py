"""Am I the slow one? How late the machine itself was, and what that means for a deadline."""

from __future__ import annotations

from collections import deque

__all__ = ["LONGEST_STRETCH", "Lateness", "stretched"]

LONGEST_STRETCH = 8.0
"""For lag that is only reported, no deadline becomes longer than this many times itself, or a loop that is stuck for good
would hide whoever stuck it (Lifeguard's local health multiplier ends at 8 too)."""

_WEIGHT = 3.0
"""Whoever was late by a second in its own tick left others late by more: they had to share what was left."""

_NOTABLE_S = 0.05
_REMEMBERED = 2_000


def stretched(deadline_s: float, lateness: tuple[float, float]) -> float:
    """A deadline, made longer when the machine itself was late.

    Never shorter than ``deadline_s``, equal to it without lateness, and the longer the later the machine was.

    Args:
        deadline_s: what holds on a machine that is not late.
        lateness: seconds that were lost for everybody (a stopped process, a starved machine), and by how many seconds
            something that everybody depends on is behind; see ``Lateness.since``.
    """
    lost_s, lag_s = (max(0.0, seconds) for seconds in lateness)
    return deadline_s + _WEIGHT * lost_s + min(_WEIGHT * lag_s, deadline_s * (LONGEST_STRETCH - 1.0))


class Lateness:
    """By how much the machine was late, and when. Pure but for its memory; used by one thread.

    A late tick is lost time, and lost times add up. What a lag source says is how far it is behind just now, so of those
    the largest counts.
    """

    def __init__(self) -> None:
        self._notes: deque[tuple[float, float, float]] = deque(maxlen=_REMEMBERED)

    def note(self, at: float, *, tick_s: float, lag_s: float) -> None:
        """At ``at`` (monotonic seconds) the own tick was ``tick_s`` late, and the latest lag source ``lag_s`` behind."""
        if tick_s >= _NOTABLE_S or lag_s >= _NOTABLE_S:
            self._notes.append((at, max(0.0, tick_s), max(0.0, lag_s)))

    def since(self, start: float) -> tuple[float, float]:
        """Seconds lost since ``start``, and the largest lag noted since."""
        lost, lag = 0.0, 0.0
        for at, tick_s, lag_s in reversed(self._notes):
            if at < start:
                break
            lost += tick_s
            lag = max(lag, lag_s)
        return lost, lag
