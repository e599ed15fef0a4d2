"""What a supervisor is told about a child, and the vocabulary of restarting. Erlang/OTP's terms throughout."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Backoff", "ChildSpec", "ChildState", "Intensity", "Restart", "Strategy"]


class Restart(StrEnum):
    """When a child that ended is started again.

    ``permanent``: always. ``transient``: only after a failure. ``temporary``: never.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(StrEnum):
    """Who is restarted with a failed child: nobody else, those started after it, or everybody."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"
    ONE_FOR_ALL = "one_for_all"


class ChildState(StrEnum):
    """Where a child stands.

    ``starting``: its ``started`` hook has not returned. ``restarting``: it went down and waits for its turn to come up.
    ``backing_off``: as before, but for a delay. ``stopped``: ended in good order, or was never started. ``failed``: ended
    by a failure and is not started again.
    """

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Intensity:
    """More than ``max_restarts`` restarts within ``period_s`` seconds, and the supervisor gives up and fails itself."""

    max_restarts: int = 5
    period_s: float = 30.0

    def __post_init__(self) -> None:
        if self.max_restarts < 0 or not self.period_s > 0:
            raise ValueError(f"an intensity needs max_restarts >= 0 and period_s > 0, not {self}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delayed restarts that never count towards an intensity, for children whose failure is ordinary life.

    The delay is drawn evenly from ``[min_s, ceiling]``: full jitter above a floor, so that a child that fails at once
    never spins. The ceiling grows by ``factor`` with each failure in a row up to ``max_s``, and falls back after the
    child ran for ``reset_after_s``.
    """

    min_s: float = 0.1
    max_s: float = 30.0
    factor: float = 2.0
    reset_after_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_s <= self.max_s < math.inf or not 1 <= self.factor < math.inf or self.reset_after_s < 0:
            raise ValueError(f"a backoff needs 0 <= min_s <= max_s, factor >= 1 and reset_after_s >= 0, not {self}")

    def ceiling(self, failures_in_a_row: int) -> float:
        """The longest delay after the ``failures_in_a_row``-th failure (from 1), in seconds."""
        try:
            grown = self.min_s * self.factor ** max(failures_in_a_row, 1)
        except OverflowError:
            return self.max_s if self.min_s else 0.0
        return min(self.max_s, grown)

    def delay(self, failures_in_a_row: int, rng: random.Random) -> float:
        """Seconds to wait after the ``failures_in_a_row``-th failure (from 1)."""
        # Rounding inside uniform() may step over either bound by one unit in the last place.
        return min(self.max_s, max(self.min_s, rng.uniform(self.min_s, self.ceiling(failures_in_a_row))))


@dataclass(frozen=True)
class ChildSpec:
    """One child of a supervisor.

    Attributes:
        id: its name in the directory, unique in the whole system.
        actor: the class; called with the context and ``kwargs``. A ``Supervisor`` makes a branch of the tree.
        kwargs: keyword arguments of the class; kept for restarts.
        restart: when it is started again.
        shutdown_s: how long an orderly stop may take before the child is fenced off; 0: fenced off at once. That of a
            supervisor has to hold what its children need, one after the other.
        hang_s: for how long one message, or the start, may be worked on before the child counts as hung.
        backoff: None: restarted at once, and counted.
    """

    id: str
    actor: type[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    restart: Restart = Restart.PERMANENT
    shutdown_s: float = 5.0
    hang_s: float = 10.0
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if not self.id or self.shutdown_s < 0 or not self.hang_s > 0:
            raise ValueError(f"child {self.id!r} needs an id, shutdown_s >= 0 and hang_s > 0")
