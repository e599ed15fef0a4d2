"""The one asyncio loop on which all network I/O of all links runs, and the actor that owns its thread.

Actors hold the state and take the decisions; the loop holds the sockets. An actor starts an operation with ``submit``
and gets its result as a message. Why one loop: 1,000 links cost nine threads and 3 % of a core this way, and grpc.aio
does not bear two loops (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from actors.supervision import Actor, Context
from coxswain.clock import Clock
from coxswain.errors import Unavailable

__all__ = ["IoLoop", "IoLoopActor"]

T = TypeVar("T")

_BEAT_S = 0.25
_CLEAN_UP_S = 2.0


class IoLoop:
    """An asyncio loop on a thread of its own. Every method is safe on every thread.

    ``start`` after ``stop`` gives a new loop and a new thread; what ran on the old one is cancelled.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entrance: _Entrance | None = None
        self._thread: threading.Thread | None = None
        self._beat_at = 0.0
        self._setups: list[Callable[[], None]] = []
        self._cleanups: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def on_start(self, setup: Callable[[], None]) -> None:
        """Registers what runs on the loop's thread, first thing, each time a loop starts."""
        self._setups.append(setup)

    def on_stop(self, cleanup: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Registers what runs on a loop that stops, before its tasks are cancelled; it has two seconds.

        A ``grpc.aio`` server has to be stopped here: when it shuts down, the core writes into the memory of the calls that
        it waits for, and without their tasks that memory would be another's by then.
        """
        self._cleanups.append(cleanup)

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="io-loop", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise Unavailable("the I/O loop did not start within 10 s")

    def stop(self) -> None:
        """Cancels what runs and ends the thread, within three seconds or not at all (it is a daemon)."""
        loop, thread = self._loop, self._thread
        self._loop = self._entrance = None
        if loop is not None and thread is not None and thread.is_alive():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(loop.stop)
            thread.join(3)

    @property
    def alive(self) -> bool:
        """False when the thread ended or no loop was started."""
        return self._loop is not None and self._thread is not None and self._thread.is_alive()

    def lag(self) -> float:
        """Seconds that the loop is late, seen from outside: the age of its last beat beyond the beat's interval."""
        if not self.alive:
            return 0.0
        return max(0.0, self._clock.monotonic() - self._beat_at - _BEAT_S)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine on the loop. Raises ``Unavailable`` when there is no loop just now.

        The future is resolved on the loop, within the turn in which the work ends, and cancelled if the loop ends before.
        Its ``cancel`` only asks the loop to cancel the work: the future is cancelled when that has ended, or it has the
        result if the work was quicker, so that what the work took hold of is never lost on the way.
        """
        entrance = self._entrance
        future: _Promise[T] = _Promise(entrance)
        if entrance is None or not entrance.let_in(future.is_of(_Work(work, future))):
            work.close()
            raise Unavailable("the I/O loop is restarting")
        return future

    def call(self, function: Callable[[], None]) -> None:
        """Runs a function on the loop's thread soon; dropped when there is no loop."""
        entrance = self._entrance
        if entrance is not None:
            entrance.let_in(function)

    def _run(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        entrance = _Entrance(loop)
        self._beat_at = self._clock.monotonic()
        self._loop = loop
        self._entrance = entrance
        loop.call_soon(self._beat, loop)
        for setup in self._setups:
            loop.call_soon(setup)
        loop.call_soon(ready.set)
        try:
            loop.run_forever()
        finally:
            if self._loop is loop:
                self._loop = self._entrance = None
            entrance.close()  # first: what began while the others are being cancelled would be forgotten
            self._clean_up(loop)
            _cancel_all(loop)
            entrance.abandon()
            loop.close()

    def _clean_up(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = [loop.create_task(cleanup()) for cleanup in self._cleanups]
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_CLEAN_UP_S))

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat_at = self._clock.monotonic()
        loop.call_later(_BEAT_S, self._beat, loop)


class _Promise(Future[T]):
    """What ``submit`` returns."""

    def __init__(self, entrance: _Entrance | None) -> None:
        super().__init__()
        self._entrance = entrance
        self._work: _Work[T] | None = None

    def is_of(self, work: _Work[T]) -> _Work[T]:
        self._work = work
        return work

    def leave_work(self) -> None:
        """The work has ended. PERF: each knows the other, so that both, and the result, would be left to the garbage
        collector: of each look at a node all that it brought.
        """
        self._work = None

    def cancel(self) -> bool:
        """Asks for it; see ``IoLoop.submit``. False: the work has ended."""
        work = self._work
        if self.done() or self._entrance is None or work is None:
            return False
        return self._entrance.let_in(work.end)


@dataclass(slots=True)
class _Work(Generic[T]):
    """A coroutine that is to begin on the loop, and the future of its result. ``task``: it began, as this."""

    coroutine: Coroutine[Any, Any, T]
    future: _Promise[T]
    task: asyncio.Task[None] | None = None

    def drop(self) -> None:
        """It is not to begin any more."""
        self.coroutine.close()
        self.forget()

    def forget(self) -> None:
        """There will be no result."""
        Future.cancel(self.future)

    def end(self) -> None:
        """On the loop: it is not wanted any more."""
        if self.task is not None:
            self.task.cancel()

    async def carry_out(self) -> None:
        try:
            result = await self.coroutine
        except asyncio.CancelledError:
            self.forget()
            raise
        except BaseException as error:
            if not self.future.done():  # else it ends when nobody counts on it any more
                self.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            if not self.future.done():
                self.future.set_result(result)


class _Entrance:
    """The way onto one loop, for all threads.

    PERF: however many come at once, the loop is woken once, by a write to a socket; for a change of a thousand nodes that
    was one for each. And the result is handed over in the turn in which it is there: ``run_coroutine_threadsafe`` takes
    two turns more for that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None] | _Work[Any]] = deque()
        self._running: dict[asyncio.Task[None], _Work[Any]] = {}  # a loop holds its tasks weakly
        self._woken = False
        self._closed = False

    def let_in(self, one: Callable[[], None] | _Work[Any]) -> bool:
        """Has the loop take it soon, in the order in which they came. False: the loop has ended."""
        if self._closed:
            return False
        self._waiting.append(one)
        if not self._woken:  # else it was woken and did not look yet, so it will find this one, too
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._enter)
            except RuntimeError:  # closed in between
                self._closed = True
        if self._closed:
            self.close()
        return True

    def close(self) -> None:
        """When the loop does not turn any more, or only to end: who waits is sent away, and nobody is let in."""
        self._closed = True
        while self._waiting:
            with suppress(IndexError):
                one = self._waiting.popleft()
                if isinstance(one, _Work):
                    one.drop()

    def abandon(self) -> None:
        """When the loop does not turn any more: what would not end although it was cancelled gives no result."""
        self.close()
        for work in self._running.values():
            work.forget()
        self._running.clear()

    def _enter(self) -> None:
        self._woken = False  # first, so that whoever comes from now on wakes it again
        for _ in range(len(self._waiting)):
            try:
                one = self._waiting.popleft()
            except IndexError:  # closed by another thread meanwhile
                return
            if isinstance(one, _Work):
                one.task = task = self._loop.create_task(one.carry_out())
                self._running[task] = one
                task.add_done_callback(partial(self._ended, one))
            else:
                self._loop.call_soon(one)

    def _ended(self, work: _Work[Any], task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not work.future.done():
            work.drop()  # it was cancelled before it began
        work.future.leave_work()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))


class _CheckLoop:
    """To itself: is the thread still there?"""


class IoLoopActor(Actor):
    """Starts the loop, watches that its thread lives, and stops it. First child of ``network``: when it fails, the links
    that stood on the loop are started anew with it.
    """

    _CHECK_S = 0.5
    _DRAIN_S = 2.0

    def __init__(
        self, context: Context, *, io: IoLoop, waiting: Callable[[], int] = lambda: 0, behind_s: float = 10.0
    ) -> None:
        """``waiting``: how many events are on the loop that are not durable yet. ``behind_s``: that late, the loop hangs."""
        super().__init__(context)
        self._io = io
        self._waiting = waiting
        self._behind_s = behind_s
        self._was_behind = False

    def started(self) -> None:
        self._io.stop()
        self._io.start()
        self.context.on_void(self._io.stop)
        self.context.on_beat(self._CHECK_S, _CheckLoop())

    def stopping(self) -> None:
        """All links are gone by now; what they still heard is let through first, and acknowledged by way of the loop."""
        until = self.context.clock.monotonic() + self._DRAIN_S
        while self._io.alive and self._waiting() and self.context.clock.monotonic() < until:
            time.sleep(0.02)

    def receive(self, message: Any) -> Any:
        if isinstance(message, _CheckLoop):
            if not self._io.alive:
                raise RuntimeError("the I/O loop's thread ended")
            lag = self._io.lag()
            if lag > self._behind_s and self._was_behind:  # twice: after a sleep of the whole machine it looks so once
                raise RuntimeError(f"the I/O loop has been stuck for {lag:.0f} s")
            self._was_behind = lag > self._behind_s
            self.context.on_beat(self._CHECK_S, message)
        return None
