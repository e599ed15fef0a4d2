"""Messages to ``fleet``, the owner of the inventory and its intent.

Mutations carry a ``Caller`` and reply ``Committed``; what they changed is durable when the reply comes. They raise
``InvalidInput``, ``NotFound``, ``AlreadyExists`` and, where a version is given, ``StaleVersion``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from coxswain.cascade.types import NodeCascade
from coxswain.messages.audit import Caller
from coxswain.model import Device, LinkState, NetworkPolicy, Node, NodeStatus, Obfuscation, Peer, Protocol, User
from coxswain.reality import Reality

__all__ = [
    "AddNode",
    "ApplyPeers",
    "BeginLinks",
    "BumpRevision",
    "CertificatesChanged",
    "CheckNewNode",
    "CheckNodeUnused",
    "DrainNode",
    "EditNode",
    "FleetSummary",
    "GetIntent",
    "GetNode",
    "GetNodeSet",
    "GetPulses",
    "GetSummary",
    "GetWhereabouts",
    "Intent",
    "LinkFell",
    "LinkReport",
    "ListNodes",
    "NodeDrifted",
    "NodeView",
    "RecordPush",
    "RemoveNode",
    "SetNodeEnabled",
    "SetNodeStatus",
    "Sighting",
    "Whereabouts",
    "intent_mark",
]


IntentMark = tuple[bool, str, int, tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class AddNode:
    """A host that will run an agent. Reply: ``Committed[Node]``.

    ``control_addr`` is ``host:port``; the host becomes the pinned name of the node's certificate. ``policy`` None: the
    default one. ``provisioning``: an operation is setting it up; it is disabled until the agent runs. ``unique``: raises
    ``AlreadyExists`` if another node has that address.
    """

    caller: Caller
    name: str
    control_addr: str
    region: str = ""
    public_ip: str = ""
    policy: NetworkPolicy | None = None
    server_id: str = ""
    provisioning: bool = False
    unique: bool = False


@dataclass(frozen=True, slots=True)
class EditNode:
    """Changes what is not None. Reply: ``Committed[Node]``. A changed policy, range of ports or decoy bumps the revision.

    ``server_id``: the machine that it is on, of one that was set up by hand. Raises ``Conflict``: it is on another one, that
    one has another node, or is not where the node is reached. ``unique``: as of ``AddNode``, of another address.
    """

    caller: Caller
    id: str
    version: int
    name: str | None = None
    region: str | None = None
    control_addr: str | None = None
    endpoint_ips: tuple[str, ...] | None = None
    endpoint_ports: str | None = None
    decoy_site: str | None = None
    policy: NetworkPolicy | None = None
    server_id: str | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class SetNodeEnabled:
    """``cox nodes disable`` and ``enable``. Reply: ``Committed[Node]``. ``version`` None: whatever it is now."""

    caller: Caller
    id: str
    enabled: bool
    version: int | None = None


@dataclass(frozen=True, slots=True)
class SetNodeStatus:
    """Asked by operations: how far the setting up of a disabled node got. Reply: ``Committed[Node]``."""

    caller: Caller
    id: str
    status: NodeStatus


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Asked by the operation ``node.remove``: the node shall have no peers and no forwarding. Reply: ``Committed[Node]``."""

    caller: Caller
    id: str


@dataclass(frozen=True, slots=True)
class CheckNewNode:
    """Asked before something is begun that ends in ``AddNode``. Reply: None. Raises ``AlreadyExists``.

    ``name``: empty: it will be one that nobody has. ``control_addr``: empty: it may be another node's.
    """

    name: str
    control_addr: str


@dataclass(frozen=True, slots=True)
class CheckNodeUnused:
    """Asked before an agent is taken off its machine. Reply: None. Raises ``Conflict``: paths or profiles lead over it."""

    id: str


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """Takes the node, its peers and certificates out of the inventory. Reply: ``Committed[Node]`` (the removed one).

    Raises ``Conflict``: paths or profiles lead over it, or, where ``clients`` is false, devices have peers on it.
    """

    caller: Caller
    id: str
    version: int | None = None
    clients: bool = True


