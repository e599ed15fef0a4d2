"""Messages to ``event_hub``: live fan-out. Nothing durable passes here; the store has what must not be lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["EventsAfter", "EventsPage", "Publish", "PublishAll"]


@dataclass(frozen=True, slots=True)
class Publish:
    """Told by any actor. ``kind`` is e.g. ``node.status``, ``node.link``, ``session.opened``, ``session.closed``,
    ``tree.restart``, ``audit``; ``data`` holds plain JSON values and no secret.
    """

    kind: str
    at: float
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PublishAll:
    """Several at once, in order: one message, one awakening."""

    events: tuple[Publish, ...]


@dataclass(frozen=True, slots=True)
class EventsAfter:
    """Asked by doors. ``after`` 0: from the oldest that is kept. Reply: ``EventsPage``."""

    after: int
    limit: int = 500


@dataclass(frozen=True, slots=True)
class EventsPage:
    """``events`` are ``(seq, Publish)`` in order; ``dropped`` is how many after ``after`` are no longer kept."""

    events: tuple[tuple[int, Publish], ...]
    last_seq: int
    dropped: int
