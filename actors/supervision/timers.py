"""One thread for all timers of a system, however many there are."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from coxswain.clock import Clock

__all__ = ["Timer", "Timers"]

_log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0
"""A clock that is moved by hand does not wake the thread; it looks this often."""

_COMPACT_FROM = 1_000
"""Cancelled timers stay in the heap until due, or until they are this many and the larger half."""


class Timer:
    """One pending call. ``cancel`` from any thread, any number of times; a call that has begun is not undone."""

    __slots__ = ("_timers", "call")

    def __init__(self, call: Callable[[], object] | None, timers: Timers) -> None:
        self.call = call
        self._timers = timers

    def cancel(self) -> None:
        if self.call is not None:
            self.call = None
            self._timers.note_cancelled()


class Timers:
    """Calls functions later, on its own thread. They must be quick and must not block: they put messages in mailboxes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Condition()
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._cancelled = 0
        self._sleeps_until = float("-inf")
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nothing is called any more."""
        with self._lock:
            self._closed = True
            self._heap.clear()
            self._lock.notify()

    def after(self, delay_s: float, call: Callable[[], object]) -> Timer:
        """Calls ``call`` ``delay_s`` seconds from now. Calls due at the same moment come in the order of their asking."""
        timer = Timer(call, self)
        due = self._clock.monotonic() + max(0.0, delay_s)
        with self._lock:
            if not self._closed:
                heapq.heappush(self._heap, (due, next(self._count), timer))
                if due < self._sleeps_until:
                    self._sleeps_until = float("-inf")
                    self._lock.notify()
        return timer

    def note_cancelled(self) -> None:
        """A timer in the heap will not be needed. Throws such ones out when they are the larger half."""
        with self._lock:
            self._cancelled += 1
            if self._cancelled >= _COMPACT_FROM and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].call is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def __len__(self) -> int:
        """How many wait, cancelled ones that are still held included."""
        return len(self._heap)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (not self._heap or self._heap[0][0] > self._clock.monotonic()):
                    self._sleep()
                if self._closed:
                    return
                timer = heapq.heappop(self._heap)[2]
                call, timer.call = timer.call, None
                if call is None:
                    self._cancelled = max(0, self._cancelled - 1)
            if call is not None:
                try:
                    call()
                except BaseException:  # this thread serves everybody; it does not end for one
                    _log.exception("a timer's call failed")

    def _sleep(self) -> None:
        """Until the next one is due, or somebody comes with an earlier one; under the lock, which is let go of meanwhile."""
        if not self._heap:
            self._sleeps_until = float("inf")
            self._lock.wait()
        else:
            now = self._clock.monotonic()
            wait = max(0.0, min(self._heap[0][0] - now, _LONGEST_WAIT_S))
            self._sleeps_until = now + wait
            self._lock.wait(wait)
        self._sleeps_until = float("-inf")  # awake: it looks at the heap by itself
