"""A bounded mailbox that can be closed, for Pykka actors (whose own inbox is unbounded and open for ever)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sized
from typing import Any

from pykka._envelope import Envelope

from actors.supervision.signals import Wake

__all__ = ["Mailbox", "MailboxClosed", "MailboxFull"]


class MailboxFull(Exception):
    """The receiver does not keep up."""


class MailboxClosed(Exception):
    """The receiver is gone."""


class Mailbox:
    """First in, first out. Safe on every thread; only ``get`` ever waits.

    A message is taken out exactly once: by the actor through ``get``, or by whoever closed the mailbox. So nobody can put
    a question into the mailbox of an actor that ended and wait for an answer that never comes.

    Attributes:
        taken: how many were taken out, so that a watcher sees progress without touching the lock.
        waiting: what waits, for a watcher who wants to know whether anything does.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Any] = deque()
        self.waiting: Sized = self._items
        self._lock = threading.Lock()
        self._closed = False
        # There is one reader, so a lock that it waits for does what a condition would, at a third of the price.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False
        self.taken = 0

    def put(self, item: Any, /, *, urgent: bool = False) -> None:
        """Appends an envelope; ``urgent`` ones get in whatever the depth.

        Raises:
            MailboxFull: at capacity.
            MailboxClosed: after ``close``.
        """
        with self._lock:
            if self._closed:
                raise MailboxClosed
            if len(self._items) >= self._capacity and not urgent:
                raise MailboxFull(f"{len(self._items)} messages wait")
            self._items.append(item)
            self._ring()

    def get(self) -> Any:
        """Waits for the next one. Once closed there is only ``Wake``, which lets the actor's loop look around and end. Only
        ever called by the thread of the actor.
        """
        while True:
            with self._lock:
                if self._items:
                    self.taken += 1
                    return self._items.popleft()
                if self._closed:
                    return Envelope(Wake())
                self._asleep = True
            self._bell.acquire()

    def close(self) -> list[Any]:
        """Lets nothing more in, and returns what was still waiting; nothing the second time."""
        with self._lock:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            self._ring()
            return left

    def _ring(self) -> None:
        """Wakes the reader, if it sleeps; under the lock."""
        if self._asleep:
            self._asleep = False
            self._bell.release()

    def empty(self) -> bool:
        return not self._items

    def __len__(self) -> int:
        return len(self._items)
