"""A bounded mailbox that can be closed, for Pykka actors (whose own inbox is unbounded and open for ever)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from pykka._envelope import Envelope

from actors.supervision.signals import Wake

__all__ = ["Mailbox", "MailboxClosed", "MailboxFull", "Rest"]


class MailboxFull(Exception):
    """The receiver does not keep up."""


class Rest(Exception):
    """To the reader: nothing came for so long that it may end its thread. Whoever puts something in starts a new one."""


class MailboxClosed(Exception):
    """The receiver is gone."""


class Mailbox:
    """First in, first out. Safe on every thread; only ``get`` ever waits.

    A message is taken out exactly once: by the actor through ``get``, or by whoever closed the mailbox. So nobody can put
    a question into the mailbox of an actor that ended and wait for an answer that never comes.

    Attributes:
        taken: how many were taken out, so that a watcher sees progress without touching the lock.
        waiting: what waits, for a watcher who wants to know whether anything does.
        resting: the reader was told to rest, and nothing came since.
    """

    def __init__(self, capacity: int, *, rest_s: float | None = None, rouse: Callable[[], object] = lambda: None) -> None:
        """``rest_s``: after so many seconds without anything the reader rests; None: never. ``rouse``: starts its thread;
        called under the lock, by whoever puts the next thing in.
        """
        self._capacity = capacity
        self._rest_s = -1.0 if rest_s is None else rest_s
        self._rouse = rouse
        self.resting = False
        self._items: deque[Any] = deque()
        self.waiting: Sized = self._items
        self._lock = threading.Lock()
        self._closed = False
        # There is one reader, so a lock that it waits for does what a condition would, at a third of the price.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False
        self._before: Any = None
        self.taken = 0

    def put(self, item: Any, /, *, urgent: bool = False) -> None:
        """Appends an envelope; ``urgent`` ones get in whatever the depth.

        Raises:
            MailboxFull: at capacity, or the system has no thread for the reader.
            MailboxClosed: after ``close``.
        """
        with self._lock:
            if self._closed:
                raise MailboxClosed
            if len(self._items) >= self._capacity and not urgent:
                raise MailboxFull(f"{len(self._items)} messages wait")
            if self.resting and not self._end_rest() and not urgent:
                raise MailboxFull("no thread can be started for the reader")
            self._items.append(item)
            self._ring()

    def get(self) -> Any:
        """Waits for the next one. Once closed there is only ``Wake``, which lets the actor's loop look around and end. Only
        ever called by the thread of the actor. Raises ``Rest``.

        What was taken out before is let go of: Pykka's loop holds its envelope until it has the next one, which is for most
        actors a long time, and what a look brought of a thousand nodes is megabytes.
        """
        before, self._before = self._before, None
        if isinstance(before, Envelope):
            before.message = None
        while True:
            with self._lock:
                if self._items:
                    self.taken += 1
                    self._before = self._items.popleft()
                    return self._before
                if self._closed:
                    return Envelope(Wake())
                self._asleep = True
            if not self._bell.acquire(timeout=self._rest_s):
                self._rest()

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

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """Meanwhile nothing is put in or taken out, and no rest begins or ends."""
        with self._lock:
            yield

    def _rest(self) -> None:
        """Nothing came for a while. Returns if something does after all."""
        with self._lock:
            if self._asleep:
                self._asleep = False
                self.resting = True
                raise Rest
        self._bell.acquire()  # it was rung just now

    def _end_rest(self) -> bool:
        """False: there is no thread to be had; whoever comes next tries again."""
        try:
            self._rouse()
        except RuntimeError:
            return False
        self.resting = False  # last: who sees this sees the new thread
        return True

    def empty(self) -> bool:
        return not self._items

    def __len__(self) -> int:
        return len(self._items)
