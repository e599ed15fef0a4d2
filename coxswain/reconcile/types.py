"""What reconcile works on: desired state, observed state, memory of the link, and the plan between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from coxswain.cascade.types import InnerLink
from coxswain.fingerprints import of_reality
from coxswain.messages.sessions import PeerCounters
from coxswain.model import NetworkPolicy, Obfuscation, Peer, Protocol
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange
from coxswain.reality import Reality

__all__ = [
    "UNVERSIONED",
    "ConfigureLink",
    "Desired",
    "Finding",
    "LinkMemory",
    "Observed",
    "ObservedPeer",
    "Plan",
    "PushPeers",
    "PushXray",
    "Reason",
    "RemoveLink",
    "ServiceHealth",
    "SetPolicy",
    "Step",
    "XrayInbound",
]


UNVERSIONED = "-"
"""Stands for the version of an agent that says none, where an empty text means something else."""


@dataclass(frozen=True)  # without slots: names are made once, and asked for at each look at each node
class XrayInbound:
    """The REALITY inbound of one node and its clients (node-contract.md 8)."""

    reality: Reality
    clients: tuple[Peer, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Names it by its content."""
        clients = sorted((client.public_key, client.flow) for client in self.clients)
        return hashlib.sha256(repr((self.reality, clients)).encode()).hexdigest()[:32]

    @cached_property
    def as_told(self) -> str:
        """The same as a node's agent names it (``Observed.xray``)."""
        face = self.reality
        clients = ((client.public_key, client.flow) for client in self.clients)
        return of_reality(face.port, face.dest, face.server_names, face.short_ids, clients)


@dataclass(frozen=True, slots=True)
class Desired:
    """What a node should be: one document.

    Attributes:
        peers: in push order and of valid form; edge peers, which have no device, come last (node-contract.md 11.4, rule 4).
        policy: what the operator set; ``network`` is what goes to the node.
        ports: UDP ports that are to lead to the clients' interface besides its own.
        transits, links: of the paths that lead over the node.
        xray: None: this controller does not use XRay.
        cascade: names what the paths make of the node by its content; empty: nothing.
        addresses: those of each peer, as networks.
        marks: what names each peer by its content.
        psk_digests: what stands for each peer's preshared key (``codec.psk_digest``).
    """

    node_id: str
    revision: int
    peers: tuple[Peer, ...]
    policy: NetworkPolicy
    transits: tuple[Transit, ...] = ()
    links: tuple[InnerLink, ...] = ()
    xray: XrayInbound | None = None
    cascade: str = ""
    addresses: tuple[frozenset[str], ...] = field(default=(), compare=False, repr=False)
    marks: tuple[int, ...] = field(default=(), compare=False, repr=False)
    psk_digests: tuple[int, ...] = field(default=(), compare=False, repr=False)
    ports: PortRange | None = None

    @property
    def content(self) -> str:
        """Names the peers by their content, in whatever order: a sum, so that one peer more costs one peer's work."""
        return f"{sum(self.marks) % 2**128:032x}"

    @property
    def network(self) -> Policy:
        """The policy with its transits, which need forwarding (fleet-model.md 6.6), and its ports, which do not."""
        policy = self.policy
        forwarding = policy.forwarding or bool(self.transits)
        return Policy(forwarding, policy.masquerade, policy.isolation, self.transits, self.ports)


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
    what ``codec.psk_digest`` makes of the preshared key, so that no secret lives in a value that may be printed.
    """

    public_key: str
    allowed_ips: frozenset[str]
    psk_digest: int
    counters: PeerCounters


@dataclass(frozen=True, slots=True)
class Observed:
    """What a node is. ``peers`` None: not asked this time. ``clock_skew_s``: how far its clock is ahead of ours; 0 also when
    the difference is small, None: unknown. ``asked_at``: when, monotonic seconds and epoch seconds; None: unknown.
    ``mapped_ports``: as ``Node`` has it; None: not asked since the policy was set. ``policy``, ``xray``: fingerprints of the
    network policy and of the REALITY inbound that its agent holds; empty: it does not say, or was not asked since.
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
    asked_at: tuple[float, float] | None = None
    tunnel_ipv6: bool = False
    mapped_ports: str | None = ""
    policy: str = ""
    xray: str = ""


