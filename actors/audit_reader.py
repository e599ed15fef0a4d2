"""``audit_reader``: answers questions about the audit log, so that ``audit_writer`` never waits for a long answer.

It lists, exports and proves; and it walks the whole log, once a day and when somebody asks, in a process of its own.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from actors.supervision import Actor, Context
from coxswain.audit.checkpoint import Checkpoint, silence
from coxswain.audit.export import consistency, footer_lines, header_line, inclusion, record_lines
from coxswain.audit.note import Verifier
from coxswain.audit.query import list_entries
from coxswain.audit.settings import AuditPaths
from coxswain.audit.verify import Finding, Report
from coxswain.audit.verify_process import run
from coxswain.errors import CoxswainError, Unavailable
from coxswain.messages.audit import (
    AuditState,
    DescribeAudit,
    ExportAudit,
    ExportPage,
    GetAuditHead,
    ListAudit,
    ProveConsistency,
    ProveInclusion,
    SignNow,
    VerifyAudit,
    WalkDone,
)
from coxswain.store import Store

__all__ = ["AuditReader"]

_STATE_S = 10.0
_LONGEST_S = 1_800.0
_AT_ONCE = 2
_MOST = 1_001
_MOST_EXPORTED = 10_000
_FIRST_S = 600.0
_EVERY_S = 86_400.0


class _Walk:
    """To itself."""


class AuditReader(Actor):
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
            case ListAudit(limit, before, chosen):
                with suppress(Unavailable):  # what is in the log can be read without it
                    self.context.ask("audit_writer", GetAuditHead(), deadline=_STATE_S)
                with self._store.read() as tx:
                    return list_entries(tx, limit=max(0, min(limit, _MOST)), before=before, chosen=chosen)
            case ExportAudit(first, limit):
                return self._export(first, limit)
            case ProveInclusion() | ProveConsistency():
                return self._prove(message)
            case VerifyAudit(against):
                return self._start(against)
            case _Walk():
                self.context.after(_EVERY_S, message)
                try:
                    self._start(())
                except CoxswainError as error:
                    self.context.log.warning("the audit log was not verified today: %s", error)
        return None

    def _export(self, first: int, limit: int) -> ExportPage:
        """A log that is not fit to be signed is exported all the same: it is evidence."""
        state = self._state()
        signed = None if state.unsigned else self._sign()
        size = signed.size if signed else state.size
        last = min(size, first + max(1, min(limit, _MOST_EXPORTED)) - 1)
        lines = [header_line(Verifier.parse(state.public_key), state.findings)] if first == 1 else []
        with self._store.read() as tx:
            lines += record_lines(tx, first, last)
            if last < size:
                return ExportPage(tuple(lines), last + 1)
            return ExportPage((*lines, *footer_lines(tx, signed)), None)

    def _prove(self, message: ProveInclusion | ProveConsistency) -> dict[str, Any]:
        signed, verifier = self._sign(), Verifier.parse(self._state().public_key)
        with self._store.read() as tx:
            match message:
                case ProveInclusion(seq):
                    return inclusion(tx, seq, signed, verifier)
                case ProveConsistency(old):
                    return consistency(tx, old, signed, verifier)

    def _state(self) -> AuditState:
        state: AuditState = self.context.ask("audit_writer", DescribeAudit(), deadline=_STATE_S)
        return state

    def _sign(self) -> Checkpoint:
        signed: Checkpoint = self.context.ask("audit_writer", SignNow(), deadline=_STATE_S)
        return signed

    # -- walking

    def _start(self, against: tuple[str, ...]) -> Future[Report]:
        state = self._state()
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

        threading.Thread(target=walk, name="audit_reader walk", daemon=True).start()
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
