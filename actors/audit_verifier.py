"""``audit_verifier``: walks the whole audit log, once a day and when somebody asks. The walk is in a process of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from actors.supervision import Actor, Context
from coxswain.audit.checkpoint import silence
from coxswain.audit.settings import AuditPaths
from coxswain.audit.verify import Finding, Report
from coxswain.audit.verify_process import run
from coxswain.errors import CoxswainError, Unavailable
from coxswain.messages.audit import AuditState, DescribeAudit, VerifyAudit, WalkDone
from coxswain.store import Store

__all__ = ["AuditVerifier"]

_STATE_S = 10.0
_LONGEST_S = 1_800.0
_AT_ONCE = 2
_FIRST_S = 600.0
_EVERY_S = 86_400.0


class _Walk:
    """To itself."""


class AuditVerifier(Actor):
    """At most two walks at once; whoever asks for more is told so. What a walk finds is told to ``audit_writer``,
    which tells everybody: a record that was changed in place is noticed even if no operator ever asks.
    """

    def __init__(self, context: Context, *, store: Store, paths: AuditPaths, first_s: float = _FIRST_S) -> None:
        super().__init__(context)
        self._store = store
        self._checkpoints = paths.checkpoints
        self._first_s = first_s
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def started(self) -> None:
        self.context.after(self._first_s * self.context.rng.uniform(1.0, 1.2), _Walk())

    def receive(self, message: Any) -> Any:
        match message:
            case VerifyAudit(against):
                return self._start(against)
            case _Walk():
                self.context.after(_EVERY_S, message)
                try:
                    self._start(())
                except CoxswainError as error:
                    self.context.log.warning("the audit log was not verified today: %s", error)
        return None

    def _start(self, against: tuple[str, ...]) -> Future[Report]:
        state: AuditState = self.context.ask("audit_writer", DescribeAudit(), deadline=_STATE_S)
        if not self._slots.acquire(blocking=False):
            raise Unavailable("the audit log is being verified already", remedy="Try again when that is done.")
        answer: Future[Report] = Future()

        def walk() -> None:
            try:
                report = self._walk(state, against)
                with suppress(InvalidStateError):  # nobody waits any more
                    answer.set_result(report)
            except BaseException as error:
                self.context.log.warning("the audit log could not be verified: %s", error)
                with suppress(InvalidStateError):
                    answer.set_exception(error)
            finally:
                self._slots.release()

        threading.Thread(target=walk, name="audit_verifier walk", daemon=True).start()
        return answer

    def _walk(self, state: AuditState, against: tuple[str, ...]) -> Report:
        """On a thread of its own."""
        report = run(self._store.location, state.public_key, self._checkpoints, against, timeout_s=_LONGEST_S)
        if not against:  # what somebody else brings along may be wrong itself
            whys = (report.broken.why,) if report.broken else ()
            self.context.tell("audit_writer", WalkDone((*whys, *(finding.why for finding in report.findings))))
        silent = silence(state.checkpoint_at, state.interval_s, self.context.clock.now())
        if silent and not state.unsigned:
            report.findings.append(Finding(silent))
        known = {finding.why for finding in report.findings}
        report.findings += [Finding(why) for why in state.unsigned if why not in known]
        return report
