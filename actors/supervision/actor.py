"""The base of every supervised actor: a Pykka actor whose every way out is seen.

Pykka gives threads, mailboxes and the loop. What it does not give, each with its test:

- An exception while an ask is answered does not kill a Pykka actor. Here an *expected* error (``CoxswainError``) goes to
  the caller and the actor lives on; any other goes to the caller as ``Unavailable`` and ends the actor, because its state
  may be half changed. An exception of either kind while nobody waits for an answer ends the actor.
- A ``BaseException`` would stop all actors of the process. Here it ends the one that raised it.
- A failure in ``on_start`` calls no hook. Here it is reported like any other.
- A Pykka actor holds its thread for life. Here one that had nothing to do for a while rests without any, and the next
  message brings it a new one: of the actors of a daemon, most hardly ever have anything to do.
- What waits in the mailbox of a dead actor is lost. Here asks among it go on to the successor; tells are lost still.
"""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, ClassVar, final

import pykka
from pykka._envelope import Envelope

from actors.supervision.context import Context
from actors.supervision.directory import Asked, NotBegun
from actors.supervision.mailbox import Mailbox, MailboxClosed, Rest
from actors.supervision.signals import Chaos, Harm, How, Shutdown, Signal, Wake
from coxswain.errors import CoxswainError, Refused, Unavailable

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Actor"]

_LONGEST_REASON = 300


class _Died(Exception):
    """Ends Pykka's loop the way an exception does; its cause is what happened."""


