"""The journal of one run of one operation: every change of it is durable before anything else happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from coxswain.audit import record
from coxswain.clock import Clock
from coxswain.errors import CoxswainError, StoreUnavailable
from coxswain.messages.audit import Caller, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.operations.kinds import Kind
from coxswain.operations.model import TRIED_AGAIN, Direction, Operation, OperationState, Secrets, StepRecord, StepState
from coxswain.store import Durability, Store
from coxswain.store import operations as rows
from coxswain.words import plain

__all__ = ["Journal", "JournalDownError", "caller_of", "noted"]

_TAIL = 8_000
"""Characters of output that are kept of each step."""

_LONGEST_ERROR = 2_000
_MOST_NOTES = 30
_BETWEEN_WRITES_S = 0.5


class JournalDownError(Exception):
    """The store does not take the journal. No ``CoxswainError``: no step may handle it; whoever runs it starts again."""


def caller_of(operation: Operation) -> Caller:
    """Who asked for it."""
    return Caller(operation.actor, operation.actor_kind, operation.source_ip)


def noted(operation: Operation, note: str) -> tuple[str, ...]:
    """Its notes and one more; the oldest go first."""
    return (*operation.notes, note)[-_MOST_NOTES:]


class Journal:
    """See the module. For one thread at a time. Raises ``JournalDownError``; ``Superseded``: another run took over."""

    def __init__(
        self, operation: Operation, kind: Kind | None, *, store: Store, clock: Clock, tell: Callable[[str, Any], object],
        secrets: Secrets,
    ) -> None:  # fmt: skip
        self.operation = operation
        self._ending = operation.ending
        self._kind = kind
        self._store = store
        self._clock = clock
        self._tell = tell
        self._secrets = secrets
        self._written_at = 0.0

    def step(self, position: int) -> StepRecord:
        return self.operation.steps[position]

    # -- the operation

    def begins(self, direction: Direction, how: str, note: str) -> None:
        notes = noted(self.operation, note) if note else self.operation.notes
        started = self.operation.started_at or self._clock.now()
        self._save(
            state=OperationState.RUNNING, direction=direction, notes=notes, started_at=started, needs=(), finished_at=0.0
        )
        self._publish(how, {"note": note} if note else {})

    def turns_back(self, note: str) -> None:
        self._save(direction=Direction.BACK, notes=noted(self.operation, note))
        self._publish("turned_back", {"note": note})

    def blames(self, error: CoxswainError) -> None:
        """What it is taken back for; shown with its end."""
        sentence = self._told(str(error))[:_LONGEST_ERROR]
        self._save(error=sentence, error_type=_class_of(error), remedy=error.remedy)

    def keeps(self, values: Mapping[str, Any]) -> None:
        data = {**self.operation.data, **values}
        target = ("", "") if self._kind is None else self._kind.target(self.operation.params, data)
        self._save(data=data, target_type=target[0], target_id=target[1])

    def waits(self, position: int, name: str) -> bool:
        """For a secret. Nothing of that step has happened. False: it was cancelled, and has to be taken back instead."""
        self._save_step(position, Durability.BATCHED, state=StepState.PENDING)
        notes = noted(self.operation, f"waits for {name}, which was never stored")
        changed = dataclasses.replace(self.operation, state=OperationState.WAITING, needs=(name,), notes=notes)
        with self._writing() as tx:
            if rows.is_cancelled(tx, changed.id):
                return False
            saved = rows.save_operation(tx, changed, now=self._clock.now())
        self._take(saved)
        self._publish("waiting", {"needs": [name]})
        return True

    def ends(
        self, state: OperationState, error: CoxswainError | None = None, note: str = "", *, unless_cancelled: bool = False
    ) -> bool:
        """With its audit record, in one transaction; but that what is tried again by itself still fails is no news, unless
        an operator cancelled it meanwhile.

        False: ``unless_cancelled``, and it was while the step that failed was under way. Nothing is written; it has to be
        taken back.
        """
        operation = self.operation
        fails_on = state is OperationState.FAILED and operation.tried_again > 0
        if fails_on and operation.notes[-1:] == (note,):
            note = ""
        sentence = self._told(str(error))[:_LONGEST_ERROR] if error is not None else operation.error
        if state is OperationState.DONE:
            sentence = ""
        changed = dataclasses.replace(
            operation,
            state=state,
            error=sentence,
            error_type=_class_of(error) if error is not None else operation.error_type if sentence else "",
            remedy=error.remedy if error is not None else operation.remedy if sentence else "",
            finished_at=self._clock.now(),
            notes=noted(operation, note) if note else operation.notes,
        )
        with self._writing() as tx:
            if operation.direction is Direction.FORWARD and rows.is_cancelled(tx, operation.id):
                if unless_cancelled:
                    return False
                if state is OperationState.DONE:
                    note = "cancelled too late: all of it was done by then"
                    changed = dataclasses.replace(changed, notes=noted(changed, note))
            saved = rows.save_operation(tx, changed, now=self._clock.now())
            target = (changed.target_type or "operation", changed.target_id or changed.id)
            detail: dict[str, Any] = {"operation": changed.id, "state": state.value}
            if changed.tried_again:
                detail[TRIED_AGAIN] = changed.tried_again
            failed = sentence or state.value if state is not OperationState.DONE else ""
            action = (self._kind and self._kind.action) or changed.kind
            if not fails_on or saved.ending is not self._ending:
                record(tx, caller_of(changed), action, target, detail, now=self._clock.now(), error=failed)
        self._take(saved)
        self._tell("audit_writer", OutboxGrew())
        self._publish(state.value, {"error": sentence} if sentence else {})
        return True

    # -- its steps

    def step_begins(self, position: int, state: StepState) -> None:
        """Before anything of it happens: with this its undo is registered."""
        before = self.step(position)
        turned = state is StepState.UNDOING and before.state is StepState.RUNNING  # what it was interrupted at is no more
        attempts = 1 if turned else before.attempts + 1
        self._save_step(
            position,
            Durability.ACKNOWLEDGED,
            state=state,
            attempts=attempts,
            error="",
            started_at=self._clock.now(),
            finished_at=0.0,
        )

    def step_ends(self, position: int, state: StepState, error: CoxswainError | None = None) -> None:
        sentence = "" if error is None else self._told(str(error))[:_LONGEST_ERROR]
        attempts = 0 if error is None else self.step(position).attempts  # what is counted is interruptions in a row
        self._save_step(
            position, Durability.ACKNOWLEDGED, state=state, error=sentence, attempts=attempts, finished_at=self._clock.now()
        )

    def step_stays(self, position: int) -> None:
        """There is nothing of it to take back. When it was over is as it was; one that was cut off is over now."""
        ended = self.step(position).finished_at or self._clock.now()
        self._save_step(position, Durability.ACKNOWLEDGED, state=StepState.KEPT, error="", attempts=0, finished_at=ended)

    def remembers(self, position: int, values: Mapping[str, Any]) -> None:
        self._save_step(position, Durability.ACKNOWLEDGED, data={**self.step(position).data, **values})

    def says(self, position: int, line: str) -> None:
        line = self._told(line)
        step = self.step(position)
        output = f"{step.output}{line}\n"
        if len(output) > _TAIL:
            output = "…\n" + output[-_TAIL:].partition("\n")[2]
        self._put(dataclasses.replace(step, output=output))
        if self._clock.monotonic() - self._written_at >= _BETWEEN_WRITES_S:
            self._save_step(position, Durability.BATCHED)
        self._publish("output", {"step": step.name, "line": line[:500]})

    # -- inside

    def _save(self, **changes: Any) -> None:
        with self._writing() as tx:
            saved = rows.save_operation(tx, dataclasses.replace(self.operation, **changes), now=self._clock.now())
        self._take(saved)

    def _take(self, saved: Operation) -> None:
        """As it is in the store, but for output that is not written yet."""
        self.operation = dataclasses.replace(saved, steps=self.operation.steps)

    def _save_step(self, position: int, durability: Durability, **changes: Any) -> None:
        step = dataclasses.replace(self.step(position), **changes)
        with self._writing(durability) as tx:
            rows.save_step(tx, self.operation, step)
        self._written_at = self._clock.monotonic()
        told = self.step(position).state is not step.state
        self._put(step)
        if told:
            data = {"step": step.name, "title": step.title, "step_state": step.state.value}
            self._publish("step", data | ({"error": step.error} if step.error else {}))

    def _told(self, text: str) -> str:
        """What may come from a host: without secrets, and without what a store does not take, as Postgres no NUL."""
        return plain(self._secrets.redact(text), "\t\n")

    def _put(self, step: StepRecord) -> None:
        steps = list(self.operation.steps)
        steps[step.position] = step
        self.operation = dataclasses.replace(self.operation, steps=tuple(steps))

    def _publish(self, what: str, data: dict[str, Any]) -> None:
        o = self.operation
        about = {
            "operation_id": o.id,
            "kind": o.kind,
            "state": o.state.value,
            "target_type": o.target_type,
            "target_id": o.target_id,
        }
        self._tell("event_hub", Publish(f"operation.{what}", self._clock.now(), about | data))

    def _writing(self, durability: Durability = Durability.ACKNOWLEDGED) -> Any:
        return _Writing(self._store, durability)


def _class_of(error: CoxswainError) -> str:
    """Its nearest class in ``coxswain.errors``: doors know those, and what they mean."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == CoxswainError.__module__)


class _Writing:
    """A transaction whose failure to be made is a ``JournalDownError``."""

    def __init__(self, store: Store, durability: Durability) -> None:
        self._inner = store.write(durability)

    def __enter__(self) -> Any:
        try:
            return self._inner.__enter__()
        except StoreUnavailable as error:
            raise JournalDownError(str(error)) from error

    def __exit__(self, *exc: object) -> bool | None:
        try:
            return self._inner.__exit__(*exc)  # type: ignore[arg-type]  # passed on as they came
        except StoreUnavailable as error:
            raise JournalDownError(str(error)) from error
