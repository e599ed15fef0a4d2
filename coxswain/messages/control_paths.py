"""Messages to ``servers`` about control paths, and what it tells ``node_links`` of them."""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.control_path.model import ControlPath, Route
from coxswain.messages.audit import Caller
from coxswain.servers import Relay

__all__ = [
    "ActivateControlPath",
    "AddControlPath",
    "ControlPathView",
    "DeactivateControlPath",
    "EditControlPath",
    "GetControlPath",
    "GetRouteState",
    "ListControlPaths",
    "RemoveControlPath",
    "RouteChanged",
    "RouteState",
]


@dataclass(frozen=True, slots=True)
class ControlPathView:
    """A path with its relays, in order; None for one that is gone. ``route`` None: it cannot be taken just now, and
    ``problem`` says why.
    """

    path: ControlPath
    relays: tuple[Relay | None, ...] = ()
    route: Route | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GetRouteState:
    """Asked by doors. Reply: ``RouteState``."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """How everything is dialled just now.

    Attributes:
        kind: ``direct``, ``egress``, ``onion``; ``refused``: nothing is dialled, ``reason`` says why.
        hops: names of relays, the first is dialled by the controller.
        connections: that go over relays now.
        sessions: with relays, that stand.
    """

    kind: str
    hops: tuple[str, ...] = ()
    reason: str = ""
    connections: int = 0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class ListControlPaths:
    """Reply: list of ``ControlPathView``, oldest first."""


@dataclass(frozen=True, slots=True)
class GetControlPath:
    """``key`` is an id or a name. Reply: ``ControlPathView``. Raises ``NotFound``."""

    key: str


@dataclass(frozen=True, slots=True)
class AddControlPath:
    """A new path, not active. ``hops``: ids or names of relays, in order; none: a path that leads there directly. Reply:
    ``Committed[ControlPathView]``. Raises ``InvalidInput`` (names the hop), ``AlreadyExists``.
    """

    caller: Caller
    name: str
    hops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditControlPath:
    """Another name, other hops; None: as it is. Reply: ``Committed[ControlPathView]``. Raises as ``AddControlPath``, and
    ``NotFound``, ``StaleVersion``, ``Conflict``: other hops for the active path, which nobody has probed.
    """

    caller: Caller
    id: str
    name: str | None = None
    hops: tuple[str, ...] | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ActivateControlPath:
    """Everything goes by this path from now on. Asked by doors, after the probe; ``probed`` is what that found, for the
    audit log. ``version`` None: whatever it is now. Reply: ``Committed[ControlPathView]``. Raises ``NotFound``,
    ``StaleVersion``, ``Refused`` (a hop is not fit), ``Conflict`` (it leads there directly, and ``allow_direct`` was not
    said).
    """

    caller: Caller
    id: str
    version: int | None = None
    allow_direct: bool = False
    probed: str = ""


@dataclass(frozen=True, slots=True)
class DeactivateControlPath:
    """Back to dialling directly, on purpose. Reply: ``Committed[ControlPathView | None]``: the path that was active. Raises
    ``Conflict``: ``allow_direct`` was not said, or none is active.
    """

    caller: Caller
    allow_direct: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveControlPath:
    """Reply: ``Committed[ControlPathView]`` (the removed one). Raises ``Conflict``: it is active, and ``allow_direct`` was
    not said.
    """

    caller: Caller
    id: str
    version: int | None = None
    allow_direct: bool = False


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """Told by ``servers`` to ``node_links``, and by that to each link: what is connected by an older route comes over, and
    who waits for the next attempt makes it now. Also when a hop is back.
    """
