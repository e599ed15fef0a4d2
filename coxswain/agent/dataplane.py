"""The line between the agent's gRPC service and what moves packets.

The service (``service.py``) owns revisions, the files of the state directory, validation, truth values and codes. A
data plane owns interfaces, the peer set with its conf, routes, rules, and the tools it runs for them. Two of them
exist: ``simulated`` and ``wireguard``.

Rules for an implementation:

- Every method runs on the agent's event loop and must not block it: tools run as asyncio subprocesses.
- The service calls at most one *changing* method at a time (it holds one writer lock per data plane) and runs each in a
  task of its own that no RPC deadline cancels (node-contract.md 9.2). Reading methods may run beside a change.
- Arguments are already validated (``coxswain.wire.validate``): keys, CIDRs, endpoints, names and ports are well formed.
- A failed change leaves the last good configuration in force, on disk and live, as far as that can be had.
- ``coxswain.agent.wireguard.plane.open_plane(identity, settings) -> DataPlane`` is how the agent gets the real one.
- ``DataPlaneFailed`` texts go to the controller: never a private or preshared key in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from coxswain.errors import CoxswainError
from coxswain.model import Obfuscation
from coxswain.netpolicy import Policy
from coxswain.ports import PortRange
from coxswain.wire.validate import CLIENT_INTERFACE

if TYPE_CHECKING:
    from coxswain.agent.xray_engine import XrayEngine

__all__ = [
    "CLIENT_INTERFACE",
    "CLIENT_MTU",
    "CLIENT_PORT",
    "DataPlane",
    "DataPlaneFailed",
    "Dump",
    "InterfaceStatus",
    "Journal",
    "LinkConfig",
    "LivePeer",
    "PeerConfig",
    "StoredPolicy",
]

CLIENT_PORT = 443
"""Its UDP port (node-contract.md 6.3)."""

CLIENT_MTU = 1420
"""Its MTU in bytes, and that of an inner link that asks for 0 (node-contract.md 6.3, 4.12)."""


class DataPlaneFailed(CoxswainError):
    """A tool failed or an interface cannot be read. The text goes to the controller and holds no secrets."""


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One configured peer, as the conf has it. ``preshared_key`` and ``endpoint`` may be empty."""

    public_key: str
    allowed_ips: tuple[str, ...] = ()
    preshared_key: str = field(default="", repr=False)
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class LivePeer:
    """One line of ``awg show awg0 dump`` (node-contract.md 6.5).

    Attributes:
        endpoint: ``ip:port`` or ``[v6]:port``; empty when unknown.
        last_handshake: epoch seconds; 0: never.
        rx_bytes: received by the node, cumulative.
        tx_bytes: sent by the node, cumulative.
    """

    public_key: str
    endpoint: str = ""
    last_handshake: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0


