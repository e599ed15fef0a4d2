"""The values of the cascade: paths, the links between nodes, who is bound to what, and what that makes of one node."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from coxswain.model import Obfuscation, Peer
from coxswain.netpolicy import Transit
from coxswain.ports import FIRST_LINK_PORT

__all__ = [
    "Binding",
    "Detour",
    "InnerLink",
    "NodeCascade",
    "NodeLink",
    "Path",
    "PathStatus",
    "Phase",
    "Problem",
]

FIRST_PORT = FIRST_LINK_PORT
"""UDP port of an entry node's first inner link (fleet-model.md 6.2)."""

FIRST_TABLE = 7_100
"""Mark and routing table of an entry node's first inner link (fleet-model.md 6.2)."""


class PathStatus(StrEnum):
    """Worked out from what nodes confirmed, never stored (fleet-model.md 2.2)."""

    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"


class Phase(StrEnum):
    """How far the change of a binding is. Both ways: a change that fails goes back the way it came."""

    SETTLED = "settled"
    """``route`` carries."""
    PREPARING = "preparing"
    """``route`` carries; ``next_route`` is made ready behind the place where the two part."""
    CROSSING = "crossing"
    """Only where both reach a node from different sides: it takes the new one. Nothing carries, nothing leaks."""
    TURNING = "turning"
    """And sends on what comes by it."""
    MOVED = "moved"
    """``next_route`` carries; ``route`` is still complete, as far as the two do not meet."""


@dataclass(frozen=True, slots=True)
class Detour:
    """Where a path leaves for now, or is about to, that has more than one exit. Empty: at its own exit, and settled.

    Attributes:
        exit: id of the node that carries; empty: the path's own exit.
        next_exit: where it is going; means something in every ``phase`` but the settled one.
        automatic: the controller decided it, so it may bring the path back as well.
        reason: why.
        moved_at: when it began, epoch seconds.
    """

    exit: str = ""
    next_exit: str = ""
    phase: Phase = Phase.SETTLED
    automatic: bool = False
    reason: str = ""
    moved_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Path:
    """An ordered way through the fleet. ``hops`` are node ids: the entry first, the exit last.

    Attributes:
        fallbacks: nodes that may take the place of the exit, in the order in which they are tried.
        detour: whether one of them does.
    """

    id: str
    name: str
    hops: tuple[str, ...]
    color: str = ""
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
    fallbacks: tuple[str, ...] = ()
    detour: Detour = Detour()

    @property
    def entry(self) -> str:
        return self.hops[0]

    @property
    def exit(self) -> str:
        """Its own; where it leaves is the last of ``route``."""
        return self.hops[-1]

    @property
    def route(self) -> tuple[str, ...]:
        """The way that carries."""
        return self.by_exit(self.detour.exit)

    @property
    def next_route(self) -> tuple[str, ...]:
        """The way that it is about to take; ``route`` when it is settled."""
        return self.route if self.detour.phase is Phase.SETTLED else self.by_exit(self.detour.next_exit)

    def by_exit(self, node_id: str) -> tuple[str, ...]:
        """The way to one of its exits; empty: its own."""
        return (*self.hops[:-1], node_id) if node_id else self.hops

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Who dials whom, those to the fallbacks included: their links stand ready."""
        return (*pairwise(self.hops), *((self.hops[-2], node_id) for node_id in self.fallbacks))


@dataclass(frozen=True, slots=True)
class NodeLink:
    """One edge: a tunnel that ``entry`` dials and ``exit`` answers; all paths over it share it.

    Attributes:
        index: its place on the dialling node; interface, port, mark and table follow from it (fleet-model.md 6.2).
        mtu, obfuscation: what the interface was made for. An agent takes them from the first ConfigureInnerLink and ignores
            later ones (node-contract.md 4.12), so a link whose exit's obfuscation changes moves to another index.
    """

    id: str
    entry_node_id: str
    exit_node_id: str
    index: int
    mtu: int
    obfuscation: Obfuscation = field(repr=False)
    preshared_key: str = field(repr=False)
    color: str = ""
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0

    @property
    def interface(self) -> str:
        return f"awg{self.index + 1}"

    @property
    def listen_port(self) -> int:
        return FIRST_PORT + self.index

    @property
    def mark(self) -> int:
        return FIRST_TABLE + self.index

    @property
    def table(self) -> int:
        return FIRST_TABLE + self.index


@dataclass(frozen=True, slots=True)
class Binding:
    """Somebody whose traffic goes over a path.

    Attributes:
        id: the device's, or that of the profile that names the path.
        route, next_route: path ids; empty: none, so that what it sends leaves at the entry.
        addresses: its tunnel addresses by entry node, as CIDRs.
        active: False: it or its user is suspended, so that it has none.
        tunnel, xray: what the profile offers. XRay is proxied on the entry, and leaves there (fleet-model.md 12, 21).
    """

    id: str
    device_id: str
    route: str = ""
    next_route: str = ""
    phase: Phase = Phase.SETTLED
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    active: bool = True
    tunnel: bool = True
    xray: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True)
class InnerLink:
    """A link as its dialling node is told of it (node-contract.md 6.6). ``ipv6``: somebody's IPv6 goes into it too."""

    id: str
    interface: str
    listen_port: int
    mtu: int
    obfuscation: Obfuscation = field(repr=False)
    exit_key: str
    endpoint: str
    preshared_key: str = field(repr=False)
    ipv6: bool = False

    @property
    def block(self) -> str:
        """Names what an agent fixes when the interface is made."""
        return _digest(self.listen_port, self.mtu, astuple(self.obfuscation))

    @property
    def peer(self) -> str:
        """Names what a later call changes."""
        known = (self.exit_key, self.endpoint, self.preshared_key)
        return _digest(*known, "ipv6") if self.ipv6 else _digest(*known)


@dataclass(frozen=True, slots=True)
class Problem:
    """A binding or link that was left out, so that the others work: whose it is, and why."""

    about: str
    text: str


@dataclass(frozen=True)
class NodeCascade:
    """What the paths make of one node. ``edges`` come after all other peers; ``problems`` are sentences.

    ``refused``: addresses that its own peers must not have, because it could not send them on.
    """

    links: tuple[InnerLink, ...] = ()
    edges: tuple[Peer, ...] = ()
    transits: tuple[Transit, ...] = ()
    problems: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.links or self.edges or self.transits or self.refused)

    @cached_property
    def fingerprint(self) -> str:
        """Names the content; empty for none."""
        if not self:
            return ""
        links = [(link.interface, link.block, link.peer) for link in self.links]
        edges = [(edge.public_key, edge.allowed_ips, edge.preshared_key) for edge in self.edges]
        transits = [(t.device_cidr, t.inner_interface, t.mark, t.table) for t in self.transits]
        return _digest(links, edges, transits, *([self.refused] if self.refused else []))


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
