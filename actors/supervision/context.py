"""What one incarnation of an actor may use of the system."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from actors.supervision.mailbox import MailboxFull
from actors.supervision.signals import Ended, How, Signal, Started
from actors.supervision.timers import Timer
from coxswain.errors import Unavailable

if TYPE_CHECKING:
    from actors.supervision.actor import Actor
    from actors.supervision.system import System

__all__ = ["Context"]


class Context:
    """What one incarnation of an actor may use of the system. Safe on every thread.

    Once the incarnation is *void* (it ended, or was fenced off), nothing that it sends arrives anywhere.

    Attributes:
        name: the child's id, by which others reach it.
        incarnation: number of this incarnation; a later one of the same name has a larger number.
        clock: the system's.
        log: adds ``actor`` and ``incarnation`` to each record.
        system: for the supervision itself.
    """

    def __init__(
        self, name: str, incarnation: int, *, system: System, seed: int, report: Callable[[Signal], object]
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.clock = system.clock
        self._seed = seed
        self.log = logging.LoggerAdapter(logging.getLogger("coxswain.actors"), {"actor": name, "incarnation": incarnation})
        self.system = system
        self._report = report
        self._lock = threading.Lock()
        self._on_void: list[Callable[[], None]] = []
        self._void = False
        self._released = False
        self._reported = False
        self._up = False
        self._actor: Actor | None = None

    # -- for actors

    @cached_property
    def rng(self) -> random.Random:
        """Of this incarnation alone; for jitter, not for secrets. Made when it is first wanted: it takes 2.5 KB, and most
        links never have to wait for anything.
        """
        return random.Random(self._seed)  # noqa: S311

    @property
    def is_current(self) -> bool:
        """False: this incarnation is void."""
        return not self._void

    def tell(self, name: str, message: Any) -> bool:
        """Sends a message by name. Never blocks; False: it was not delivered (and that was counted)."""
        return not self._void and self.system.directory.tell(name, message)

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        """Asks by name and waits for the answer; see ``Directory.ask``.

        Raises:
            Unavailable: also when this incarnation is void.
            ValueError: it would wait for itself.
        """
        if self._void:
            raise Unavailable(f"{self.name} (incarnation {self.incarnation}) was replaced")
        if name == self.name:
            raise ValueError(f"{name} cannot wait for an answer from itself")
        return self.system.directory.ask(name, message, deadline=deadline)

    def tell_self(self, message: Any) -> bool:
        """A message to its own mailbox, from any thread: callbacks of an I/O loop, timers. False: it was dropped."""
        actor = self._actor
        if self._void or actor is None:
            return False
        try:
            return actor.put(message)
        except MailboxFull:
            self.system.directory.note_full(self.name, message)
            return False

    def tell_self_surely(self, message: Any) -> bool:
        """As ``tell_self``, whatever the depth: for what comes once, and would never be made up for. Only for what is
        bounded by itself, like the end of the one thing that is under way. False: this incarnation is over.
        """
        actor = self._actor
        return not self._void and actor is not None and actor.put(message, urgent=True)

    def after(self, delay: float, message: Any) -> Timer:
        """A message to itself, ``delay`` seconds from now, unless cancelled or void by then. It gets in whatever the depth:
        a beat that is dropped once would never come again.
        """
        return self.system.timers.after(delay, lambda: self.tell_self_surely(message))

    def on_beat(self, period: float, message: Any) -> Timer:
        """A message to itself at the next multiple of ``period`` seconds of the clock, half a period from now at the least.
        For what looks every so often: all who look as often are woken together, which for a processor that is idle is
        once instead of once for each.
        """
        delay = period - self.clock.monotonic() % period
        return self.after(delay if delay >= period / 2 else delay + period, message)

    def on_void(self, callback: Callable[[], None]) -> None:
        """Registers what must be let go when this incarnation ends, in whatever way.

        Called once, on the supervisor's thread, before a successor is started; in the order of registration. It must be
        quick, because the supervisor does nothing else meanwhile. Exceptions are logged. When the incarnation has been
        let go already (a fenced actor woke up and took hold of something), it is called at once, on the caller's thread.
        """
        with self._lock:
            if not self._released:
                self._on_void.append(callback)
                return
        self._run_callback(callback)

    # -- for the supervision

    def bind(self, actor: Actor) -> None:
        """Ties the incarnation to its actor."""
        self._actor = actor

    @contextmanager
    def while_current(self) -> Iterator[bool]:
        """Keeps the incarnation from becoming void within the block; gives whether it is not void already."""
        with self._lock:
            yield not self._void

    def void(self) -> None:
        """Ends the incarnation: nothing goes out any more, and its name is free. On any thread; does not wait."""
        with self._lock:
            if self._void:
                return
            self._void = True
        if self._actor is not None:
            self.system.directory.withdraw(self.name, self._actor)

    def release(self) -> None:
        """Lets go of what the incarnation held."""
        with self._lock:
            self._released = True
            callbacks, self._on_void = self._on_void, []
        for callback in callbacks:
            self._run_callback(callback)

    def started(self) -> None:
        """Reports to the supervisor that it is up, once."""
        with self._lock:
            if self._up or self._void:
                return
            self._up = True
        self._report(Started(self.name, self.incarnation))

    def ended(self, how: How, reason: str, trace: str = "") -> bool:
        """Reports the end to the supervisor, once. False: that was known."""
        with self._lock:
            if self._reported:
                return False
            self._reported = True
        self.void()
        self._report(Ended(self.name, self.incarnation, how, reason, trace))
        return True

    def _run_callback(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException:  # whatever it is, the supervisor that runs this must live
            self.log.exception("letting go of what %s held failed", self.name)