@dataclass(frozen=True, slots=True)
class LinkMemory:
    """What a link remembers about earlier looks and pushes. Monotonic seconds; None: never.

    Attributes:
        policy_confirmed: fingerprint of the policy that the node last acknowledged (``Node.policy_confirmed``), with its
            transits.
        policy_suspect: the last SetNetworkConfig failed or was cut off: the node may have no rules at all.
        uptime_s: at the last look, to notice a restarted agent.
        wg_public_key, applied_revision: at the last look, to notice a host that was set up anew.
        applied_content: what the peers were by content when the node last acknowledged a revision, or was seen to have them;
            empty: not known, as after a restart of the agent, which may have lost some of it with its file.
        handshakes_seen_at: when handshakes were last seen; a data plane is stalled only if there were some before.
        last_stall_heal_at: to heal a stall at most every five minutes (management-plane.md 8.1).
        healed: when the node was last told for one of these reasons, and what of it was found; a reason is left out once the
            node was seen to be what it should be, or its agent started anew.
        links: of each inner link that the node may have, by interface: ``block:peer`` as it acknowledged them
            (``InnerLink``); ``block:`` while it is in doubt what became of the last call.
        registered: the interfaces that the agent was told of since it started. What it was not told of it does not remove,
            and says that it did (node-contract.md 4.13).
        xray_confirmed: fingerprint of the inbound that the agent last acknowledged; empty: none, or it was restarted.
        xray_unsupported: the version of the agent that has no XRay; empty: not known of any.
        xray_refused: how often in a row it refused XRay, for whatever reason; one is that its revision is ahead.
        seen_at: when it was last looked at, by our monotonic clock.
        started_by: the agent started at this time at the latest, by our monotonic clock.
        agent_started_at: when it started, epoch seconds, roughly, as the store keeps it; 0: not known.
        highest_revision: that the node was seen to have; lower than that, its agent lost something.
        overtaken: when the node was found to have been told something by somebody else (a revision ahead of ours, another
            policy than it acknowledged), the last two times.
    """

    policy_confirmed: str = ""
    policy_suspect: bool = False
    uptime_s: int | None = None
    wg_public_key: str = ""
    applied_revision: int = 0
    applied_content: str = ""
    handshakes_seen_at: float | None = None
    last_stall_heal_at: float | None = None
    healed: Mapping[Reason, tuple[float, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    registered: frozenset[str] = frozenset()
    xray_confirmed: str = ""
    xray_unsupported: str = ""
    xray_refused: int = 0
    seen_at: float | None = None
    started_by: float | None = None
    agent_started_at: float = 0.0
    highest_revision: int = 0
    overtaken: tuple[float, ...] = ()


class Reason(StrEnum):
    """Why a step is in a plan."""

    REVISION_BEHIND = "the node's revision is behind"
    REVISION_LOST = "the node's revision is lower than it was: its agent lost a file, or has an older one"
    REVISION_AHEAD = "the node's revision is ahead of ours"
    CONTENT_UNKNOWN = "the node acknowledged this revision for something else"
    PEERS_DIFFER = "the node's peers differ from the intended ones"
    PEERS_LIVE = "other peers are in force on the node than its agent has configured"
    KEYS_HIDDEN = "it is not certain that it has the preshared keys, of which it shows none"
    DATA_PLANE_DOWN = "the data plane is down"
    STALLED = "no peer shakes hands any more"
    POLICY_CHANGED = "the network policy was changed"
    POLICY_DIFFERS = "the node has another network policy than intended"
    PORTS_DIFFER = "the node maps other ports than intended"
    POLICY_SUSPECT = "it is not certain that the network policy is in force"
    LINK_NEW = "a path leads over it"
    LINK_CHANGED = "its other end was changed"
    LINK_DOUBTFUL = "it is not certain that the node has it"
    LINK_UNUSED = "no path leads over it any more"
    XRAY_CHANGED = "its clients or its decoy were changed"
    XRAY_DIFFERS = "the node has other clients or another decoy than intended"
    XRAY_DOWN = "it does not run, or not with the intended clients"
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
    """SetNetworkConfig, with transits."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class PushXray:
    """PushConfig(XRAY_REALITY), under the revision of the peers."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class ConfigureLink:
    """ConfigureInnerLink, under a revision that is higher than any before: an equal one does nothing (node-contract.md
    4.12).
    """

    link: InnerLink
    reason: Reason


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """RemoveInnerLink. ``register``: the agent has to be told of the link first, or it would do nothing
    (node-contract.md 4.13).
    """

    interface: str
    register: bool
    reason: Reason


Step = ConfigureLink | PushPeers | SetPolicy | PushXray | RemoveLink


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
