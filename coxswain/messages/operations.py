"""Messages to ``operations``, the keeper of all operations (``coxswain/operations``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coxswain.messages.audit import Caller
from coxswain.messages.versions import Seen
from coxswain.operations.model import Operation, OperationState, Secrets

__all__ = [
    "CancelOperation",
    "GetOperation",
    "ListOperations",
    "OfferOperation",
    "OfferRetry",
    "OperationsPage",
    "RetryOperation",
    "RunEnded",
    "StartOperation",
]


@dataclass(frozen=True, slots=True)
class StartOperation:
    """Asked by doors, and by steps of other operations (``parent``). Reply: ``Committed[Operation]``; it is durable then,
    and goes on whatever becomes of the caller.

    With a ``parent`` the same kind and target is started once: repeated, the one that is there is the reply.

    Raises ``InvalidInput`` (params), ``NotFound`` (no such kind), ``Conflict`` (another operation works on the same thing),
    ``StaleVersion`` (what it is about is not as ``seen`` says).
    """

    caller: Caller
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    parent: str = ""
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class OfferOperation:
    """Told by actors that decide something by themselves, cannot wait, and will come back to it. What cannot begin now, e.g.
    because another operation works on the same thing, is logged and forgotten.
    """

    start: StartOperation


@dataclass(frozen=True, slots=True)
class OfferRetry:
    """Told as ``OfferOperation`` is: the newest operation of this kind and target that failed goes on, or goes on being
    taken back. Where there is none, or it cannot go on now, nothing happens.
    """

    caller: Caller
    kind: str
    target_id: str


@dataclass(frozen=True, slots=True)
class GetOperation:
    """Reply: ``Operation``, with its steps. Raises ``NotFound``."""

    id: str


@dataclass(frozen=True, slots=True)
class ListOperations:
    """Reply: ``OperationsPage``, newest first. ``open_only``: those that are not over, and those that failed. Raises
    ``InvalidInput`` for a kind that there is not.

    ``before``: id of an operation; only older ones.
    """

    state: OperationState | None = None
    kind: str = ""
    target_id: str = ""
    parent: str = ""
    open_only: bool = False
    before: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class OperationsPage:
    """``more``: there are older ones."""

    operations: tuple[Operation, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class RetryOperation:
    """Asked by doors. Goes on at the step that failed; one that was taken back begins anew. Reply: ``Committed[Operation]``.
    Raises ``Conflict`` (nothing to retry, or something else works on the same thing), ``StaleVersion``.
    """

    caller: Caller
    id: str
    version: int | None = None
    secrets: Secrets = field(default_factory=Secrets)


@dataclass(frozen=True, slots=True)
class CancelOperation:
    """Asked by doors. One that runs is stopped, and what it changed is taken back. Reply: ``Committed[Operation]``, at once.
    Raises ``Conflict`` (it is over), ``StaleVersion``.
    """

    caller: Caller
    id: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Told by an operation's own actor: its place and its locks are free. ``run``: which of its incarnations that was."""

    id: str
    run: int
