"""Between all event streams on the I/O loop and the session tracker: order kept, nothing unbounded, nothing lost.

Stream readers ``put`` what they read. The funnel sends one numbered batch at a time to ``session_tracker`` and the next
one only after that one is durable; until then it is sent again, because the tracker may have been restarted with the
batch in its mailbox. When ``capacity`` items wait, ``put`` waits too, the readers stop reading, and HTTP/2 flow control
holds the nodes back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from coxswain.messages.sessions import EventBatch, StreamItem

__all__ = ["EventFunnel"]


class EventFunnel:
    """Lives on the I/O loop; only ``acknowledge`` may be called from elsewhere, through ``IoLoop.call``.

    Args:
        epoch: names this run of the daemon in every batch.
        send: tells the session tracker; must not block.
        capacity: items that may wait here.
        batch_size: items in one batch at most.
        linger_s: seconds from one batch to the next: what comes meanwhile goes together. Each batch costs a commit.
        unwatched_s: the same while nobody follows what happens.
        is_watched: whether somebody does; asked on the loop, and again every ``linger_s``: who comes in meanwhile waits no
            longer than the others.
        crowd: as many items are company enough, and their batch goes ``crowd_s`` after the last one.
        resend_s: after how long without acknowledgement a batch is sent again.
        on_lost: told, with the node's id, of each event that could not be read or counted.
    """

    def __init__(
        self,
        epoch: str,
        send: Callable[[EventBatch], object],
        *,
        capacity: int = 16_384,
        batch_size: int = 4_096,
        linger_s: float = 0.1,
        unwatched_s: float = 0.4,
        is_watched: Callable[[], bool] = lambda: True,
        crowd: int = 64,
        crowd_s: float = 0.05,
        resend_s: float = 3.0,
        on_lost: Callable[[str], object] = lambda _node_id: None,
    ) -> None:
        self.epoch = epoch
        self._send = send
        self._capacity = capacity
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._unwatched_s = max(unwatched_s, linger_s)
        self._is_watched = is_watched
        self._crowd = crowd
        self._crowd_s = min(crowd_s, linger_s)
        self._resend_s = resend_s
        self.lost = on_lost
        self._waiting: deque[StreamItem] = deque()
        self._in_flight: EventBatch | None = None
        self._sent_at = float("-inf")
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()

    def reset(self) -> None:
        """A new loop: timers and waiters of the old one are gone; what waits here is kept and goes on."""
        self._room = asyncio.Event()
        self._timer = None
        if len(self._waiting) < self._capacity:
            self._room.set()
        if self._in_flight is not None:
            self._resend(self._in_flight.number)
        elif self._waiting:
            self._dispatch()

    @property
    def depth(self) -> int:
        """Items that wait or are in flight."""
        return len(self._waiting) + (len(self._in_flight.items) if self._in_flight else 0)

    async def put(self, item: StreamItem) -> None:
        """Hands an item over; waits while the funnel is full."""
        while len(self._waiting) >= self._capacity:
            self._room.clear()
            await self._room.wait()
        self.put_nowait(item)

    def put_at_once(self, item: StreamItem) -> bool:
        """``put`` where there is room, which is nearly always; False: there is none."""
        if len(self._waiting) >= self._capacity:
            return False
        self.put_nowait(item)
        return True

    def put_nowait(self, item: StreamItem) -> None:
        """Hands over an item that must not wait (the end of a stream); there is at most one per link."""
        self._waiting.append(item)
        if self._in_flight is None and (self._timer is None or len(self._waiting) == self._crowd):
            self._dispatch_soon()

    def acknowledge(self, epoch: str, number: int) -> None:
        """The batch is durable."""
        if self._in_flight is None or epoch != self.epoch or number != self._in_flight.number:
            return
        self._in_flight = None
        self._cancel_timer()
        if len(self._waiting) >= self._batch_size:
            self._dispatch()
        elif self._waiting:
            self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        self._cancel_timer()
        pause = self._crowd_s if len(self._waiting) >= self._crowd else self._linger_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, self._sent_at + pause - loop.time()), self._dispatch_if_due)

    def _dispatch_if_due(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._sent_at + self._unwatched_s - loop.time()
        if left <= 0 or len(self._waiting) >= self._crowd or self._is_watched():
            self._dispatch()
        else:
            self._timer = loop.call_later(min(self._linger_s, left), self._dispatch_if_due)

    def _dispatch(self) -> None:
        self._cancel_timer()
        if self._in_flight is not None or not self._waiting:
            return
        count = min(len(self._waiting), self._batch_size)
        items = tuple(self._waiting.popleft() for _ in range(count))
        if len(self._waiting) < self._capacity:
            self._room.set()
        self._number += 1
        self._sent_at = asyncio.get_running_loop().time()
        self._in_flight = EventBatch(self.epoch, self._number, items)
        self._resend(self._number)

    def _resend(self, number: int) -> None:
        if self._in_flight is None or self._in_flight.number != number:
            return
        self._send(self._in_flight)
        self._timer = asyncio.get_running_loop().call_later(self._resend_s, self._resend, number)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
