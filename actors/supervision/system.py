"""A whole system: the root supervisor, the directory, the timers and the watch; and how a process runs it."""

from __future__ import annotations

import logging
import os
import queue
import random
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from actors.supervision.children import Child, TreeNode
from actors.supervision.directory import Directory
from actors.supervision.signals import Chaos, Ended, Harm, How, LifecycleEvent, LifecycleRecord, Signal, Started
from actors.supervision.spec import ChildSpec, ChildState, Intensity, Restart, Strategy
from actors.supervision.stacks import format_stacks
from actors.supervision.supervisor import Supervisor
from actors.supervision.timers import Timers
from actors.supervision.watch import Watch
from coxswain.clock import Clock
from coxswain.errors import Refused

__all__ = ["System"]

_log = logging.getLogger(__name__)

_EVENTS_HELD = 10_000

_LAST_EVENTS_S = 1.0
"""How long the end of a system waits for its observers to take the last events in."""

Observer = Callable[[LifecycleEvent, str, str], object]
Recorder = Callable[[LifecycleRecord], object]


class System:
    """One tree of actors. Started once, stopped once.

    Args:
        children: the root's children, in start order.
        strategy: of the root.
        intensity: of the root; when it gives up, the system ends with a failure.
        clock: time for windows, backoffs and the watch. (Deadlines of asks are real time.)
        rng: source of jitter.
        allow_chaos: whether ``harm`` and ``fail_next_start`` work.
        shutdown_s: how long the whole tree may take to stop.
        root_id: the root's name.
    """

    def __init__(
        self,
        *,
        children: Sequence[ChildSpec],
        clock: Clock,
        rng: random.Random,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
        allow_chaos: bool = False,
        shutdown_s: float = 30.0,
        root_id: str = "root",
    ) -> None:
        self.clock = clock
        self.directory = Directory()
        self.timers = Timers(clock)
        self.watch = Watch(clock)
        self.allow_chaos = allow_chaos
        self._rng = rng
        self._shutdown_s = shutdown_s
        kwargs = {"children": tuple(children), "strategy": strategy, "intensity": intensity}
        self._root = Child(ChildSpec(root_id, Supervisor, kwargs, Restart.TEMPORARY, shutdown_s=shutdown_s))
        self._up = threading.Event()
        self._ended = threading.Event()
        self._on_ended: list[Callable[[], object]] = []
        self._ended_lock = threading.Lock()
        self._begun = False
        self._failure: str | None = None
        self._recorders: list[Recorder] = []
        self._events: queue.SimpleQueue[LifecycleRecord | None] = queue.SimpleQueue()
        self._events_dropped = 0
        self._observing: threading.Thread | None = None
        self._fail_start: set[str] = set()

    # -- running

    def start(self) -> None:
        """Starts everything and returns; children start one after the other on the root's thread (``wait_up``)."""
        if self._begun:
            raise RuntimeError("a system is started once")
        self._begun = True
        self.timers.start()
        self.watch.start()
        self._observing = threading.Thread(target=self._observe_loop, name="observers", daemon=True)
        self._observing.start()
        self._root.start(self, self._on_root, self._rng, nullcontext(enter_result=True))

    def wait_up(self, timeout: float | None = None) -> bool:
        """Waits until every child came up (or backs off). False: not within ``timeout`` seconds, or it ended before."""
        return self._up.wait(timeout) and not self._ended.is_set()

    def stop(self, deadline: float | None = None) -> bool:
        """Stops everything in reverse order; not from an actor's thread. Again: waits for the same end.

        Args:
            deadline: seconds for the whole tree, ``shutdown_s`` if None; what is left then is fenced off.

        Returns:
            Whether the tree ended in good order and in time.
        """
        seconds = self._shutdown_s if deadline is None else deadline
        if not self._begun:
            self._begun = True
            self._ended.set()
        if not self._ended.is_set():
            self._root.stop(self, lambda: None)
            if not self._ended.wait(seconds):
                _log.error("the tree did not stop within %g s", seconds)
                actor = self._root.actor
                if actor is not None:
                    actor.fence(How.OVERDUE, f"did not stop within {seconds:g} s")
                self._ended.wait(1.0)
        self.watch.close()
        self.timers.close()
        self.directory.close()
        self._events.put(None)
        if self._observing is not None and self._observing is not threading.current_thread():
            self._observing.join(_LAST_EVENTS_S)
        return self._failure is None

    def run(self, on_hangup: Callable[[], object] | None = None) -> int:
        """Runs until SIGTERM or SIGINT, or until the root gives up. For the main thread.

        SIGHUP calls ``on_hangup``, on the main thread; signals that come together may call it once.

        A second signal ends the process at once (exit status 128 + its number, nothing is cleaned up); SIGUSR1 prints the
        stacks of all threads, and which actors rest, to stderr.

        Returns:
            0 after an orderly stop, 1 when the root gave up or something did not stop in time.
        """
        # Event.set() takes a lock that the interrupted main thread may hold; SimpleQueue.put() is made for this.
        wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        asked: list[int] = []

        def on_signal(number: int, _frame: Any) -> None:
            if asked:
                os.write(2, b"second signal: leaving at once\n")
                os._exit(128 + number)
            asked.append(number)
            wake.put(True)

        def on_hup(_number: int, _frame: Any) -> None:
            wake.put(False)

        def on_dump(_number: int, _frame: Any) -> None:
            os.write(2, format_stacks(self.directory.resting()).encode(errors="replace"))

        handlers = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal, signal.SIGUSR1: on_dump}
        if on_hangup is not None:
            handlers[signal.SIGHUP] = on_hup
        with _handling(handlers):
            self._call_when_ended(lambda: wake.put(True))
            self.start()
            while not wake.get():
                if on_hangup is not None:
                    on_hangup()
            in_order = self.stop()
        sys.stderr.flush()
        return 0 if in_order else 1

    @property
    def failure(self) -> str | None:
        """Why the root gave up or did not end in good order; None while it has not."""
        return self._failure

    def wait_ended(self, timeout: float | None = None) -> bool:
        """Waits for the end of the whole tree. False: it goes on."""
        return self._ended.wait(timeout)

    # -- for threads that are no actors

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        """See ``Directory.ask``."""
        return self.directory.ask(name, message, deadline=deadline)

    def tell(self, name: str, message: Any) -> bool:
        """See ``Directory.tell``."""
        return self.directory.tell(name, message)

    def tree(self, without: Collection[str] = ()) -> TreeNode:
        """A picture of everything; asks nobody, so that it works when somebody hangs.

        ``without``: supervisors whose children are left out, where there may be thousands of them.
        """
        return self._root.snapshot(self.clock.monotonic(), self, without)

    def on_event(self, observer: Observer) -> None:
        """``observer(event, name, reason)``: ``on_record`` for those who need no more than that."""
        self.on_record(lambda record: observer(record.event, record.name, record.reason))

    def on_record(self, recorder: Recorder) -> None:
        """``recorder(record)`` is called with a ``LifecycleRecord`` for each event, in order, on a thread of its own.

        Its exceptions are logged. When it is more than 10,000 events behind, new ones are dropped and counted.
        """
        self._recorders.append(recorder)

    def add_lag_source(self, source: Callable[[], float]) -> None:
        """See ``Watch.add_lag_source``."""
        self.watch.add_lag_source(source)

    def harm(self, name: str, how: Harm, seconds: float = 3600.0) -> bool:
        """Hurts an actor on purpose. False: there is nobody of that name just now.

        Raises:
            Refused: this system does not allow chaos.
        """
        if not self.allow_chaos:
            raise Refused("this system does not allow chaos")
        return self.directory.tell(name, Chaos(how, seconds))

    def fail_next_start(self, name: str) -> None:
        """The next start of ``name`` fails; for tests of exactly that.

        Raises:
            Refused: this system does not allow chaos.
        """
        if not self.allow_chaos:
            raise Refused("this system does not allow chaos")
        self._fail_start.add(name)

    # -- for supervisors

    def maybe_fail_start(self, name: str) -> None:
        if name in self._fail_start:
            self._fail_start.discard(name)
            raise RuntimeError("chaos: told to fail at start")

    def observe(self, event: LifecycleEvent, name: str, incarnation: int, reason: str) -> None:
        """Hands an event to the observers, off the caller's thread."""
        if not self._recorders:
            return
        if self._events.qsize() >= _EVENTS_HELD:
            self._events_dropped += 1
            if self._events_dropped & (self._events_dropped - 1) == 0:
                _log.warning("observers do not keep up: %d lifecycle events dropped", self._events_dropped)
            return
        self._events.put(LifecycleRecord(event, name, incarnation, reason, self.clock.now()))

    # -- inside

    def _observe_loop(self) -> None:
        while (record := self._events.get()) is not None:
            for recorder in list(self._recorders):
                try:
                    recorder(record)
                except Exception:
                    _log.exception("an observer of lifecycle events failed")

    def _on_root(self, signal_: Signal) -> None:
        """On the root's thread, or on whichever fenced it off."""
        match signal_:
            case Started():
                self._root.state = ChildState.RUNNING
                self._up.set()
            case Ended() as ended:
                self._root.note_end(ended, self.clock.monotonic(), self.clock.now())
                self._root.state = ChildState.FAILED if ended.failed else ChildState.STOPPED
                if ended.failed:
                    self._failure = ended.reason
                    _log.error("the root %s", ended.reason)
                with self._ended_lock:
                    self._ended.set()
                    calls, self._on_ended = self._on_ended, []
                self._up.set()
                self.directory.close()
                for call in calls:
                    call()
            case _:
                pass

    def _call_when_ended(self, call: Callable[[], object]) -> None:
        with self._ended_lock:
            if not self._ended.is_set():
                self._on_ended.append(call)
                return
        call()


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[[int, Any], None]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
