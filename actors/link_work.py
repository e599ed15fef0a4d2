"""What a node's link has under way: one operation on the I/O loop at most, and between them one timer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from actors.io_loop import IoLoop
from actors.link_parts import Done, Operation, Timeout, Wake
from actors.supervision import Context
from coxswain.errors import Unavailable

__all__ = ["Work"]


class Work:
    """On the link's thread; what comes of an operation, and the timer, come back to the link as ``Done`` and ``Timeout``.

    Both carry the generation in which they began. ``leave`` begins another one: what still comes of those before is of a
    connection that was left.

    Attributes:
        operation: what is under way; None: nothing.
        future: its outcome. A change's is never cancelled (node-contract.md 11.4, rule 2).
        asked_at: when it began, of the monotonic clock.

    Args:
        unwanted: takes what was opened for a link that takes nothing in any more; called on the loop's thread.
    """

    def __init__(self, context: Context, io: IoLoop, unwanted: Callable[[Future[Any]], None]) -> None:
        self._context = context
        self._io = io
        self._unwanted = unwanted
        self._timer: Any = None
        self.generation = 0
        self.operation: Operation | None = None
        self.future: Future[Any] | None = None
        self.asked_at = 0.0

    def start(self, operation: Operation, work: Coroutine[Any, Any, Any]) -> None:
        """Begins it; whatever was to be done by timer, this does. Raises ``Unavailable``: the loop is gone."""
        self.operation = operation
        self.asked_at = self._context.clock.monotonic()
        self._stop_timer()
        try:
            future: Future[Any] = self._io.submit(work)
        except Unavailable:
            self.operation = None
            raise  # and so are its links; the supervisor starts them anew with it
        self.future = future
        future.add_done_callback(self._deliver(self.generation, operation))

    def ended(self) -> None:
        """Its ``Done`` was taken in."""
        self.operation = None
        self.future = None

    def leave(self) -> None:
        """Whatever is under way is of no interest any more."""
        self.generation += 1
        self.ended()
        self._stop_timer()

    def wake(self, delay: float, wake: Wake) -> None:
        """In ``delay`` seconds, instead of what was to be before."""
        self._stop_timer()
        self._timer = self._context.after(delay, Timeout(self.generation, wake))

    def woken(self) -> None:
        """The ``Timeout`` was taken in."""
        self._timer = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deliver(self, generation: int, operation: Operation) -> Callable[[Future[Any]], None]:
        def on_done(future: Future[Any]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            result = None if error is not None else future.result()
            told = self._context.tell_self_surely(Done(generation, operation, result, error))
            if not told and operation is Operation.OPEN:
                self._unwanted(future)

        return on_done
