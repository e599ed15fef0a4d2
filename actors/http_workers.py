"""Workers for requests: threads that come when they are needed and go when they are not.

A daemon that nobody asks anything keeps none, and not the dozen for each door that its busiest minute needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import waitress.task

__all__ = ["Workers"]

_REST_S = 10.0
_SAY_S = 10.0


class Workers(waitress.task.ThreadedTaskDispatcher):  # type: ignore[misc]
    """Waitress's dispatcher with a number of threads that follows the work.

    Args:
        most: threads at once; further requests wait.
        monotonic: seconds.
    """

    def __init__(self, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._monotonic = monotonic
        self._busy_at = monotonic()
        self._said_at = -_SAY_S

    @property
    def running(self) -> int:
        """Threads, but for those that are about to end."""
        count: int = len(self.threads) - self.stop_count
        return count

    def add_task(self, task: Any) -> None:
        """On the server's polling thread, as ``rest``."""
        with self.lock:
            self.queue.append(task)
            waiting = len(self.queue) - (self.running - self.active_count)
            room = self.running < self._most
            self._busy_at = self._monotonic()
            if waiting > 0 and not room and self._monotonic() - self._said_at > _SAY_S:
                self._said_at = self._monotonic()
                self.queue_logger.warning("%d requests wait for a worker", waiting)
            self.queue_cv.notify()
        if waiting > 0 and room:
            self.set_thread_count(self.running + 1)

    def rest(self) -> None:
        """Called now and then: lets idle ones go when there was nothing new to do for a while. One that was just given a
        task and did not wake yet looks idle too, so while a task waits all stay.
        """
        with self.lock:
            idle = self.running - self.active_count
            busy = bool(self.queue) or self._monotonic() - self._busy_at <= _REST_S
        if idle > 0 and not busy:
            self.set_thread_count(self.running - idle)
