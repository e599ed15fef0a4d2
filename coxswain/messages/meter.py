"""Messages to ``meter``, which keeps what the fleet did over time."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.metering import FLEET, Point

__all__ = ["GetSeries", "Series"]


@dataclass(frozen=True, slots=True)
class GetSeries:
    """Asked by doors. Reply: ``Series``. Raises ``InvalidInput``.

    ``since`` and ``until``: epoch seconds; ``step``: seconds, one of ``STEPS``. ``coxswain.metering.window`` says what None
    stands for and what is refused. ``node_id``: ``FLEET`` for all nodes together.
    """

    since: int | None = None
    until: int | None = None
    step: int | None = None
    node_id: str = FLEET


@dataclass(frozen=True, slots=True)
class Series:
    """``points``: one for each stretch, also for those of which nothing is known; the first begins at ``since``."""

    since: int
    step: int
    points: tuple[Point, ...]
