"""What happens next with an operation: pure decisions over its record."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.errors import Conflict
from coxswain.operations.kinds import Kind, Recovery
from coxswain.operations.model import Direction, Operation, OperationState, StepState
from coxswain.words import counted

__all__ = ["MAX_INTERRUPTIONS", "Claim", "on_claim", "retry_direction", "steps_back", "steps_forward"]

MAX_INTERRUPTIONS = 5
"""A step that was begun this often, and never ended, takes the controller down with it; it is not tried again by itself."""

_TO_UNDO = frozenset({StepState.RUNNING, StepState.DONE, StepState.FAILED, StepState.UNDOING})


@dataclass(frozen=True, slots=True)
class Claim:
    """What an incarnation does that takes an operation over.

    Attributes:
        how: ``started``, ``resumed`` or ``undone``; the last two after an interruption.
        note: for the operator; empty for a plain start.
        give_up: it was interrupted too often at one step, and fails.
    """

    direction: Direction
    how: str
    note: str = ""
    give_up: bool = False


def on_claim(operation: Operation, kind: Kind) -> Claim:
    """``queued`` starts; ``running`` means that whoever ran it is gone, and the kind says what follows."""
    cancelled = operation.direction is Direction.FORWARD and operation.ending is OperationState.CANCELLED
    if operation.state is not OperationState.RUNNING:
        if cancelled:  # by a controller that did not live to say so to whoever runs it
            return Claim(Direction.BACK, "undone", "cancelled before it began")
        return Claim(operation.direction, "started")
    at = next((s for s in operation.steps if s.state in (StepState.RUNNING, StepState.UNDOING)), None)
    where = f"in its step {at.name!r}" if at is not None else "between two steps"
    if at is not None and at.attempts >= MAX_INTERRUPTIONS:
        return Claim(
            operation.direction,
            "failed",
            f"interrupted {counted(at.attempts, 'time')} {where}; not tried again",
            give_up=True,
        )
    if cancelled:
        return Claim(Direction.BACK, "undone", f"interrupted {where}, and cancelled; what it had changed is taken back")
    if operation.direction is Direction.BACK:
        return Claim(Direction.BACK, "undone", f"interrupted {where} while it was taken back; that goes on")
    if kind.after_crash is Recovery.UNDO and any(s.state in _TO_UNDO for s in operation.steps):
        return Claim(Direction.BACK, "undone", f"interrupted {where}; what it had changed is taken back")
    return Claim(Direction.FORWARD, "resumed", f"interrupted {where}; resumed there")


def steps_forward(operation: Operation) -> list[int]:
    """Positions of the steps that are still to be done, in order."""
    return [s.position for s in operation.steps if s.state is not StepState.DONE]


def steps_back(operation: Operation) -> list[int]:
    """Positions of the steps that are to be taken back, last one first."""
    return [s.position for s in reversed(operation.steps) if s.state in _TO_UNDO]


def retry_direction(operation: Operation) -> Direction:
    """Which way a retry goes. Raises ``Conflict`` when there is nothing to retry."""
    match operation.state:
        case OperationState.FAILED:
            return operation.direction
        case OperationState.WAITING | OperationState.UNDONE | OperationState.CANCELLED:
            return Direction.FORWARD
    raise Conflict(f"operation {operation.id} is {operation.state}; there is nothing to retry")
