"""The fleet's entities as plain values: what the store keeps, actors exchange and pure functions work on.

All of them are frozen. Times are epoch seconds (float) here and epoch microseconds in the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = [
    "MASKED",
    "Credential",
    "Device",
    "DeviceStatus",
    "LinkState",
    "NetworkPolicy",
    "Node",
    "NodeStatus",
    "Obfuscation",
    "Peer",
    "Profile",
    "ProfileProtocol",
    "Protocol",
    "User",
    "UserStatus",
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
        credential_id: what it was made from; empty: made by hand (``POST /api/peers``).
    """

    id: str
    node_id: str
    device_id: str
    protocol: Protocol
    public_key: str
    allowed_ips: tuple[str, ...] = ()
    preshared_key: str = field(default="", repr=False)
    flow: str = ""
    credential_id: str = ""


class UserStatus(StrEnum):
    """Only an active user's devices are on nodes. ``SUSPENDED`` is for a while, ``DISABLED`` for somebody who left."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DISABLED = "disabled"


class DeviceStatus(StrEnum):
    """``SUSPENDED``: its credentials are kept, and are on no node. ``REVOKED``: they are destroyed, for good."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class ProfileProtocol(StrEnum):
    """What a profile offers (accounts-profiles.md 4.2)."""

    AMNEZIAWG = "amneziawg"
    XRAY_REALITY = "xray-reality"
    BOTH = "both"


MASKED = "***"
"""In the place of an e-mail address or phone number, for whoever may not know it."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who owns devices. ``email`` and ``phone`` are unique, and empty where there is none."""

    id: str
    name: str
    email: str = ""
    status: str = UserStatus.ACTIVE
    version: int = 1
    phone: str = ""
    role: str = "user"
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """One device of one user. ``profile_revision``: how often what it is given was changed. ``provisioned``: it has keys."""

    id: str
    user_id: str
    name: str
    platform: str = ""
    status: str = DeviceStatus.ACTIVE
    version: int = 1
    created_at: float = 0.0
    profile_revision: int = 0
    provisioned: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """What one device should be able to connect to: a node, or a path by its entry. Exactly one of them is set.

    ``entry_ips``: only these of the entry's endpoint addresses; empty, or none of them there: all (fleet-model.md 2.8).
    """

    id: str
    device_id: str
    name: str
    protocol: ProfileProtocol = ProfileProtocol.AMNEZIAWG
    node_id: str = ""
    path_id: str = ""
    entry_ips: tuple[str, ...] = ()
    user_id: str = ""
    version: int = 1
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Credential:
    """A device's keys and tunnel address for one profile. ``profile_id`` empty: for all nodes, as it has no profiles.

    ``wg_private_key_sealed`` is opened with the keyring (``coxswain.provisioning.keys``); the UUID is a secret too, which
    nodes have to know.
    """

    id: str
    device_id: str
    profile_id: str
    address: str
    wg_public_key: str
    wg_private_key_sealed: bytes = field(repr=False)
    uuid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the fleet, as the store has it.

    Attributes:
        control_addr: ``host:port`` of the agent's gRPC server; empty until known.
        server_names: TLS names that the node's present certificates carry, newest first; the link accepts no other
            (``coxswain.pki``). Empty: no certificate was issued yet.
        endpoint_ports: a range of UDP ports at which clients are to reach it besides 443, as ``PortRange`` prints it; empty:
            none. It is pushed with the policy.
        mapped_ports: the range that its agent says is in force; existing agents say none.
        decoy_site: whom REALITY pretends to be there, as ``host`` or ``host:port``; empty: ``reality.decoy_site``.
        enabled: False after ``cox nodes disable``: no link is held.
        config_revision: the intended revision, monotonic.
        applied_revision: the revision that the node last acknowledged.
        tunnel_ipv6: its agent does for clients' IPv6 what it does for their IPv4; existing agents do not.
        applied_content: what its peers were by content when it acknowledged that (``Desired.content``); empty: not known.
        policy_confirmed: fingerprint of the network policy that the node last acknowledged; empty: none.
        links_confirmed: the inner links that it has or may have, as (interface, what it acknowledged of it), by interface
            (``coxswain.reconcile.types.LinkMemory``).
        link_revision: the greatest that was sent with inner links.
        xray_confirmed: fingerprint of the XRay inbound that it last acknowledged; empty: none.
        agent_started_at: when its agent started, roughly; 0: not known.
        server_id: the machine it runs on, if that is known; empty: not.
        version: for optimistic concurrency; a change carries the version that its author saw.
    """

    id: str
    name: str
    region: str = ""
    control_addr: str = ""
    public_ip: str = ""
    endpoint_ips: tuple[str, ...] = ()
    endpoint_ports: str = ""
    server_names: tuple[str, ...] = ()
    status: NodeStatus = NodeStatus.PENDING
    enabled: bool = True
    agent_version: str = ""
    wg_public_key: str = ""
    obfuscation: Obfuscation = Obfuscation()
    xray_public_key: str = ""
    decoy_site: str = ""
    tunnel_ipv6: bool = False
    mapped_ports: str = ""
    policy: NetworkPolicy = NetworkPolicy()
    policy_confirmed: str = ""
    links_confirmed: tuple[tuple[str, str], ...] = ()
    link_revision: int = 0
    xray_confirmed: str = ""
    agent_started_at: float = 0.0
    config_revision: int = 0
    applied_revision: int = 0
    applied_content: str = ""
    server_id: str = ""
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
