"""``operations``: which operations there are, whose turn it is, and what no two of them may touch at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from actors.operations.journal import caller_of, noted
from actors.operations.others import Others
from actors.operations.run import CancelRun, run_name, run_spec
from actors.supervision import Actor, Context, Pending, StartChild
from coxswain.audit import record
from coxswain.errors import (
    AlreadyExists,
    Conflict,
    CoxswainError,
    InvalidInput,
    NotFound,
    StaleVersion,
    StoreUnavailable,
    Unavailable,
)
from coxswain.ids import new_id
from coxswain.messages import operations as m
from coxswain.messages.audit import Caller, Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.messages.versions import Seen
from coxswain.operations.kinds import Kind
from coxswain.operations.model import (
    FINAL,
    TRIED_AGAIN,
    Direction,
    Operation,
    OperationState,
    Secrets,
    StepRecord,
    StepState,
)
from coxswain.operations.moves import retry_direction
from coxswain.store import Store, Tx
from coxswain.store import operations as rows
from coxswain.store.versions import expect

__all__ = ["Operations"]

_SWEEP_S = 5.0
"""Words that an operation ended may be lost, with the mailbox of an actor that fell."""

_AGAIN_S = 0.25
_ASK_S = 5.0
_KEEP_S = 90 * 86_400.0
_KEEP_AT_LEAST = 500
_OPEN = (OperationState.QUEUED, OperationState.RUNNING, OperationState.WAITING, OperationState.FAILED)


class _Pump:
    """To itself: somebody may have his turn."""


class _Sweep:
    """To itself: look for those that ended without a word, and for what is old."""


class Operations(Actor):
    """See the module. Everything it holds can be read from the store again, but the secrets."""

    def __init__(self, context: Context, *, store: Store, kinds: Mapping[str, Kind], at_once: int = 32) -> None:
        super().__init__(context)
        self._store = store
        self._kinds = kinds
        self._others = Others(store, kinds)
        self._at_once = at_once
        self._queue: dict[str, Operation] = {}
        self._running: dict[str, Operation] = {}
        self._secrets: dict[str, Secrets] = {}
        self._again = Pending(context)

    def started(self) -> None:
        with self._store.read() as tx:
            self._queue = {operation.id: operation for operation in rows.unfinished(tx)}
        self.context.tell_self_surely(_Pump())
        self.context.after(_SWEEP_S, _Sweep())

    def receive(self, message: Any) -> Any:
        match message:
            case m.StartOperation():
                return self._start(message)
            case m.OfferOperation(start):
                self._offered(start)
            case m.OfferRetry():
                self._retry_offered(message)
            case m.GetOperation(operation_id):
                return self._told([self._get(operation_id)])[0]
            case m.ListOperations():
                return self._list(message)
            case m.RetryOperation():
                return self._retry(message)
            case m.CancelOperation():
                return self._cancel(message)
            case m.RunEnded(operation_id, run):
                running = self._running.get(operation_id)
                if running is not None and run > running.run:  # not of a run from before a retry
                    self._release(operation_id)
            case _Pump():
                self._pump()
            case _Sweep():
                self._sweep()
                self.context.after(_SWEEP_S, message)
        return None

    # -- changes

    def _start(self, message: m.StartOperation) -> Committed[Operation]:
        kind = self._kinds.get(message.kind)
        if kind is None:
            raise NotFound(f"kind: there are no operations of the kind {message.kind[:80]!r}")
        params = kind.check(message.params)
        target = kind.target(params, {})
        if message.parent:
            known = self._child(message.parent, message.kind, target[1])
            if known is not None:
                return Committed(known, 0)
        self._check_free(kind, params)
        now = self.context.clock.now()
        operation = Operation(
            id=new_id("op"),
            kind=kind.name,
            target_type=target[0],
            target_id=target[1],
            params=params,
            actor=message.caller.actor,
            actor_kind=message.caller.kind,
            source_ip=message.caller.source_ip,
            parent=message.parent,
            created_at=now,
            updated_at=now,
            steps=tuple(StepRecord(i, step.name, step.title) for i, step in enumerate(kind.steps(params))),
        )
        with self._store.write() as tx:
            expect(tx, message.seen)
            rows.insert_operation(tx, operation)
            outbox_id = self._audit(tx, message.caller, "operation.start", operation)
        self._secrets[operation.id] = message.secrets
        return self._admitted(operation, outbox_id)

    def _offered(self, message: m.StartOperation) -> None:
        try:
            self._start(message)
        except CoxswainError as error:
            self.context.log.info("%s by %s does not begin now: %s", message.kind, message.caller.actor, error)

    def _retry_offered(self, message: m.OfferRetry) -> None:
        try:
            with self._store.read() as tx:
                failed = rows.list_operations(
                    tx, states=(OperationState.FAILED,), kind=message.kind, target_id=message.target_id, limit=1
                )
            for operation in failed:
                again = m.RetryOperation(message.caller, operation.id, operation.version)
                self._retry(again, tries=operation.tried_again + 1)
        except CoxswainError as error:
            self.context.log.info("%s of %s does not go on now: %s", message.kind, message.target_id, error)

    def _retry(self, message: m.RetryOperation, *, tries: int = 0) -> Committed[Operation]:
        """``tries``: how often that was by itself, with this one; 0: an operator wants it. Of many that is recorded once."""
        operation = self._checked(message.id, message.version)
        if operation.id in self._running and operation.state in FINAL:
            self._release(operation.id)
        direction = retry_direction(operation)
        kind = self._kinds.get(operation.kind)
        if kind is None:
            raise NotFound(f"kind: this release knows no operation of the kind {operation.kind!r}")
        self._check_free(kind, operation.params)
        overtaken = self._others.overtaker(operation)
        if overtaken is not None:
            raise Conflict(
                f"operation {operation.id}: {overtaken.id} ({overtaken.kind}) was done on the same since it failed",
                remedy="Begin anew if that is what you want. Cancelled, this one is over, and nothing is taken back.",
            )
        anew = operation.state in (OperationState.UNDONE, OperationState.CANCELLED)
        ending = operation.ending if direction is Direction.BACK else OperationState.UNDONE
        note = f"retried by {message.caller.actor}"
        changed = dataclasses.replace(
            operation,
            state=OperationState.QUEUED,
            direction=direction,
            data={} if anew else _counted(operation.data, tries),
            needs=(),
            error="",
            error_type="",
            remedy="",
            finished_at=0.0,
            notes=noted(operation, note) if tries <= 1 else operation.notes,
        )
        with self._store.write() as tx:
            expect(tx, self._seen(operation, message.version))
            changed = self._rewrite(tx, changed, ending=ending)
            for step in changed.steps:
                if anew or step.attempts:
                    fresh = StepRecord(step.position, step.name, step.title)
                    rows.save_step(tx, changed, fresh if anew else dataclasses.replace(step, attempts=0))
            outbox_id = self._audit(tx, message.caller, "operation.retry", changed) if tries <= 1 else 0
            changed = rows.get_operation(tx, changed.id) or changed
        self._secrets[changed.id] = message.secrets
        return self._admitted(changed, outbox_id)

    def _cancel(self, message: m.CancelOperation) -> Committed[Operation]:
        operation = self._checked(message.id, message.version)
        if operation.state in (OperationState.DONE, OperationState.UNDONE, OperationState.CANCELLED):
            raise Conflict(f"operation {operation.id} is {operation.state}; there is nothing to cancel")
        if operation.id in self._running and operation.state not in (OperationState.FAILED, OperationState.WAITING):
            with self._store.write() as tx:
                expect(tx, self._seen(operation, message.version))
                operation = rows.get_operation(tx, operation.id) or operation
                goes_on = operation.state not in (*FINAL, OperationState.WAITING)
                if goes_on:
                    rows.set_ending(tx, operation.id, OperationState.CANCELLED)
                    outbox_id = self._audit(tx, message.caller, "operation.cancel", operation)
                    operation = rows.get_operation(tx, operation.id) or operation
            if goes_on:
                self.context.tell("audit_writer", OutboxGrew())
                self.context.tell(run_name(operation.id), CancelRun())
                return Committed(operation, outbox_id)
            return self._cancel(message)  # it had just ended, or waits
        self._release(operation.id)
        overtaken = self._others.overtaker(operation)
        kept = f"; nothing is taken back: {overtaken.id} ({overtaken.kind}) was done on the same since" if overtaken else ""
        note = noted(operation, f"cancelled by {message.caller.actor}{kept}")
        nothing_done = overtaken is not None or all(step.state is StepState.PENDING for step in operation.steps)
        state = OperationState.CANCELLED if nothing_done else OperationState.QUEUED
        kind = self._kinds.get(operation.kind)
        if kind is not None and state is OperationState.QUEUED:
            self._check_free(kind, operation.params, but=operation.id)
            self._others.check_last(kind, operation)
        over = self.context.clock.now() if nothing_done else 0.0
        changed = dataclasses.replace(
            operation,
            state=state,
            direction=Direction.BACK,
            data=_counted(operation.data, 0),
            needs=(),
            notes=note,
            finished_at=over,
        )
        with self._store.write() as tx:
            expect(tx, self._seen(operation, message.version))
            changed = self._rewrite(tx, changed, ending=OperationState.CANCELLED)
            outbox_id = self._audit(tx, message.caller, "operation.cancel", changed)
        if nothing_done:
            self._queue.pop(operation.id, None)
            self._secrets.pop(operation.id, Secrets()).forget()
            self.context.tell("audit_writer", OutboxGrew())
            self._publish("cancelled", changed)
            return Committed(changed, outbox_id)
        return self._admitted(changed, outbox_id)

    def _rewrite(self, tx: Tx, operation: Operation, *, ending: OperationState) -> Operation:
        """Of one that nobody runs; a thread that was left to itself is shut out."""
        claimed = rows.claim_run(tx, operation.id)
        if claimed is None:
            raise NotFound(f"operation: {operation.id} is gone")
        rows.set_ending(tx, operation.id, ending)
        return rows.save_operation(tx, dataclasses.replace(operation, run=claimed.run), now=self.context.clock.now())

    def _admitted(self, operation: Operation, outbox_id: int) -> Committed[Operation]:
        self._queue[operation.id] = operation
        self.context.tell("audit_writer", OutboxGrew())
        self._publish("queued", operation)
        self._pump()
        return Committed(operation, outbox_id)

    # -- whose turn it is

    def _pump(self) -> None:
        self._again.cancel()
        again = False
        for operation in list(self._queue.values()):
            kind = self._kinds.get(operation.kind)
            heavy = kind is None or not kind.light
            if heavy and sum(self._is_heavy(o) for o in self._running.values()) >= self._at_once:
                continue
            secrets = self._secrets.setdefault(operation.id, Secrets())
            spec = run_spec(operation.id, store=self._store, kinds=self._kinds, secrets=secrets)
            try:
                self.context.ask("operation_runs", StartChild(spec), deadline=_ASK_S)
            except AlreadyExists:
                if operation.state is not OperationState.RUNNING:  # its last run is just leaving
                    again = True
                    continue
            except Unavailable as error:
                self.context.log.warning("operation %s has to wait: %s", operation.id, error)
                again = True
                break
            del self._queue[operation.id]
            self._running[operation.id] = operation
        if again:
            self._again.after(_AGAIN_S, _Pump())

    def _release(self, operation_id: str) -> None:
        if self._running.pop(operation_id, None) is not None:
            self._secrets.pop(operation_id, None)
            if self._queue:
                self.context.tell_self_surely(_Pump())

    def _sweep(self) -> None:
        now = self.context.clock.now()
        try:
            with self._store.read() as tx:
                going = {operation.id for operation in rows.unfinished(tx)}
            with self._store.write() as tx:
                rows.delete_finished(tx, before=now - _KEEP_S, keep=_KEEP_AT_LEAST)
        except StoreUnavailable as error:
            self.context.log.warning("operations: %s", error)
            return
        for operation_id in [i for i in self._running if i not in going]:
            self._release(operation_id)
        if self._queue:
            self._pump()

    def _is_over(self, operation_id: str) -> bool:
        """By the journal: whoever saw there that it is done may begin the next one, though its run is not gone yet."""
        with self._store.read() as tx:
            found = rows.get_operation(tx, operation_id)
        return found is None or found.state in FINAL

    def _check_free(self, kind: Kind, params: Mapping[str, Any], *, but: str = "") -> None:
        wanted = set(kind.locks(params))
        for other in [*self._running.values(), *self._queue.values()]:
            its_kind = self._kinds.get(other.kind)
            taken = wanted.intersection(its_kind.locks(other.params)) if its_kind is not None else set()
            if taken and other.id != but and not self._is_over(other.id):
                raise Conflict(
                    f"operation {other.id} ({other.kind}) works on {min(taken)} just now",
                    remedy=f"Wait for it: cox operations show {other.id} --follow, "
                    f"or stop it: cox operations cancel {other.id}",
                )

    def _is_heavy(self, operation: Operation) -> bool:
        kind = self._kinds.get(operation.kind)
        return kind is None or not kind.light

    # -- questions

    def _get(self, operation_id: str) -> Operation:
        with self._store.read() as tx:
            found = rows.get_operation(tx, operation_id)
        if found is None:
            raise NotFound(f"operation: there is none with the id {operation_id[:80]!r}", remedy="See: cox operations list")
        return found

    def _checked(self, operation_id: str, version: int | None) -> Operation:
        found = self._get(operation_id)
        if version is not None and version != found.version:
            raise StaleVersion(f"operation {found.id}: it has moved on since version {version}", current=found.version)
        return found

    @staticmethod
    def _seen(operation: Operation, version: int | None) -> Seen | None:
        """Whoever runs it may have moved on since it was read here: compared once more, in the transaction."""
        return None if version is None else Seen("operation", operation.id, version, operation.id)

    def _list(self, message: m.ListOperations) -> m.OperationsPage:
        if not 1 <= message.limit <= 1_000:
            raise InvalidInput(f"limit: {message.limit} is not within 1 to 1000")
        states = _OPEN if message.open_only else () if message.state is None else (message.state,)
        with self._store.read() as tx:
            found = rows.list_operations(
                tx,
                states=states,
                kind=message.kind,
                target_id=message.target_id,
                parent=message.parent,
                before=message.before,
                limit=message.limit + 1,
            )
        if message.kind and not found and message.kind not in self._kinds:  # the journal may have some of an earlier version
            raise InvalidInput(f"kind: {message.kind[:40]!r} is none of {', '.join(sorted(self._kinds))}")
        return m.OperationsPage(self._told(found[: message.limit]), len(found) > message.limit)

    def _told(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        """With what overtook them, for those who look at them."""
        by = self._others.overtakers(operations)
        return tuple(dataclasses.replace(o, overtaken_by=by[o.id].id) if o.id in by else o for o in operations)

    def _child(self, parent: str, kind: str, target_id: str) -> Operation | None:
        with self._store.read() as tx:
            found = rows.list_operations(tx, parent=parent, kind=kind, target_id=target_id, limit=1)
        return found[0] if found else None

    # -- inside

    def _audit(self, tx: Tx, caller: Caller, action: str, operation: Operation) -> int:
        detail = {"kind": operation.kind, "target": operation.target_id or operation.target_type}
        return record(tx, caller, action, ("operation", operation.id), detail, now=self.context.clock.now())

    def _publish(self, what: str, operation: Operation) -> None:
        data = {
            "operation_id": operation.id,
            "kind": operation.kind,
            "state": operation.state.value,
            "target_type": operation.target_type,
            "target_id": operation.target_id,
            "actor": caller_of(operation).actor,
        }
        self.context.tell("event_hub", Publish(f"operation.{what}", self.context.clock.now(), data))


def _counted(data: Mapping[str, Any], tries: int) -> dict[str, Any]:
    """The data of an operation that is about to go on (``Operation.tried_again``)."""
    others = {name: value for name, value in data.items() if name != TRIED_AGAIN}
    return others | {TRIED_AGAIN: tries} if tries else others
