"""Messages to ``fleet`` about paths, the links between nodes, and who goes over which path.

Mutations carry a ``Caller`` and reply ``Committed``; what they changed is durable when the reply comes. Nodes follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.cascade.health import LinkHealth
from coxswain.cascade.preview import Stage
from coxswain.cascade.types import NodeLink, Path, PathStatus, Phase
from coxswain.messages.audit import Caller
from coxswain.messages.versions import Seen

__all__ = [
    "AddPath",
    "BindingPlan",
    "BindingView",
    "EditPath",
    "GetBinding",
    "GetPath",
    "LinkView",
    "ListBindings",
    "ListNodeLinks",
    "ListPaths",
    "LookAtPath",
    "NoteBinding",
    "PathPlan",
    "PathView",
    "PlanBinding",
    "PlanPath",
    "RemovePath",
    "Rewire",
    "SettleBinding",
    "StageBinding",
]


@dataclass(frozen=True, slots=True)
class AddPath:
    """A path over 2 or 3 nodes, given by id or name, the entry first, and fallbacks for its exit. Reply:
    ``Committed[PathView]``.

    ``id`` is that of the new path, made by who asks, so that asking twice makes one. Raises ``InvalidInput``, ``NotFound``,
    ``AlreadyExists``, ``Conflict`` (a node cannot be dialled yet, or is disabled).
    """

    caller: Caller
    id: str
    name: str
    nodes: tuple[str, ...]
    color: str = ""
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditPath:
    """Changes what is not None; ``fallbacks`` by id or name. Reply: ``Committed[PathView]``. Raises ``StaleVersion``,
    ``Conflict`` (an exit that carries is left out), and as ``AddPath`` does.
    """

    caller: Caller
    key: str
    version: int
    name: str | None = None
    color: str | None = None
    fallbacks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RemovePath:
    """Reply: ``Committed[PathView]`` (the removed one). Links that no other path uses go with it. ``version`` None: whatever
    it is now. Raises ``Conflict`` while devices or profiles use it.
    """

    caller: Caller
    key: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class GetPath:
    """``key`` is an id or a name. Reply: ``PathView``. Raises ``NotFound``."""

    key: str


@dataclass(frozen=True, slots=True)
class ListPaths:
    """Reply: list of ``PathView`` in name order, the first ``limit`` (None: all) after the name ``after``."""

    after: str = ""
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class ListNodeLinks:
    """Reply: list of ``LinkView`` by id, the first ``limit`` (None: all) after the id ``after``."""

    after: str = ""
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class LookAtPath:
    """Has every node of a path looked at soon. Reply: ``PathView``. Raises ``NotFound``, ``Conflict`` (one that carries is
    disabled).
    """

    key: str


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link between nodes. ``active``: its dialling node acknowledged it as it is intended. ``waiting``: why not.
    ``handshake_at``: the last one, epoch seconds; 0: never, or not known.
    """

    link: NodeLink
    entry: str
    exit: str
    endpoint: str
    active: bool
    waiting: str = ""
    health: LinkHealth = LinkHealth.UNKNOWN
    handshake_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PathView:
    """A path with what became of it.

    Attributes:
        nodes, fallbacks: names of its hops, and of its other exits.
        exit: name of the node at which it leaves for now.
        mtu: for clients: what fits every hop, whichever exit, in bytes.
        links: of its edges, in order; those to other exits last.
        devices, profiles: how many use it.
        problems: of whoever uses it and gets nothing; and of links of its route that are down, and nodes that are away.
        in_place: its nodes have acknowledged it and nothing of it is ill, whether or not they can be reached now.
    """

    path: Path
    status: PathStatus
    nodes: tuple[str, ...]
    mtu: int
    links: tuple[LinkView, ...] = ()
    devices: int = 0
    profiles: int = 0
    problems: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    exit: str = ""
    in_place: bool = True


@dataclass(frozen=True, slots=True)
class PlanPath:
    """What ``AddPath`` would do. Reply: ``PathPlan``. Raises as ``AddPath`` does."""

    name: str
    nodes: tuple[str, ...]
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathPlan:
    """``steps``: one line each, in order. ``mtu``: of its clients."""

    steps: tuple[str, ...]
    mtu: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanBinding:
    """What binding a device to a path (empty: to none) would do. Reply: ``BindingPlan``. Raises as ``StageBinding`` does."""

    device_id: str
    path: str


@dataclass(frozen=True, slots=True)
class BindingPlan:
    """The stages, in order. ``interrupts``: why traffic stops for a moment; empty: it does not."""

    device_id: str
    route: str
    next_route: str
    stages: tuple[Stage, ...]
    interrupts: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageBinding:
    """Asked by the operation that binds a device: the next stage on the way to ``path_id`` (empty: no path), or back.

    Reply: ``Committed[BindingView]``. Repeated, it changes nothing. Raises ``NotFound``; ``Conflict`` when the device has no
    address on the entry, is on its way elsewhere, or a node cannot be dialled.
    """

    caller: Caller
    device_id: str
    path_id: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class SettleBinding:
    """Asked by the same operation: the end of the way. ``forward`` False: back where it came from. Reply:
    ``Committed[BindingView]``. Repeated, it changes nothing.
    """

    caller: Caller
    device_id: str
    path_id: str
    forward: bool


@dataclass(frozen=True, slots=True)
class NoteBinding:
    """Asked by doors when a device is where somebody wants it to be: the audit record. Reply: ``Committed[None]``. Raises
    ``StaleVersion``.
    """

    caller: Caller
    device_id: str
    path_id: str
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class GetBinding:
    """Reply: ``BindingView``; a device that is not bound has empty routes. ``back``: its move is being taken back, and that
    waits for others. Raises ``NotFound`` (no such device).
    """

    device_id: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class ListBindings:
    """Reply: list of ``BindingView`` of bound devices, by device id, the first ``limit`` after ``after``."""

    after: str = ""
    limit: int | None = None
    path_id: str = ""


@dataclass(frozen=True, slots=True)
class BindingView:
    """Where a device's traffic goes.

    Attributes:
        phases: all stages of its way, if it is on one.
        waiting: nodes that have not acknowledged their part of the present stage, and why not; empty: all have.
    """

    device_id: str
    route: str = ""
    next_route: str = ""
    phase: Phase = Phase.SETTLED
    phases: tuple[Phase, ...] = ()
    waiting: tuple[str, ...] = ()
    version: int = 0


@dataclass(frozen=True, slots=True)
class Rewire:
    """``fleet`` to itself: something that paths build on has changed."""
