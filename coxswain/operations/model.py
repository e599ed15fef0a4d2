"""What the journal keeps of an operation and of each of its steps. Frozen values; times are epoch seconds, 0: not yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["FINAL", "TRIED_AGAIN", "Direction", "Operation", "OperationState", "Secrets", "StepRecord", "StepState"]


class OperationState(StrEnum):
    """Where an operation stands.

    ``queued``: waits for its turn. ``running``: a step is being done, or taken back. ``waiting``: it needs a secret again
    that was never stored (``Operation.needs``). ``done``. ``failed``: stopped at a step, may be retried or cancelled.
    ``undone``: it failed or was interrupted, and all that it had changed was taken back. ``cancelled``: the same, because an
    operator said so.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    CANCELLED = "cancelled"


FINAL = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.UNDONE, OperationState.CANCELLED})
"""Nothing more happens by itself. ``waiting`` is not among them, and holds no lock either."""


TRIED_AGAIN = "tried_again"
"""Among the data of an operation (``Operation.tried_again``)."""


class StepState(StrEnum):
    """Where one step stands. ``kept``: it was passed on the way back and has nothing that could be taken back."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    KEPT = "kept"


class Direction(StrEnum):
    """Which way it goes: doing what was asked, or taking it back."""

    FORWARD = "forward"
    BACK = "back"


class Secrets:
    """What an operation needs and the store must never see, such as a one-time password. In memory only, never printed."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = {name: value for name, value in (values or {}).items() if value}

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._values))})"

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def redact(self, text: str) -> str:
        """``text`` without any of them, should one ever get into an error or into what a host prints."""
        for value in self._values.values():
            text = text.replace(value, "***")
        return text

    def forget(self) -> None:
        """When the operation is over."""
        self._values.clear()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step in the journal.

    Attributes:
        title: what an operator reads.
        attempts: how often it was begun.
        data: what the step has to know to do itself again, or to take itself back. Written before it changes anything.
        output: the last lines that it had to say.
    """

    position: int
    name: str
    title: str
    state: StepState = StepState.PENDING
    attempts: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    output: str = ""
    error: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation in the journal.

    Attributes:
        id: ``op_…``.
        target_type: with ``target_id``, what it is about, for lists and the audit log.
        params: what was asked for. Holds no secret.
        data: what its steps found out or made, e.g. ``node_id``.
        run: counts the incarnations that worked on it; an older one can write nothing any more.
        ending: the state that it takes when it was taken back; ``cancelled``: an operator wants that.
        error_type: name of the error's class, for doors that answer when it is over.
        needs: names of secrets that it waits for.
        notes: what happened to it beside its steps: restarts of the controller, retries, cancellations.
        parent: the operation that started it, e.g. a rollout; empty: none.
        overtaken_by: of one that failed: the id of another one that was done on the same since. Not in the
            journal: ``operations`` tells it to whoever asks.
    """

    id: str
    kind: str
    target_type: str = ""
    target_id: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    state: OperationState = OperationState.QUEUED
    direction: Direction = Direction.FORWARD
    ending: OperationState = OperationState.UNDONE
    error: str = ""
    error_type: str = ""
    remedy: str = ""
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    actor: str = ""
    actor_kind: str = ""
    source_ip: str = ""
    parent: str = ""
    run: int = 0
    version: int = 1
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    updated_at: float = 0.0
    steps: tuple[StepRecord, ...] = ()
    overtaken_by: str = ""

    @property
    def tried_again(self) -> int:
        """How often the controller by itself had it go on since it failed; 0: an operator did so last."""
        return int(self.data.get(TRIED_AGAIN, 0))

    @property
    def at_step(self) -> StepRecord | None:
        """The step that it works on, or stopped at."""
        moving = (StepState.RUNNING, StepState.FAILED, StepState.UNDOING)
        for step in self.steps:
            if step.state in moving:
                return step
        return next((step for step in self.steps if step.state is StepState.PENDING), None)
