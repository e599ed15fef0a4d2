"""The watch: finds actors that hang, and threads that vanished without a word.

It sends no pings: thousands of idle actors should cost nothing. Whoever gets a message, and whoever begins to work on one,
stirs, and notes when it began; the watch reads those notes. An idle actor with an empty mailbox is healthy by definition;
one that is busy is late after its ``hang_s``, and so is one that lets messages wait that long and takes none. Before it
calls anybody late, the watch asks whether the machine itself was: its own tick and registered lag sources (an I/O loop)
lengthen every deadline.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sized
from itertools import islice
from typing import TYPE_CHECKING

from actors.supervision.lateness import Lateness, stretched
from actors.supervision.signals import How
from coxswain.clock import Clock

if TYPE_CHECKING:
    from actors.supervision.actor import Actor

__all__ = ["TICK_S", "Watch"]

TICK_S = 0.5

_THREADS_PER_SWEEP = 50
"""Of all actors, in turn, so many are looked at for a thread that vanished although nobody wrote to it, which is rare."""

_log = logging.getLogger(__name__)


class Watch:
    """A thread of its own. Actors are added when they start and removed when their supervisor knows of their end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: dict[Actor, tuple[float, Sized]] = {}
        self._stirring: set[Actor] = set()
        self._stuck: dict[Actor, tuple[int, float]] = {}
        self._buried: dict[str, list[threading.Thread]] = {}
        self._lag_sources: list[Callable[[], float]] = []
        self._lateness = Lateness()
        self._sweeps = 0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def add(self, actor: Actor, hang_s: float) -> None:
        """Watches one whose thread was started."""
        with self._lock:
            self._watched[actor] = hang_s, actor.mailbox.waiting
        self._stirring.add(actor)  # it starts, or is about to

    def remove(self, actor: Actor) -> None:
        with self._lock:
            self._watched.pop(actor, None)
        self._stirring.discard(actor)

    def stir(self, actor: Actor) -> None:
        """Told by an actor after it got mail, and after it noted what it works on. On any thread."""
        self._stirring.add(actor)

    def add_lag_source(self, source: Callable[[], float]) -> None:
        """``source`` returns by how many seconds something that everybody depends on is behind just now."""
        self._lag_sources.append(source)

    def bury(self, name: str, thread: threading.Thread) -> None:
        """Notes a thread that was abandoned."""
        with self._lock:
            self._buried.setdefault(name, []).append(thread)

    def zombies(self, name: str) -> int:
        """How many abandoned threads of ``name`` still run."""
        threads = self._buried.get(name)
        return sum(thread.is_alive() for thread in list(threads)) if threads else 0

    def sweep(self) -> None:
        """One look at everybody who stirs. PERF: thousands are idle and have no mail; to ask each whether it is so took most
        of the watch's time, because it fetches what nobody else has touched since.
        """
        now = self._clock.monotonic()
        self._sweeps += 1
        with self._lock:
            slices = 1 + len(self._watched) // _THREADS_PER_SWEEP
            idle = list(islice(self._watched, self._sweeps % slices, None, slices))
        stuck, self._stuck = self._stuck, {}
        for actor in self._stirring.copy():
            self._stirring.discard(actor)  # first: whatever comes after this look puts it back
            watched = self._watched.get(actor)
            if watched is None:
                continue
            hang_s, waiting = watched
            busy = actor.busy
            if waiting or busy is not None:
                self._stirring.add(actor)
            if busy is None:
                if waiting:
                    self._look_at_waiting(actor, hang_s, stuck.get(actor), now)
            elif not actor.excused and now - busy[1] > hang_s:
                self._judge(actor, hang_s, busy, now)
            if actor.has_vanished():
                self._gone(actor)
        for actor in idle:
            if actor.has_vanished():
                self._gone(actor)
        self._forget_ended_threads()

    def note(self, *, tick_s: float, lag_s: float = 0.0) -> None:
        """Notes by how much the own tick was late just now; public for tests."""
        self._lateness.note(self._clock.monotonic(), tick_s=tick_s, lag_s=lag_s)

    def _judge(self, actor: Actor, hang_s: float, busy: tuple[str, float], now: float) -> None:
        what, since = busy
        if now - since > stretched(hang_s, self._lateness.since(since)) and actor.busy is busy:
            actor.fence(How.HUNG, f"hung for {now - since:.1f} s in {what} and was fenced off")

    def _look_at_waiting(self, actor: Actor, hang_s: float, before: tuple[int, float] | None, now: float) -> None:
        """Messages wait although the actor works on none."""
        taken = actor.mailbox.taken
        if before is None or before[0] != taken:
            self._stuck[actor] = (taken, now)
            return
        self._stuck[actor] = before
        since = before[1]
        if now - since > stretched(hang_s, self._lateness.since(since)) and actor.mailbox.taken == taken:
            actor.fence(How.HUNG, f"took no message for {now - since:.1f} s and was fenced off")

    def _gone(self, actor: Actor) -> None:
        if actor.context.is_current:
            actor.fence(How.VANISHED, "vanished: its thread ended without a word")

    def _forget_ended_threads(self) -> None:
        if not self._buried:
            return
        with self._lock:
            for name, threads in list(self._buried.items()):
                alive = [thread for thread in threads if thread.is_alive()]
                if alive:
                    self._buried[name] = alive
                else:
                    del self._buried[name]

    def _run(self) -> None:
        expected = self._clock.monotonic() + TICK_S
        while not self._closed.wait(TICK_S):
            now = self._clock.monotonic()
            self.note(tick_s=now - expected, lag_s=max((self._lag_of(source) for source in self._lag_sources), default=0.0))
            expected = now + TICK_S
            try:
                self.sweep()
            except Exception:
                _log.exception("the watch stumbled")

    def _lag_of(self, source: Callable[[], float]) -> float:
        try:
            return source()
        except Exception:
            _log.exception("a lag source failed")
            return 0.0