class Actor(pykka.ThreadingActor):
    """Base of supervised actors. Subclasses override ``started``, ``receive`` and ``stopping``; all three run on the
    actor's own thread. ``__init__`` runs on the supervisor's and only stores its arguments.

    Attributes:
        mailbox_capacity: how many messages may wait; beyond, tells are dropped and asks fail.
        rests_after_s: after so many seconds without a message it goes without a thread until the next one; None: never.
        busy: what the actor works on, and since when (monotonic seconds); None: nothing. Read by the watch.
        excused: it is being stopped, and the deadline of that counts in place of ``hang_s``.
    """

    use_daemon_thread = True  # a hung actor must not keep the process from ending
    mailbox_capacity: ClassVar[int] = 10_000
    rests_after_s: ClassVar[float | None] = 10.0

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.busy: tuple[str, float] | None = None
        self.excused = False
        self.thread = threading.Thread(target=self._actor_loop, name=context.name, daemon=True)
        self._current: Asked | None = None
        self._deferred: set[Future[Any]] = set()
        self._deferred_lock = threading.Lock()
        self._begun = False
        self._silenced = False

    # -- for subclasses

    def started(self) -> None:
        """Before the first message. An exception is a failed start."""

    def receive(self, message: Any) -> Any:
        """One message. The return value answers an ask; a ``concurrent.futures.Future`` answers it later."""

    def stopping(self) -> None:
        """After the last message of an orderly stop; not after a failure."""

    def is_asked(self) -> bool:
        """Whether somebody waits for the answer to the message that is worked on just now."""
        return self._current is not None

    # -- for supervisors, which are actors with children

    def shutdown(self) -> None:
        """An orderly stop was asked for: ``stopping`` follows after what is in the mailbox by now."""
        self.stop()

    def is_up(self) -> bool:
        """Whether the start is complete when ``started`` has returned."""
        return True

    # -- for the supervision

    @property
    def mailbox(self) -> Mailbox:
        inbox = self.actor_inbox
        assert isinstance(inbox, Mailbox)  # noqa: S101 - made by us, below
        return inbox

    def put(self, message: Any, *, urgent: bool = False) -> bool:
        """Never blocks. ``urgent``: it gets in whatever the depth. False: the actor is gone. Raises ``MailboxFull``."""
        try:
            self.mailbox.put(Envelope(message), urgent=urgent or isinstance(message, Signal))
        except MailboxClosed:
            self._refuse(message)
            return False
        self.context.system.watch.stir(self)
        return True

    def has_vanished(self) -> bool:
        """Whether its thread ended without a word; on any thread."""
        if self.thread.is_alive() or self.mailbox.resting:
            return False
        with self.mailbox.unmoved():  # it may just have begun to rest, or have got a new thread
            return not self.mailbox.resting and not self.thread.is_alive()

    def launch(self) -> None:
        """Starts the thread. Pykka's registry is left out: it is a list, and the directory knows all names."""
        self._start_actor_loop()

    def fence(self, how: How, reason: str) -> bool:
        """Declares the incarnation void without waiting for it, and reports it; on any thread but its own.

        Its thread is left to itself, and does nothing more once it wakes up. False: the incarnation was over already.
        """
        self.context.void()
        self.actor_stopped.set()
        current = self._current
        if current is not None:
            _fail(current.reply, Unavailable(f"{self.context.name} {reason}"))
        self._let_down(reason)
        if self.thread.is_alive():
            self.context.system.watch.bury(self.context.name, self.thread)
        return self.context.ended(how, reason)

    # -- Pykka's hooks

    def _create_actor_inbox(self) -> Any:  # type: ignore[override]  # Pykka has a static method here
        return Mailbox(self.mailbox_capacity, rest_s=self.rests_after_s, rouse=self._rouse)

    def _start_actor_loop(self) -> None:
        self.thread.start()

    def _actor_loop(self) -> None:
        self._actor_loop_setup()
        self._attend()

    @final
    def _attend(self) -> None:
        try:
            self._actor_loop_running()
        except Rest:
            return
        self._actor_loop_teardown()

    @final
    def _rouse(self) -> None:
        """A new thread, after a rest. On the thread of whoever sends it a message."""
        self.thread = threading.Thread(target=self._attend, name=self.context.name, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        try:
            self.mailbox.put(Envelope(pykka.messages._ActorStop()), urgent=True)  # noqa: SLF001 - as Pykka's own stop
        except MailboxClosed:
            return
        self.context.system.watch.stir(self)

    def on_start(self) -> None:
        self._mark_busy("start")
        try:
            self.started()
        except BaseException as error:
            self.actor_stopped.set()
            self._report_failure(How.START_FAILED, "failed to start", error)
        else:
            self._begun = True
            if self.is_up():
                self.context.started()
        finally:
            self.busy = None

    def on_receive(self, message: Any) -> None:
        if isinstance(message, Wake):
            return
        asked = message if isinstance(message, Asked) else None
        if asked is not None and not asked.reply.set_running_or_notify_cancel():
            return  # whoever asked has left
        payload = message if asked is None else asked.message
        self._current = asked
        try:
            if not self.context.is_current:  # it was fenced while it took the message out
                self._refuse(message)
                return
            self._mark_busy(type(payload).__name__)
            self._work(payload, asked)
        finally:
            self._current = None
            self.busy = None

    def on_stop(self) -> None:
        if not self.context.is_current:
            return
        self._mark_busy("stop")
        try:
            self.stopping()
        except BaseException as error:
            self._report_failure(How.CRASHED, "failed to stop", error)
        finally:
            self.busy = None
            self.context.ended(How.STOPPED, "stopped")

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002 - Pykka's signature
        exception_value: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        cause = exception_value.__cause__ if isinstance(exception_value, _Died) else exception_value
        self._report_failure(How.CRASHED, "failed", cause or exception_value)

    def _actor_loop_teardown(self) -> None:
        if not self._silenced:
            self._let_down("ended")

    def _handle_failure(self, *_exc_info: Any) -> None:
        """Pykka would log here; the supervisor logs each failure once, with its history."""
        self.actor_stopped.set()

    # -- inside

    def _work(self, payload: Any, asked: Asked | None) -> None:
        try:
            result = self._dispatch(payload, asked)
        except CoxswainError as error:
            if asked is None:
                raise
            _fail(asked.reply, error)
        except BaseException as error:
            if asked is not None:
                what = f"{type(payload).__name__} ({type(error).__name__})"
                _fail(asked.reply, Unavailable(f"{self.context.name} failed while it worked on {what}"))
            raise _Died from error
        else:
            if asked is None:
                return
            if isinstance(result, Future):
                self._answer_later(asked.reply, result)
            else:
                _resolve(asked.reply, result)

    def _dispatch(self, message: Any, asked: Asked | None) -> Any:
        if isinstance(message, Shutdown):
            self.shutdown()
            return None
        if isinstance(message, Chaos):
            return self._suffer(message, asked)
        return self.receive(message)

    def _suffer(self, chaos: Chaos, asked: Asked | None) -> None:
        if not self.context.system.allow_chaos:
            if asked is not None:
                raise Refused("this system does not allow chaos")
            self.context.log.warning("%s was told to %s, which this system does not allow", self.context.name, chaos.how)
            return
        match chaos.how:
            case Harm.RAISE:
                raise RuntimeError("chaos: told to raise")
            case Harm.EXIT:
                raise SystemExit("chaos: told to exit")
            case Harm.HANG:
                threading.Event().wait(chaos.seconds)
            case Harm.VANISH:  # the thread ends without a word, as if it was shot: only the watch can notice
                self._silenced = True
                self.actor_stopped.set()

    def _answer_later(self, reply: Future[Any], result: Future[Any]) -> None:
        """The answer is what ``result`` comes to, unless the actor ends before."""
        with self._deferred_lock:
            self._deferred.add(reply)

        def pass_on(done: Future[Any]) -> None:
            with self._deferred_lock:
                self._deferred.discard(reply)
            try:
                _resolve(reply, done.result())
            except CoxswainError as error:
                _fail(reply, error)
            except (Exception, CancelledError) as error:
                self.context.log.warning("%s could not answer: %s", self.context.name, _describe(error))
                _fail(reply, Unavailable(f"{self.context.name} could not answer ({type(error).__name__})"))

        result.add_done_callback(pass_on)

    def _let_down(self, reason: str) -> None:
        """Answers all who still wait for this incarnation."""
        for envelope in self.mailbox.close():
            self._refuse(envelope.message)
        with self._deferred_lock:
            waiting, self._deferred = self._deferred, set()
        for reply in waiting:
            _fail(reply, Unavailable(f"{self.context.name} {reason} before it answered"))

    def _refuse(self, message: Any) -> None:
        if isinstance(message, Asked):
            _fail(message.reply, NotBegun(f"{self.context.name} is restarting"))

    def _mark_busy(self, what: str) -> None:
        self.busy = (what, self.context.clock.monotonic())
        self.context.system.watch.stir(self)

    def _report_failure(self, how: How, what: str, error: BaseException | None) -> None:
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        reason = f"{what}: {_describe(error)}"
        self.context.ended(how, reason, trace)
        self._let_down(what)


def _describe(error: BaseException | None) -> str:
    text = f"{type(error).__name__}: {error}" if error is not None and str(error) else type(error).__name__
    return text[:_LONGEST_REASON]


def _resolve(reply: Future[Any], result: Any) -> None:
    try:
        reply.set_result(result)
    except InvalidStateError:
        return  # the caller was told otherwise: this incarnation was fenced off meanwhile


def _fail(reply: Future[Any], error: Exception) -> None:
    try:
        reply.set_exception(error)
    except InvalidStateError:
        return
