"""Messages to ``fleet`` about the exits of paths that have more than one. Times are epoch seconds."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.cascade.types import Detour, Phase
from coxswain.messages.audit import Caller
from coxswain.messages.versions import Seen

__all__ = [
    "CheckExit",
    "ExitTrouble",
    "ExitView",
    "GetExit",
    "ListExitTrouble",
    "NoteExit",
    "SettleExit",
    "StageExit",
]


@dataclass(frozen=True, slots=True)
class CheckExit:
    """May this path (id or name) leave at ``node`` (id or name; empty: its own exit)? Reply: ``ExitView``, with
    ``wanted``. Raises ``NotFound``, ``InvalidInput`` (it is none of its exits), ``Conflict`` (it is on its way already).
    """

    key: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class GetExit:
    """Reply: ``ExitView``. ``back``: it is being taken back, and that waits for others. Raises ``NotFound``."""

    path_id: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class StageExit:
    """Asked by the operation that changes the exit of a path: the next stage on the way to ``node_id``, or back.

    Reply: ``Committed[ExitView]``. Repeated, it changes nothing. Raises ``NotFound``, ``InvalidInput``; ``Conflict`` when it
    is on its way elsewhere, or somebody on it is.
    """

    caller: Caller
    path_id: str
    node_id: str
    phase: Phase
    reason: str = ""
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class SettleExit:
    """Asked by the same operation: the end of the way. ``forward`` False: back where it came from. Reply:
    ``Committed[ExitView]``. Repeated, it changes nothing.
    """

    caller: Caller
    path_id: str
    node_id: str
    forward: bool
    reason: str = ""
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class NoteExit:
    """Asked by doors when a path leaves where somebody wants it to leave: the audit record. Reply: ``Committed[None]``.
    Raises ``StaleVersion``.
    """

    caller: Caller
    path_id: str
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class ExitView:
    """Where a path leaves.

    Attributes:
        exit: id of the node that carries.
        wanted: id of the node that was asked for, or that it is on its way to; empty: neither.
        waiting: nodes that have not acknowledged their part of the present stage, and why not; empty: all have.
        notes: what is wrong with the exit that it is on its way to, as the plan of a path says it.
    """

    path_id: str
    exit: str
    wanted: str = ""
    detour: Detour = Detour()
    waiting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListExitTrouble:
    """Reply: tuple of ``ExitTrouble``, by path name."""


@dataclass(frozen=True, slots=True)
class ExitTrouble:
    """A path that does not leave at its own exit, or whose exit is bad while no other is fit (``stuck``)."""

    path_id: str
    name: str
    own_exit: str
    exit: str
    exit_node_id: str
    reason: str
    since: float
    stuck: bool = False
    automatic: bool = False
