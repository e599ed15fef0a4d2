"""The fleet's entities as plain values: what the store keeps, actors exchange and pure functions work on.

All of them are frozen. Times are epoch seconds (float) here and epoch microseconds in the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = [
    "Device",
    "LinkState",
    "NetworkPolicy",
    "Node",
    "NodeStatus",
    "Obfuscation",
    "Peer",
    "Protocol",
    "User",
]


class Protocol(IntEnum):
    """VPN protocols, numbered as on the wire (node-contract.md 1.2)."""

    AMNEZIAWG = 1
    XRAY_REALITY = 2


class NodeStatus(StrEnum):
    """What an operator reads about a node (fleet-model.md 2.2)."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ENROLLING = "enrolling"
    ACTIVE = "active"
    STOPPED = "stopped"
    UNREACHABLE = "unreachable"
    ERROR = "error"


class LinkState(StrEnum):
    """The state machine of one node link.

    ``connecting → syncing → live ⇄ degraded``, any of them → ``backing_off → connecting``; ``disabled`` by the operator.
    """

    DISABLED = "disabled"
    CONNECTING = "connecting"
    SYNCING = "syncing"
    LIVE = "live"
    DEGRADED = "degraded"
    BACKING_OFF = "backing_off"


@dataclass(frozen=True, slots=True)
class Obfuscation:
    """A node's AmneziaWG obfuscation set (node-contract.md 6.2). All zero: not reported."""

    jc: int = 0
    jmin: int = 0
    jmax: int = 0
    s1: int = 0
    s2: int = 0
    s3: int = 0
    s4: int = 0
    h1: int = 0
    h2: int = 0
    h3: int = 0
    h4: int = 0
    i1: str = ""
    i2: str = ""
    i3: str = ""
    i4: str = ""
    i5: str = ""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Forwarding, masquerading and client isolation of one node (node-contract.md 7). New nodes get these defaults."""

    forwarding: bool = True
    masquerade: bool = True
    isolation: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """One device's credential on one node.

    Attributes:
        public_key: AmneziaWG public key (base64), or the VLESS client's UUID.
        allowed_ips: CIDRs or bare addresses inside the tunnel.
        preshared_key: base64 of 32 bytes, or empty.
        flow: XRay only: ``""`` or ``xtls-rprx-vision``.
    """

    id: str
    node_id: str
    device_id: str
    protocol: Protocol
    public_key: str
    allowed_ips: tuple[str, ...] = ()
    preshared_key: str = field(default="", repr=False)
    flow: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who owns devices."""

    id: str
    name: str
    email: str = ""
    status: str = "active"
    version: int = 1


@dataclass(frozen=True, slots=True)
class Device:
    """One device of one user."""

    id: str
    user_id: str
    name: str
    platform: str = ""
    status: str = "active"
    version: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the fleet, as the store has it.

    Attributes:
        control_addr: ``host:port`` of the agent's gRPC server; empty until known.
        server_names: TLS names that the node's present certificates carry, newest first; the link accepts no other
            (``coxswain.pki``). Empty: no certificate was issued yet.
        enabled: False after ``cox nodes disable``: no link is held.
        config_revision: the intended revision, monotonic.
        applied_revision: the revision that the node last acknowledged.
        policy_confirmed: fingerprint of the network policy that the node last acknowledged; empty: none.
        version: for optimistic concurrency; a change carries the version that its author saw.
    """

    id: str
    name: str
    region: str = ""
    control_addr: str = ""
    public_ip: str = ""
    endpoint_ips: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    status: NodeStatus = NodeStatus.PENDING
    enabled: bool = True
    agent_version: str = ""
    wg_public_key: str = ""
    obfuscation: Obfuscation = Obfuscation()
    xray_public_key: str = ""
    policy: NetworkPolicy = NetworkPolicy()
    policy_confirmed: str = ""
    config_revision: int = 0
    applied_revision: int = 0
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