Dump = Mapping[str, LivePeer]
"""Live peers of the client interface by public key."""


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """Whether the client interface is there.

    Attributes:
        error: non-empty if that cannot be told (a tool is missing).
        note: what an operator should know of the way it is run; empty: nothing.
    """

    up: bool
    error: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One outbound tunnel to another node (node-contract.md 6.6). ``listen_port`` 0: any; ``mtu`` is never 0 here."""

    interface: str
    listen_port: int
    mtu: int
    obfuscation: Obfuscation
    exit: PeerConfig


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """What ``netpolicy.json`` holds (node-contract.md 7.6): the policy and the argv lists that take it down again."""

    policy: Policy
    down: tuple[tuple[str, ...], ...] = ()


Journal = Callable[[StoredPolicy], Awaitable[None]]
"""Keeps ``previous`` with the commands that take down what is about to be installed as well, so that an agent that is killed
half way knows all of what it may find. Raises ``OSError``: nothing was changed."""


@runtime_checkable
class DataPlane(Protocol):
    """What the gRPC service, the observer and the start sequence need. See the module's rules."""

    @property
    def name(self) -> str:
        """``wireguard`` or ``simulated``, for the log."""
        ...

    @property
    def has_xray(self) -> bool:
        """False: XRay calls answer UNIMPLEMENTED."""
        ...

    @property
    def carries_ipv6(self) -> bool:
        """Clients' IPv6 is isolated, marked and masqueraded just as their IPv4, by the policy in force."""
        ...

    @property
    def mapped_ports(self) -> PortRange | None:
        """UDP ports that lead to the client interface besides its own, by the policy in force."""
        ...

    @property
    def xray(self) -> XrayEngine:
        """What runs the REALITY inbound; only used while ``has_xray``."""
        ...

    async def restore_links(self) -> Sequence[str]:
        """Changing. At start: brings up every inner link that has a conf and is not up.

        Returns one sentence per link that could not be brought up; never raises ``DataPlaneFailed``.
        """
        ...

    async def up(self) -> None:
        """Changing. Cold start and RestartService: makes awg0 what its conf says (node-contract.md 4.10).

        No conf: nothing happens. Interface there: strip and syncconf, so that sessions survive; else bring it up; then
        the peers' routes. Raises ``DataPlaneFailed``.
        """
        ...

    async def status(self) -> InterfaceStatus:
        """Reading. Is awg0 there? Never raises."""
        ...

    async def dump(self) -> Dump:
        """Reading. Live peers of awg0. Raises ``DataPlaneFailed`` if awg0 is down or its dump cannot be read."""
        ...

    async def configured(self) -> tuple[PeerConfig, ...]:
        """Reading. Peers of the conf, in conf order; empty without a conf. Raises ``DataPlaneFailed``."""
        ...

    async def replace_peers(self, peers: Sequence[PeerConfig]) -> None:
        """Changing. PushConfig: full replace in this order, then live (node-contract.md 4.4 steps 5 to 7).

        Creates awg0 if it is not there. Routes of peers and CIDRs that vanished are removed. Raises
        ``DataPlaneFailed``, with the conf that was in force before back in place.
        """
        ...

    async def upsert_peer(self, peer: PeerConfig) -> None:
        """Changing. AddPeer: an existing key keeps its place and gets everything else anew, a new one goes last
        (node-contract.md 4.7). With awg0 down the peer stays in the conf and ``DataPlaneFailed`` is raised.
        """
        ...

    async def remove_peer(self, public_key: str) -> None:
        """Changing. RemovePeer; an absent peer is no error. With awg0 down the conf is cleaned and ``DataPlaneFailed``
        is raised (node-contract.md 4.8).
        """
        ...

    async def apply_policy(
        self, policy: Policy, previous: StoredPolicy | None, journal: Journal, *, restoring: bool = False
    ) -> StoredPolicy:
        """Changing. Installs ``policy`` and takes down what ``previous`` has besides (node-contract.md 7.5).

        Args:
            journal: called before anything is changed.
            restoring: at start: a transit whose link is missing is installed all the same, and what it sends is refused
                until the link is there. Otherwise such a transit is a failure.

        Returns what is to be stored, with the egress interface resolved in ``down``; the service writes the file.
        Raises ``DataPlaneFailed`` with ``previous`` in force as well as that can be had.
        """
        ...

    async def link_is_up(self, interface: str) -> bool:
        """Reading. Is this inner link there? Never raises."""
        ...

    async def configure_link(self, link: LinkConfig) -> None:
        """Changing. Creates the inner link or makes it what ``link`` says (node-contract.md 4.12, 6.6).

        Raises ``DataPlaneFailed``.
        """
        ...

    async def remove_link(self, interface: str) -> None:
        """Changing. Takes the link down and deletes its conf, also if it was left by an earlier process; an absent one
        is no error (node-contract.md 4.13). Raises ``DataPlaneFailed``.
        """
        ...

    async def heal(self, policy: StoredPolicy | None, journal: Journal) -> StoredPolicy | None:
        """Changing. Brings back interfaces and rules that were configured and are not there any more.

        Returns ``policy`` as it is to be stored if it had to be applied again, else None. Raises ``DataPlaneFailed``.
        """
        ...

    async def close(self) -> None:
        """At stop: waits for tools still running. Interfaces and rules stay in place (node-contract.md 3.6)."""
        ...
