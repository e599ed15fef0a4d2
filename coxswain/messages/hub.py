"""Messages to ``event_hub``: live fan-out. Nothing durable passes here; the store has what must not be lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["EventsAfter", "Publish", "PublishAll"]


@dataclass(frozen=True, slots=True)
class Publish:
    """Told by any actor. ``kind`` is e.g. ``node.status``, ``node.link``, ``PEER_CONNECTED``, ``tree.restarted``, ``audit``
    (``coxswain/live/frames.py`` has what becomes of it); ``data`` holds plain JSON values and no secret, and is not changed
    afterwards. ``node_id`` in it names the node that it is about.
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
    """Asked by doors. ``after`` 0: from the oldest that is kept. Reply: ``coxswain.live.ring.Stretch``."""

    after: int
    limit: int = 500
