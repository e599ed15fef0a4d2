"""Fan-out of node events to WatchEvents streams (node-contract.md 5.7 to 5.9).

Each subscriber has a buffer of its own; when it is full the *new* event is dropped for that subscriber only. Everything
runs on the agent's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from coxswain.clock import Clock

__all__ = ["BUFFER", "EventHub", "StreamCut", "Subscription"]

BUFFER = 256
"""Events that one subscriber may be behind (node-contract.md 5.8)."""

WARN_INTERVAL_S = 60.0
"""Seconds between warnings about dropped events (node-contract.md 5.8)."""

_log = logging.getLogger(__name__)


class StreamCut(Exception):
    """Ends a stream as if the agent had been killed."""


class Subscription:
    """One stream's buffer of serialised events."""

    __slots__ = ("_buffer", "_capacity", "_cut", "_ended", "_waiter", "dropped")

    def __init__(self, capacity: int) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._buffer: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._cut = False

    async def get(self) -> bytes | None:
        """Returns the next event; None after the clean end. Raises ``StreamCut``."""
        while not self._buffer:
            if self._cut:
                raise StreamCut
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._buffer.popleft()

    def offer(self, event: bytes) -> bool:
        """Returns False if the event was dropped."""
        if len(self._buffer) >= self._capacity:
            self.dropped += 1
            return False
        self._buffer.append(event)
        self._wake()
        return True

    def end(self) -> None:
        """What is buffered is still delivered."""
        self._ended = True
        self._wake()

    def cut(self) -> None:
        """What is buffered is lost."""
        self._buffer.clear()
        self._cut = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventHub:
    """All subscribers of one node.

    Attributes:
        mangle: for tests of controllers: turns each event into what is really sent (repeats, nothing, another order).
        published: events published since the process started.
        dropped: deliveries dropped since the process started, over all subscribers.
        sent: deliveries handed to gRPC since the process started, over all subscribers.
    """

    def __init__(self, clock: Clock, *, capacity: int = BUFFER, name: str = "") -> None:
        self.mangle: Callable[[bytes], Iterable[bytes]] | None = None
        self.published = 0
        self.dropped = 0
        self.sent = 0
        self._clock = clock
        self._capacity = capacity
        self._name = name
        self._subscriptions: list[Subscription] = []
        self._warned_at: float | None = None
        self._closed = False

    @property
    def subscribers(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription:
        subscription = Subscription(self._capacity)
        if self._closed:
            subscription.end()
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def publish(self, event: bytes) -> None:
        """Hands one serialised event to every subscriber; never waits."""
        self.published += 1
        for each in (event,) if self.mangle is None else self.mangle(event):
            for subscription in self._subscriptions:
                if not subscription.offer(each):
                    self.dropped += 1
                    self._warn()

    def close(self) -> None:
        """Ends every stream cleanly; later subscriptions end at once."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.end()

    def cut_streams(self) -> int:
        """Ends every stream as a crash would; returns how many."""
        cut = list(self._subscriptions)
        self._subscriptions.clear()
        for subscription in cut:
            subscription.cut()
        return len(cut)

    def _warn(self) -> None:
        now = self._clock.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARN_INTERVAL_S:
            self._warned_at = now
            _log.warning("%sa subscriber is slow: %d events dropped so far", self._name, self.dropped)
