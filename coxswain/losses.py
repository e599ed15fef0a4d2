"""What was dropped on its way: counted where it happens, on any thread; read by the rule ``events_dropped`` and by /metrics.

A count is kept with the minute it fell into for a day, so that the rule needs to remember nothing, and an actor that was
restarted misses nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass

from coxswain.clock import Clock

__all__ = ["CONTROLLER", "LIVE", "NODES", "SIEM", "WEBHOOK", "Loss", "Losses"]

NODES, CONTROLLER, LIVE, SIEM, WEBHOOK = "nodes", "controller", "live", "siem", "webhook"

_STEP_S = 60.0
_KEEP_S = 86_400.0
_MOST = 5_000
"""Nodes that are told apart; those beyond count together."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What was dropped at one place within a stretch of time. ``last_at``: epoch seconds, of the last of it."""

    where: str
    node_id: str
    count: int
    first_at: float
    last_at: float


@dataclass(slots=True)
class _Step:
    first_at: float
    last_at: float
    count: int


class Losses:
    """Safe on every thread; outlives every actor."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._places: dict[tuple[str, str], deque[_Step]] = {}

    def add(self, where: str, count: int = 1, node_id: str = "") -> None:
        """``where``: one of the names of this module; ``node_id``: whose events they were, if they were one node's."""
        if count <= 0:
            return
        now = self._clock.now()
        with self._lock:
            self._totals[where] += count
            key = where, node_id
            if key not in self._places and len(self._places) >= _MOST:
                key = where, ""
            steps = self._places.setdefault(key, deque())
            if steps and 0 <= now - steps[-1].first_at < _STEP_S:
                steps[-1].count += count
                steps[-1].last_at = now
            else:
                steps.append(_Step(now, now, count))
            while steps[0].last_at < now - _KEEP_S:
                steps.popleft()

    def totals(self) -> dict[str, int]:
        """Since the daemon started, by place."""
        with self._lock:
            return dict(self._totals)

    def within(self, seconds: float) -> list[Loss]:
        """What was dropped during the last ``seconds`` (a day at most), to the minute; by place and node."""
        now = self._clock.now()
        found = []
        with self._lock:
            for (where, node_id), kept in list(self._places.items()):
                steps = [step for step in kept if step.last_at >= now - seconds]
                if steps:
                    count = sum(step.count for step in steps)
                    first, last = min(step.first_at for step in steps), max(step.last_at for step in steps)
                    found.append(Loss(where, node_id, count, first, last))
                elif kept[-1].last_at < now - _KEEP_S:
                    del self._places[where, node_id]
        return sorted(found, key=lambda loss: (loss.where, loss.node_id))
