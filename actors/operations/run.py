"""``operation:<id>``: runs one operation to its end. It holds the deadlines; its worker's thread does what blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.operations.journal import Journal
from actors.operations.worker import Cancelled, CutOffError, Worker
from actors.supervision import Actor, Backoff, ChildSpec, Context, DynamicSupervisor, Restart
from coxswain.errors import CoxswainError, DeadlineExceeded, Refused
from coxswain.messages.operations import RunEnded
from coxswain.operations.kinds import Kind
from coxswain.operations.model import Direction, Operation, OperationState, Secrets, StepState
from coxswain.operations.moves import on_claim
from coxswain.store import Store
from coxswain.store import operations as rows

__all__ = ["CancelRun", "OperationRun", "OperationRuns", "run_name", "run_spec"]

_STUCK_S = 10.0
"""A step whose connections were closed under it ends within this, or its thread is left to itself."""

_BACKOFF = Backoff(min_s=0.1, max_s=15.0, factor=2.0, reset_after_s=10.0)


def run_name(operation_id: str) -> str:
    return f"operation:{operation_id}"


def run_spec(operation_id: str, *, store: Store, kinds: Mapping[str, Kind], secrets: Secrets) -> ChildSpec:
    """For ``operation_runs``. Ends by itself; a failure is followed by another incarnation, which recovers it."""
    return ChildSpec(
        id=run_name(operation_id),
        actor=OperationRun,
        kwargs={"operation_id": operation_id, "store": store, "kinds": kinds, "secrets": secrets},
        restart=Restart.TRANSIENT,
        shutdown_s=5.0,
        hang_s=15.0,
        backoff=_BACKOFF,
    )


class OperationRuns(DynamicSupervisor):
    """The supervisor of all ``operation:<id>``; what it runs is decided by ``operations``."""


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Told by ``operations``: an operator wants it taken back. That is in the journal already."""


@dataclass(frozen=True, slots=True)
class _Began:
    serial: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Due:
    serial: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Stuck:
    serial: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _WorkEnded:
    failure: BaseException | None


class OperationRun(Actor):
    """See the module."""

    def __init__(
        self, context: Context, *, operation_id: str, store: Store, kinds: Mapping[str, Kind], secrets: Secrets
    ) -> None:
        super().__init__(context)
        self._id = operation_id
        self._store = store
        self._kinds = kinds
        self._secrets = secrets
        self._worker: Worker | None = None
        self._run = 0

    def started(self) -> None:
        with self._store.write() as tx:
            operation = rows.claim_run(tx, self._id)
        self._run = 0 if operation is None else operation.run
        if operation is None or operation.state not in (OperationState.QUEUED, OperationState.RUNNING):
            self._leave()
            return
        kind = self._kinds.get(operation.kind)
        journal = self._journal(operation, kind)
        problem = _misfit(operation, kind)
        if kind is None or problem is not None:
            journal.ends(OperationState.FAILED, problem)
            self._leave()
            return
        claim = on_claim(operation, kind)
        if claim.note:
            self.context.log.warning("%s %s (%s): %s", operation.kind, self._id, claim.how, claim.note)
        if claim.give_up:
            self._give_up(journal, CoxswainError(claim.note))
            return
        worker = Worker(
            journal,
            kind,
            claim,
            context=self.context,
            secrets=self._secrets,
            began=lambda serial, deadline_s: self.context.tell_self_surely(_Began(serial, deadline_s)),
            ended=lambda failure: self.context.tell_self_surely(_WorkEnded(failure)),
        )
        self._worker = worker
        self.context.on_void(lambda: worker.interrupt(CutOffError()))
        worker.start()

    def stopping(self) -> None:
        worker = self._worker
        if worker is not None and worker.thread.is_alive():
            worker.interrupt(CutOffError())
            worker.thread.join(3.0)

    def receive(self, message: Any) -> Any:
        worker = self._worker
        if worker is None:
            return None
        match message:
            case CancelRun():
                if worker.journal.operation.direction is Direction.FORWARD:
                    worker.interrupt(Cancelled(f"operation {self._id} was cancelled"))
            case _Began(serial, deadline_s):
                self.context.after(deadline_s, _Due(serial, deadline_s))
            case _Due(serial, deadline_s):
                if serial == worker.serial:
                    worker.interrupt(DeadlineExceeded(f"the step took longer than {deadline_s:g} s"), serial)
                    self.context.after(_STUCK_S, _Stuck(serial, deadline_s))
            case _Stuck(serial, deadline_s):
                if serial == worker.serial and worker.thread.is_alive():
                    self._abandon(worker, deadline_s)
            case _WorkEnded(failure):
                if failure is not None:
                    raise RuntimeError(f"the work of {self._id} fell") from failure
                self._leave()
        return None

    # -- inside

    def _abandon(self, worker: Worker, deadline_s: float) -> None:
        """Its thread does not even notice that its connections are gone. From here on it can write nothing."""
        self._worker = None
        with self._store.write() as tx:
            operation = rows.claim_run(tx, self._id)
        self.context.log.error("the thread of %s is stuck; it is left to itself", self._id)
        if operation is not None:
            self._run = operation.run
            error = DeadlineExceeded(f"the step took longer than {deadline_s:g} s, and did not stop when it was told to")
            self._give_up(self._journal(operation, worker.kind), error)

    def _give_up(self, journal: Journal, error: CoxswainError) -> None:
        at = journal.operation.at_step
        if at is not None and at.state is not StepState.PENDING:
            journal.step_ends(at.position, StepState.FAILED, error)
        journal.ends(OperationState.FAILED, error)
        self._leave()

    def _journal(self, operation: Operation, kind: Kind | None) -> Journal:
        context = self.context
        return Journal(operation, kind, store=self._store, clock=context.clock, tell=context.tell, secrets=self._secrets)

    def _leave(self) -> None:
        self._secrets.forget()
        self.context.tell("operations", RunEnded(self._id, self._run))
        self.stop()


def _misfit(operation: Operation, kind: Kind | None) -> CoxswainError | None:
    """Journals outlive releases."""
    remedy = "Run the release that began it, or cancel it there and start it anew."
    if kind is None:
        return Refused(f"this release knows no operation of the kind {operation.kind!r}", remedy=remedy)
    names = [step.name for step in kind.steps(operation.params)]
    if names != [step.name for step in operation.steps]:
        return Refused(f"this release does {operation.kind} in other steps than the one that began it", remedy=remedy)
    return None