@dataclass(frozen=True, slots=True)
class ApplyPeers:
    """Upserts users and devices, adds and removes peers, in one transaction.

    Every touched node's revision grows by one. Reply: ``Committed[dict[str, int]]``, node id to new revision.
    ``remove`` holds ``(node_id, protocol, public_key)``. A peer whose (node, protocol, public key) is there is replaced.
    """

    caller: Caller
    users: tuple[User, ...] = ()
    devices: tuple[Device, ...] = ()
    add: tuple[Peer, ...] = ()
    remove: tuple[tuple[str, Protocol, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordPush:
    """Asked by doors after a push or a look that an operator asked for: its audit record. Reply: ``Committed[None]``.

    ``done``: for the detail of the record. ``error``: what went wrong; then nobody knows for sure what was done. ``action``:
    for the audit log.
    """

    caller: Caller
    node_id: str
    done: Mapping[str, int | bool] = field(default_factory=dict)
    error: str = ""
    action: str = "node.push"


@dataclass(frozen=True, slots=True)
class GetNode:
    """``key`` is an id or a name. Reply: ``NodeView``. Raises ``NotFound``, ``InvalidInput`` (an ambiguous name)."""

    key: str


@dataclass(frozen=True, slots=True)
class ListNodes:
    """Reply: list of ``NodeView`` in name order, the first ``limit`` (None: all) after the name ``after``. ``wanted``: a
    part of the name, region or an address, in any case of its letters, or the id; empty: all.
    ``regions``: only those of these; empty: all. ``server_id``: only those on this machine; empty: all.
    """

    after: str = ""
    limit: int | None = None
    wanted: str = ""
    regions: tuple[str, ...] = ()
    server_id: str = ""


@dataclass(frozen=True, slots=True)
class GetNodeSet:
    """Asked by who only has to know which nodes there are. Reply: dict of node id to whether it is enabled."""


@dataclass(frozen=True, slots=True)
class GetPulses:
    """Asked by ``meter``. Reply: dict of node id to ``coxswain.metering.Pulse``, of the nodes that are meant to be up."""


@dataclass(frozen=True, slots=True)
class GetWhereabouts:
    """Asked by doors, for the map. Reply: list of ``Whereabouts``, of all nodes in name order."""


class Whereabouts(NamedTuple):
    """What says where a node is. ``host``: its public address, or else the host that the controller dials."""

    id: str
    name: str
    status: NodeStatus
    region: str
    host: str


@dataclass(frozen=True, slots=True)
class GetSummary:
    """Reply: ``FleetSummary``."""


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """Counts for ``cox status`` and the overview.

    Attributes:
        in_sync: live, and the applied revision is the intended one.
        troubled: in error, unreachable, or not to be made what it should be: somebody has to look.
        coming_up: neither of these, and not disabled: it gets there by itself, or once it is enrolled.
    """

    nodes: int
    by_link_state: dict[LinkState, int]
    by_status: dict[NodeStatus, int]
    in_sync: int
    troubled: int
    coming_up: int
    peers: int
    users: int
    devices: int


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as stored, with what its link last reported. Times are epoch seconds; 0: never."""

    node: Node
    link_state: LinkState
    link_reason: str = ""
    since: float = 0.0
    last_seen: float = 0.0
    uptime_s: int = 0
    peers_configured: int = 0
    peers_online: int = 0
    in_sync: bool = False
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GetIntent:
    """Asked by node links (late: after something said that it changed). Reply: ``Intent``. Raises ``NotFound``."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Intent:
    """All that a link needs to make a node what it should be: its own peers, what paths make of it, XRay's face (None: this
    controller does not use XRay).
    """

    node: Node
    peers: tuple[Peer, ...]
    cascade: NodeCascade = NodeCascade()
    reality: Reality | None = None


@dataclass(frozen=True, slots=True)
class BumpRevision:
    """Asked by a link that must push although the node claims the intended revision (drift of content, or a revision
    ahead of ours). Reply: ``Intent`` with the new revision, greater than the stored one and at least ``at_least``;
    durable. The peers come with their number: what the link last read may be older than a change that has one already.
    """

    node_id: str
    at_least: int


@dataclass(frozen=True, slots=True)
class BeginLinks:
    """Asked by a link that is about to configure or remove inner links. Reply: ``Intent`` with a ``link_revision`` that was
    never sent before, and ``links_confirmed`` in which ``interfaces`` are in doubt; durable, because a crash after the call
    must not make anybody believe that it was never made. A link that a node has in another shape than the intended one may
    have moved to another interface: an agent does not change the shape of one that is there (node-contract.md 4.12).

    ``at_least``: for the revision, after the node refused one as too old.
    """

    node_id: str
    interfaces: tuple[str, ...]
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class NodeDrifted:
    """Told by a link that is about to put right what nobody here made so: somebody was at the node, its agent lost a file,
    or our database was put back. ``found``: in an operator's words. ``kinds``: by which the same is known the next time.
    """

    node_id: str
    found: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Told by node links on every change. What is None did not change. Written to the store in batches.

    ``at``: when it was said. Two that differ in nothing else, nor in what a ``Sighting`` has, say the same: then the second
    is not sent.
    ``intent``: what the link goes by (``intent_mark``), so that one that a hint never reached is noticed.
    ``edges_seen``, ``links_in_use``: of inner links that end or begin at the node (``coxswain.cascade.health``).
    ``cascade_applied``: fingerprint of what paths make of the node, when the node has acknowledged all of it; None: not.
    """

    node_id: str
    incarnation: int
    at: float = field(compare=False)
    link_state: LinkState
    reason: str = ""
    status: NodeStatus | None = None
    agent_version: str | None = None
    uptime_s: int | None = field(default=None, compare=False)
    wg_public_key: str | None = None
    obfuscation: Obfuscation | None = None
    xray_public_key: str | None = None
    tunnel_ipv6: bool | None = None
    mapped_ports: str | None = None
    applied_revision: int | None = None
    applied_content: str | None = None
    policy_confirmed: str | None = None
    links_confirmed: tuple[tuple[str, str], ...] | None = None
    xray_confirmed: str | None = None
    agent_started_at: float | None = None
    cascade_applied: str | None = None
    edges_seen: tuple[tuple[str, float], ...] = ()
    links_in_use: tuple[str, ...] = ()
    peers_configured: int | None = None
    peers_online: int | None = field(default=None, compare=False)
    in_sync: bool = False
    findings: tuple[str, ...] = ()
    intent: IntentMark | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is different at every look at a node. Its link notes it where ``fleet`` can read it, in a mapping by node id that
    both are given: nobody is woken for it. It belongs to what the same ``incarnation`` of the link last reported.
    """

    incarnation: int
    at: float
    uptime_s: int
    peers_online: int


def intent_mark(node: Node, revision: int, cascade: str = "") -> IntentMark:
    """Whatever of a node's intent a link must not miss changes this; its name and region are nothing to a link. ``cascade``:
    fingerprint of what paths make of it.
    """
    return node.enabled, node.control_addr, revision, node.server_names, cascade


@dataclass(frozen=True, slots=True)
class LinkFell:
    """Told by the tree's observer: a link actor crashed or was fenced off; its successor may back off for a while."""

    node_id: str
    incarnation: int
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class CertificatesChanged:
    """Told by ``certificate_authority`` after it issued or revoked a node's certificate. The reader reads the store.

    ``node_id`` None: told by one that starts; its predecessor may have fallen between a commit and telling of it.
    """

    node_id: str | None = None
