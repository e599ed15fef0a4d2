"""``event_hub``: the last events, numbered, for whoever watches. Nothing durable passes here."""

from __future__ import annotations

from collections import deque
from typing import Any

from actors.supervision import Actor, Context
from coxswain.messages.hub import EventsAfter, EventsPage, Publish, PublishAll

__all__ = ["EventHub"]

_KEPT = 10_000


class EventHub(Actor):
    """A slow watcher misses events and is told how many; it is never waited for."""

    mailbox_capacity = 50_000

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._events: deque[tuple[int, Publish]] = deque(maxlen=_KEPT)
        self._seq = 0

    def receive(self, message: Any) -> Any:
        match message:
            case Publish():
                self._take(message)
            case PublishAll(events):
                for event in events:
                    self._take(event)
            case EventsAfter(after, limit):
                return self._page(after, limit)
        return None

    def _take(self, event: Publish) -> None:
        self._seq += 1
        self._events.append((self._seq, event))

    def _page(self, after: int, limit: int) -> EventsPage:
        oldest = self._events[0][0] if self._events else self._seq + 1
        # A number from an earlier life of this actor says nothing about this one.
        start = max(after, oldest - 1) if after <= self._seq else oldest - 1
        skip = start - oldest + 1
        chosen = tuple(event for position, event in enumerate(self._events) if skip <= position < skip + limit)
        last = chosen[-1][0] if chosen else self._seq
        return EventsPage(chosen, last, max(0, start - after) if after <= self._seq else 0)
