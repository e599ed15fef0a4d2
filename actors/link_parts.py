"""What a node link's state machine is told by itself: what it does on the loop, what came of it, what wakes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

__all__ = ["Done", "Operation", "StreamEnded", "Timeout", "Wake"]


class Operation(Enum):
    """What is under way on the loop."""

    OPEN = auto()
    LOOK = auto()
    CHANGE = auto()
    PREVIEW = auto()
    FORCED_PUSH = auto()
    FORCED_POLICY = auto()

    @property
    def changes(self) -> bool:
        """Whether it changes the node; such a call is never cancelled (node-contract.md 11.4, rule 2)."""
        return self in (Operation.CHANGE, Operation.FORCED_PUSH, Operation.FORCED_POLICY)


@dataclass(frozen=True, slots=True)
class Done:
    """A link to itself: an operation ended. ``generation`` tells whether it was one of the present connection."""

    generation: int
    operation: Operation
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """A link to itself: its connection is of no use any more."""

    generation: int
    reason: str


class Wake(Enum):
    """What a timer is for."""

    CONNECT = auto()
    LOOK = auto()
    INTENT = auto()


@dataclass(frozen=True, slots=True)
class Timeout:
    """A link to itself: a timer went off."""

    generation: int
    wake: Wake
