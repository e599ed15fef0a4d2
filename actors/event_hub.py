"""``event_hub``: numbers what happens and keeps the last of it, for whoever watches. Nothing durable passes here.

Events go into a ring that outlives this actor (``coxswain/live/ring.py``); watchers read it on the I/O loop, each from
where it is, and are woken there. What was in the mailbox when the actor fell is lost and was never numbered: its successor
says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.supervision import Actor, Context
from coxswain.clock import to_micros
from coxswain.errors import StoreUnavailable
from coxswain.live.frames import DROPPED, inventory_of
from coxswain.live.ring import EventRing
from coxswain.messages.hub import EventsAfter, LastEvent, Publish, PublishAll
from coxswain.store import Durability, Store
from coxswain.store.live_floor import read_floor, write_floor

__all__ = ["EventHub"]

_RESERVED = 600_000_000
"""Numbers above those of this run, noted as its own: with them the next run stays above, wherever its clock stands."""


class EventHub(Actor):
    """A slow watcher misses events and is told how many; it is never waited for.

    Args:
        context: its place in the system.
        ring: where events go; one for all incarnations.
        wake: told that there is something new; must not block. Called on this actor's thread.
        store: remembers above which number a later run must begin.
    """

    mailbox_capacity = 50_000

    def __init__(
        self, context: Context, *, ring: EventRing, store: Store, wake: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(context)
        self._ring = ring
        self._store = store
        self._wake = wake

    def started(self) -> None:
        if self._ring.is_begun:
            self._take((Publish(DROPPED, self.context.clock.now(), {"count": None, "reason": "restart"}),))
        else:
            self._begin()

    def receive(self, message: Any) -> Any:
        match message:
            case Publish():
                self._take((message,))
            case PublishAll(events):
                self._take(events)
            case EventsAfter(after, limit):
                return self._ring.after(after, limit)
            case LastEvent():
                return self._ring.last
        return None

    def _take(self, events: tuple[Publish, ...]) -> None:
        changed = [inventory_of(event) for event in events if event.kind == "audit"]
        self._ring.append((*events, *(event for event in changed if event is not None)))
        self._wake()

    def _begin(self) -> None:
        start = to_micros(self.context.clock.now())
        try:
            with self._store.write(Durability.ACKNOWLEDGED) as tx:
                start = max(start, read_floor(tx))
                write_floor(tx, start + _RESERVED)
        except StoreUnavailable as error:
            self.context.log.warning("events are numbered by the clock alone this time: %s", error)
        self._ring.begin(start)
