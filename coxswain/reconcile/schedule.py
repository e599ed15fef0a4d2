"""When which node is looked at again. Pure; time and randomness are passed in.

Each node has a phase within the interval, hashed from its id, so that looks are spread evenly and a restart does not bunch
them (TECHNIQUES: resync is a slow, phase-shifted sweep). A little jitter around the phase keeps controllers and nodes from
marching in step. A rate bounds what a tick may take after the machine stood still.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections.abc import Iterable

__all__ = ["LookSchedule", "phase"]

_JITTER = 0.05
_BURST_S = 0.5


def phase(node_id: str, interval_s: float) -> float:
    """Where in the interval a node's looks lie: seconds in [0, interval)."""
    digest = hashlib.blake2b(node_id.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48 * interval_s


class LookSchedule:
    """Whose turn it is. Cost: O(log n) for each look taken, nothing for nodes that wait.

    Args:
        interval_s: seconds between two looks at one node, give or take a tenth.
        per_s: looks in a second at most, over the whole fleet. A fleet too big for it is looked at less often.
        rng: source of the jitter.
    """

    def __init__(self, interval_s: float, per_s: float, rng: random.Random) -> None:
        self._interval_s = interval_s
        self._per_s = per_s
        self._rng = rng
        self._heap: list[tuple[float, str]] = []
        self._due_at: dict[str, float] = {}
        self._allowance = 0.0
        self._taken_at: float | None = None

    def __len__(self) -> int:
        return len(self._due_at)

    def set_interval(self, interval_s: float, now: float) -> None:
        """From now on, another interval; every node gets a turn in it. ``now``: monotonic seconds."""
        self._interval_s = interval_s
        nodes = sorted(self._due_at)
        self._heap.clear()
        self._due_at.clear()
        for node_id in nodes:
            self._enter(node_id, self._slot(node_id, now))

    def replace_nodes(self, node_ids: Iterable[str], now: float) -> None:
        """From now on, these nodes. Those that stay keep their turn. ``now``: monotonic seconds."""
        present = set(node_ids)
        for gone in self._due_at.keys() - present:
            del self._due_at[gone]
        for node_id in sorted(present - self._due_at.keys()):
            self._enter(node_id, self._slot(node_id, now))

    def take_due(self, now: float) -> list[str]:
        """The nodes to look at now, the longest overdue first; the rest of them comes with a later call."""
        self._refill(now)
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and self._allowance >= 1.0:
            due, node_id = heapq.heappop(self._heap)
            if self._due_at.get(node_id) != due:
                continue  # it left, or left and came again
            self._allowance -= 1.0
            taken.append(node_id)
            # What was missed while the machine stood still is not made up for: one look is enough.
            self._enter(node_id, self._slot(node_id, max(now, due) + self._interval_s / 2))
        return taken

    def _slot(self, node_id: str, not_before: float) -> float:
        """The first turn of a node at or after ``not_before``, with its jitter."""
        at = phase(node_id, self._interval_s)
        turn = math.ceil((not_before - at) / self._interval_s) * self._interval_s + at
        return turn + self._rng.uniform(-_JITTER, _JITTER) * self._interval_s

    def _enter(self, node_id: str, due: float) -> None:
        self._due_at[node_id] = due
        heapq.heappush(self._heap, (due, node_id))

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._taken_at is None else now - self._taken_at
        self._taken_at = now
        self._allowance = min(max(1.0, self._per_s * _BURST_S), self._allowance + passed * self._per_s)
