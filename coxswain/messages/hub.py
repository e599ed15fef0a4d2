"""Messages to ``event_hub``: live fan-out. Nothing durable passes here; the store has what must not be lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["EventsAfter", "GetLiveCounts", "LastEvent", "LiveCounts", "Publish", "PublishAll"]


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


@dataclass(frozen=True, slots=True)
class LastEvent:
    """Asked by pages, before they look at anything else: what happens after it, they follow. Reply: its number."""


@dataclass(frozen=True, slots=True)
class GetLiveCounts:
    """Asked by doors, of ``live_streams``. Reply: ``LiveCounts``."""


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """Since the daemon started, but for ``clients``: how many are connected now. ``served``: how many ever were; ``missed``:
    events that clients which did not read missed; ``gone``: clients that were given up.
    """

    clients: int
    served: int
    missed: int
    gone: int
