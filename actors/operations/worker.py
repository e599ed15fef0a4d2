"""The thread of one run of one operation: does its steps, or takes them back, and can be cut off from outside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from actors.operations.journal import Journal, JournalDownError, caller_of
from actors.supervision import Context
from coxswain.errors import Conflict, CoxswainError, DeadlineExceeded
from coxswain.messages.audit import Caller, Committed
from coxswain.operations.kinds import Closeable, Kind, NeedsSecret, OnFailure, Step
from coxswain.operations.model import Direction, OperationState, Secrets, StepState
from coxswain.operations.moves import Claim, steps_back, steps_forward
from coxswain.store.operations import Superseded

__all__ = ["Cancelled", "CutOffError", "Worker"]

T = TypeVar("T")
C = TypeVar("C", bound=Closeable)

_log = logging.getLogger("coxswain.operations")


_CANCELLED = "cancelled; what it had changed is taken back"


class Cancelled(Conflict):
    """An operator cancelled the operation."""


class CutOffError(Exception):
    """The run is over for this thread: the controller stops, or another one took over. The journal stays as it is."""


_PASS = (JournalDownError, Superseded, CutOffError)
"""What goes through a step to whoever runs it."""


class Worker:
    """See the module. ``start`` and ``interrupt`` are called on other threads.

    Args:
        began: called when a step begins, with a number that only grows and its deadline in seconds.
        ended: called once, at the very end, with what killed the thread, if anything did.
    """

    def __init__(
        self, journal: Journal, kind: Kind, claim: Claim, *, context: Context, secrets: Secrets,
        began: Callable[[int, float], object], ended: Callable[[BaseException | None], object],
    ) -> None:  # fmt: skip
        self.journal = journal
        self.kind = kind
        self.steps: Sequence[Step] = kind.steps(journal.operation.params)
        self.context = context
        self.secrets = secrets
        self.thread = threading.Thread(target=self._main, name=f"{context.name}/work", daemon=True)
        self.serial = 0
        self._claim = claim
        self._began = began
        self._ended = ended
        self._lock = threading.Lock()
        self._stop: Exception | None = None
        self._woken = threading.Event()
        self._held: list[Closeable] = []
        self._shared: dict[str, Closeable] = {}

    # -- on other threads

    def start(self) -> None:
        self.thread.start()

    def interrupt(self, reason: Exception, serial: int | None = None) -> None:
        """Whatever the thread waits for is closed under it. With ``serial``: only while it works on that step."""
        with self._lock:
            if serial is not None and serial != self.serial:
                return
            if isinstance(self._stop, CutOffError):
                return
            self._stop = reason
            held, self._held = self._held, []
            self._shared.clear()
        self._woken.set()
        for thing in reversed(held):
            _close(thing)

    # -- what ``Work`` needs

    def check(self) -> None:
        with self._lock:
            if self._stop is not None:
                raise self._stop
        if not self.context.is_current:
            raise CutOffError

    def wait(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self.check()

    def hold(self, thing: C) -> C:
        with self._lock:
            stopped = self._stop
            if stopped is None:
                self._held.append(thing)
        if stopped is not None:
            _close(thing)
            raise stopped
        return thing

    def shared(self, name: str, make: Callable[[], C]) -> C:
        with self._lock:
            found = self._shared.get(name)
        if found is None:
            found = self.hold(make())
            with self._lock:
                self._shared[name] = found
        return found  # type: ignore[return-value]  # who uses a name knows what it stands for

    def drop(self, name: str) -> None:
        with self._lock:
            thing = self._shared.pop(name, None)
            if thing is not None and thing in self._held:
                self._held.remove(thing)
        if thing is not None:
            _close(thing)

    # -- the thread

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            self._run()
        except (CutOffError, Superseded):
            pass
        except BaseException as error:  # a JournalDownError, or a bug of the engine: the actor deals with it
            failure = error
        finally:
            self._let_go()
            self._ended(failure)

    def _run(self) -> None:
        claim = self._claim
        self.journal.begins(claim.direction, claim.how, claim.note)
        if claim.direction is Direction.FORWARD:
            reason = self._forward()
            if reason is None:
                return
            self._let_go()
            self.journal.turns_back(reason)
        self._back()

    def _forward(self) -> str | None:
        """Returns why it has to be taken back; None: it ended, or waits."""
        for position in steps_forward(self.journal.operation):
            try:
                self.check()
                self._do(position, StepState.RUNNING, self.steps[position].do)
            except Cancelled:
                return _CANCELLED
            except NeedsSecret as needed:
                return None if self.journal.waits(position, needed.name) else _CANCELLED
            except CoxswainError as error:
                self.journal.step_ends(position, StepState.FAILED, error)
                if self.kind.on_failure is OnFailure.UNDO:
                    self.journal.blames(error)
                    return f"its step {self.steps[position].name!r} failed; what it had changed is taken back"
                self._tell_failure(position)
                return None if self.journal.ends(OperationState.FAILED, error, unless_cancelled=True) else _CANCELLED
            self.journal.step_ends(position, StepState.DONE)
        self.journal.ends(OperationState.DONE)
        return None

    def _back(self) -> None:
        for position in steps_back(self.journal.operation):
            step = self.steps[position]
            if step.undo is None:
                self.journal.step_stays(position)
                continue
            try:
                self._do(position, StepState.UNDOING, step.undo)
            except Cancelled:
                with self._lock:  # it is being taken back already
                    self._stop = None
                self._do(position, StepState.UNDOING, step.undo)
            except CoxswainError as error:
                self.journal.step_ends(position, StepState.FAILED, error)
                self.journal.ends(OperationState.FAILED, error, note=f"its step {step.name!r} could not be taken back")
                return
            self.journal.step_ends(position, StepState.UNDONE)
        self.journal.ends(self.journal.operation.ending)

    def _tell_failure(self, position: int) -> None:
        from actors.operations.work import StepWork  # noqa: PLC0415 - they need each other

        if self.kind.after_failure is None:
            return
        try:
            self.kind.after_failure(StepWork(self, position))
        except CoxswainError as error:
            _log.warning("%s: its failure could not be told: %s", self.context.name, error)

    def _do(self, position: int, state: StepState, function: Callable[[Any], None]) -> None:
        """Raises ``CoxswainError``, ``CutOffError``, ``Superseded``, ``JournalDownError``."""
        from actors.operations.work import StepWork  # noqa: PLC0415 - they need each other

        self.journal.step_begins(position, state)
        with self._lock:
            self.serial += 1
        self._began(self.serial, self.steps[position].deadline_s)
        try:
            function(StepWork(self, position))
        except Exception as error:
            with self._lock:
                stop = self._stop
                if not isinstance(stop, CutOffError | None):
                    self._stop = None
                    self._woken.clear()
                self.serial += 1
            if not self.context.is_current:
                raise CutOffError from error  # nothing that it asks is answered any more, and that is not its fault
            if stop is not None and not isinstance(error, _PASS):
                raise stop from error  # what was closed under it failed in its own words
            if isinstance(error, (CoxswainError, *_PASS)):
                raise
            _log.error("%s: step %s failed unexpectedly", self.context.name, self.steps[position].name, exc_info=error)
            raise CoxswainError(f"the step failed unexpectedly: {type(error).__name__}: {error}"[:500]) from error
        with self._lock:
            self.serial += 1
            if isinstance(self._stop, DeadlineExceeded):  # too late to be late
                self._stop = None
                self._woken.clear()

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, []
            self._shared.clear()
            if not isinstance(self._stop, CutOffError):
                self._stop = None
                self._woken.clear()
        for thing in reversed(held):
            _close(thing)

    # -- for StepWork

    @property
    def caller(self) -> Caller:
        return caller_of(self.journal.operation)

    def ask(self, actor: str, message: Any, deadline: float) -> Any:
        self.check()
        return self.context.ask(actor, message, deadline=deadline)

    def change(self, actor: str, message: Any, deadline: float) -> Any:
        committed: Committed[Any] = self.ask(actor, message, deadline)
        return committed.value

    def remembered(self, position: int) -> Mapping[str, Any]:
        return self.journal.step(position).data


def _close(thing: Closeable) -> None:
    try:
        thing.close()
    except Exception as error:
        _log.debug("closing %r failed: %s", thing, error)
