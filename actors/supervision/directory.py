"""Names, not references: whoever wants a service asks for it by name and always reaches its present incarnation."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actors.supervision.mailbox import MailboxFull
from coxswain.errors import DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from actors.supervision.actor import Actor

__all__ = ["LONGEST_DEADLINE_S", "Asked", "Directory", "NotBegun"]

LONGEST_DEADLINE_S = 86_400.0

_log = logging.getLogger(__name__)


class NotBegun(Unavailable):
    """The actor ended before it began to work on the message: asking its successor is safe."""


class Asked:
    """Envelope of an ask. ``reply`` is resolved by the actor, or by whoever declares the actor dead."""

    __slots__ = ("message", "reply")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.reply: Future[Any] = Future()


class Directory:
    """Thread-safe. An absent name is either restarting or unknown; an ask waits for it within its own deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._actors: dict[str, Actor] = {}
        self._incarnations: Counter[str] = Counter()
        self._full: Counter[str] = Counter()
        self._undelivered = 0
        self._closed = False

    # -- for the supervision

    def next_incarnation(self, name: str) -> int:
        """The number of the next incarnation of ``name``, from 1. Remembered for ever, so that none is used twice."""
        with self._changed:
            self._incarnations[name] += 1
            return self._incarnations[name]

    def publish(self, name: str, actor: Actor) -> None:
        """Raises ``ValueError`` while somebody else has the name."""
        with self._changed:
            if name in self._actors:
                raise ValueError(f"the name {name} is taken by another child")
            self._actors[name] = actor
            self._changed.notify_all()

    def withdraw(self, name: str, actor: Actor) -> None:
        """Forgets ``name`` if it is still ``actor``."""
        with self._changed:
            if self._actors.get(name) is actor:
                del self._actors[name]

    def close(self) -> None:
        """The system is over: whoever waits for a name is told so at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def find(self, name: str) -> Actor | None:
        return self._actors.get(name)

    def resting(self) -> list[str]:
        """Names of actors that have nothing to do and no thread. Takes no lock, so that a signal handler may ask."""
        return sorted(name for name, actor in list(self._actors.items()) if actor.mailbox.resting)

    def note_full(self, name: str, message: Any) -> None:
        """Counts a message dropped for a full mailbox; logs the 1st, 2nd, 4th, 8th … of each name."""
        with self._changed:
            self._undelivered += 1
            self._full[name] += 1
            count = self._full[name]
        if count & (count - 1) == 0:
            _log.warning("the mailbox of %s is full: %d messages dropped so far, last a %s", name, count, _type(message))

    @property
    def undelivered(self) -> int:
        """How many tells reached nobody."""
        return self._undelivered

    # -- for everybody

    def tell(self, name: str, message: Any) -> bool:
        """Never blocks. False: nobody of that name just now, or its mailbox is full; the message is gone."""
        actor = self._actors.get(name)
        try:
            if actor is not None and actor.put(message):
                return True
        except MailboxFull:
            self.note_full(name, message)
            return False
        with self._changed:
            self._undelivered += 1
        _log.debug("nobody took a %s for %s", _type(message), name)
        return False

    def ask(self, name: str, message: Any, *, deadline: float) -> Any:
        """Asks and waits for the answer.

        When the incarnation that was asked ends before it began to work on this, its successor is asked. One that ended
        in the middle is not asked again: nobody knows how much it did. An actor may answer with a
        ``concurrent.futures.Future``; then the answer is what that comes to. A question whose asker has left before the
        actor came to it is not worked on.

        Args:
            name: whom to ask.
            message: what.
            deadline: seconds from now, for all of it: waiting for a restart, queueing, the work, the answer. At most a
                day; what is not above zero has passed.

        Raises:
            DeadlineExceeded: no answer in time. The work may still be done.
            Unavailable: nobody of that name came up, it failed while it worked on this, or its mailbox is full.
            CoxswainError: what the actor raised.
            ValueError: no deadline worth the name.
        """
        if not deadline <= LONGEST_DEADLINE_S:
            raise ValueError(f"an ask needs a deadline of at most {LONGEST_DEADLINE_S:g} s, not {deadline!r}")
        end = time.monotonic() + deadline
        over: Actor | None = None
        while True:
            actor = self._wait_for(name, end, over)
            asked = Asked(message)
            try:
                actor.put(asked)
            except MailboxFull as error:
                raise Unavailable(f"{name} is overloaded: {error}") from None
            try:
                return _answer(asked.reply, max(0.0, end - time.monotonic()))
            except NotBegun:
                over = actor
            except TimeoutError:
                raise DeadlineExceeded(f"{name} did not answer {_type(message)} within {deadline:g} s") from None

    def _wait_for(self, name: str, end: float, over: Actor | None) -> Actor:
        """Waits until somebody other than ``over`` has the name."""
        with self._changed:
            while (actor := self._actors.get(name)) is None or actor is over:
                if self._closed:
                    raise Unavailable(f"{name} is not running any more: the system has ended")
                left = end - time.monotonic()
                if left <= 0:
                    raise Unavailable(f"{name} is not running just now")
                self._changed.wait(left)
            return actor


def _answer(reply: Future[Any], seconds: float) -> Any:
    """Waits for it; raises ``TimeoutError`` if it does not come. What nobody waits for any more is not begun."""
    try:
        return reply.result(seconds)
    except TimeoutError:
        if reply.cancel() or not reply.done():
            raise
        return reply.result()  # it came in this very instant


def _type(message: Any) -> str:
    return type(message).__name__
