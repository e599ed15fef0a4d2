"""What a node link is made of beside its state machine: what it does on the loop, what wakes it, what operators asked it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from actors.node_change import Changed
from coxswain.messages import links
from coxswain.model import Protocol
from coxswain.reconcile.types import Desired
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = ["Done", "Operation", "Questions", "StreamEnded", "Timeout", "Wake", "policy_outcome", "push_outcome"]


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


class Questions:
    """What operators asked, in order; each needs an operation of its own. Any thread may ``cancel``."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Operation, Future[Any]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, operation: Operation) -> Future[Any]:
        reply: Future[Any] = Future()
        self._waiting.append((operation, reply))
        return reply

    @property
    def first(self) -> Operation:
        return self._waiting[0][0]

    def answer(self, value: Any) -> None:
        self._waiting.pop(0)[1].set_result(value)

    def refuse(self, error: BaseException) -> None:
        self._waiting.pop(0)[1].set_exception(error)

    def refuse_all(self, error: BaseException) -> None:
        while self._waiting:
            self.refuse(error)

    def cancel(self) -> None:
        for _, reply in self._waiting:
            reply.cancel()


def policy_outcome(desired: Desired) -> links.PolicyOutcome:
    """What an operator is told of a policy that was acknowledged."""
    policy = desired.network
    return links.PolicyOutcome(policy.forwarding, policy.masquerade, policy.isolation, len(policy.transits))


def push_outcome(desired: Desired, change: Changed, pushed: pb.PushConfigResponse) -> links.PushOutcome:
    """What an operator is told of a push that was acknowledged."""
    return links.PushOutcome(
        amneziawg_peers=sum(peer.protocol is Protocol.AMNEZIAWG for peer in desired.peers),
        pushed_revision=desired.revision,
        applied_revision=pushed.applied_revision,
        reloaded=pushed.reloaded,
        policy_applied=change.policy_applied,
        xray_peers=len(desired.xray.clients) if desired.xray is not None and change.xray else 0,
        xray_skipped=not change.xray,
        links_configured=len(change.configured),
    )
