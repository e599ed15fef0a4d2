"""What reconcile works on: desired state, observed state, memory of the link, and the plan between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from coxswain.messages.sessions import PeerCounters
from coxswain.model import NetworkPolicy, Obfuscation, Peer, Protocol

__all__ = [
    "Desired",
    "Finding",
    "LinkMemory",
    "Observed",
    "ObservedPeer",
    "Plan",
    "PushPeers",
    "Reason",
    "ServiceHealth",
    "SetPolicy",
    "Step",
]


@dataclass(frozen=True, slots=True)
class Desired:
    """What a node should be. ``peers`` are in push order and of valid form; ``addresses`` are those of each, as networks."""

    node_id: str
    revision: int
    peers: tuple[Peer, ...]
    policy: NetworkPolicy
    addresses: tuple[frozenset[str], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One entry of GetStatus.services (node-contract.md 1.3)."""

    protocol: Protocol
    running: bool
    listening: bool
    peer_count: int
    detail: str
    newest_handshake_age_s: int
    handshaking_peers: int


@dataclass(frozen=True, slots=True)
class ObservedPeer:
    """One configured peer as ListPeers reports it. ``allowed_ips`` are as ``codec.plain_ips`` has them. ``psk_digest`` is
    SHA-256 of the preshared key's text, so that no secret lives in a value that may be printed; None: the agent does not
    show it.
    """

    public_key: str
    allowed_ips: frozenset[str]
    psk_digest: bytes | None
    counters: PeerCounters


@dataclass(frozen=True, slots=True)
class Observed:
    """What a node is. ``peers`` None: not asked this time. ``clock_skew_s``: how far its clock is ahead of ours; 0 also when
    the difference is small, None: unknown.
    """

    agent_version: str
    uptime_s: int
    applied_revision: int
    services: tuple[ServiceHealth, ...]
    wg_public_key: str
    obfuscation: Obfuscation
    xray_public_key: str
    peers: tuple[ObservedPeer, ...] | None
    clock_skew_s: float | None = None


@dataclass(frozen=True, slots=True)
class LinkMemory:
    """What a link remembers about earlier looks and pushes. Monotonic seconds; None: never.

    Attributes:
        policy_confirmed: fingerprint of the policy that the node last acknowledged (``Node.policy_confirmed``).
        policy_suspect: the last SetNetworkConfig failed or was cut off: the node may have no rules at all.
        uptime_s: at the last look, to notice a restarted agent.
        wg_public_key, applied_revision: at the last look, to notice a host that was set up anew.
        handshakes_seen_at: when handshakes were last seen; a data plane is stalled only if there were some before.
        last_stall_heal_at: to heal a stall at most every five minutes (management-plane.md 8.1).
    """

    policy_confirmed: str = ""
    policy_suspect: bool = False
    uptime_s: int | None = None
    wg_public_key: str = ""
    applied_revision: int = 0
    handshakes_seen_at: float | None = None
    last_stall_heal_at: float | None = None


class Reason(StrEnum):
    """Why a step is in a plan."""

    REVISION_BEHIND = "the node's revision is behind"
    REVISION_AHEAD = "the node's revision is ahead of ours"
    PEERS_DIFFER = "the node's peers differ from the intended ones"
    DATA_PLANE_DOWN = "the data plane is down"
    STALLED = "no peer shakes hands any more"
    POLICY_CHANGED = "the network policy was changed"
    POLICY_SUSPECT = "it is not certain that the network policy is in force"
    OPERATOR = "asked for by the operator"


@dataclass(frozen=True, slots=True)
class PushPeers:
    """PushConfig(AMNEZIAWG) of all peers. ``fresh_revision``: the intended revision must be bumped first, to at least
    ``at_least``. ``detail`` counts what is missing, extra and changed.
    """

    reason: Reason
    fresh_revision: bool
    at_least: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """SetNetworkConfig."""

    reason: Reason


Step = PushPeers | SetPolicy


@dataclass(frozen=True, slots=True)
class Finding:
    """Something an operator should know, with or without a step. ``degraded``: the node is not what it should be and
    no step mends it.
    """

    text: str
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what was noticed. An empty plan without degraded findings: the node is in sync."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
