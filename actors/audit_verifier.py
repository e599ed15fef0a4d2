"""``audit_verifier``: walks the whole audit log when somebody asks. The walk itself is in a process of its own."""

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
from coxswain.errors import Unavailable
from coxswain.messages.audit import AuditState, DescribeAudit, VerifyAudit
from coxswain.store import Store

__all__ = ["AuditVerifier"]

_STATE_S = 10.0
_LONGEST_S = 1_800.0
_AT_ONCE = 2


class AuditVerifier(Actor):
    """At most two walks at once; whoever asks for more is told so."""

    def __init__(self, context: Context, *, store: Store, paths: AuditPaths) -> None:
        super().__init__(context)
        self._store = store
        self._checkpoints = paths.checkpoints
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def receive(self, message: Any) -> Any:
        match message:
            case VerifyAudit(against):
                return self._start(against)
        return None

    def _start(self, against: tuple[str, ...]) -> Future[Report]:
        state: AuditState = self.context.ask("audit_writer", DescribeAudit(), deadline=_STATE_S)
        if not self._slots.acquire(blocking=False):
            raise Unavailable("the audit log is being verified already", remedy="Try again when that is done.")
        answer: Future[Report] = Future()

        def walk() -> None:
            try:
                report = run(self._store.location, state.public_key, self._checkpoints, against, timeout_s=_LONGEST_S)
                silent = silence(state.checkpoint_at, state.interval_s, self.context.clock.now())
                if silent and not state.findings:
                    report.findings.append(Finding(silent))
                known = {finding.why for finding in report.findings}
                report.findings += [Finding(why) for why in state.findings if why not in known]
                with suppress(InvalidStateError):  # nobody waits any more
                    answer.set_result(report)
            except BaseException as error:
                with suppress(InvalidStateError):
                    answer.set_exception(error)
            finally:
                self._slots.release()

        threading.Thread(target=walk, name="audit_verifier walk", daemon=True).start()
        return answer
