"""Between our values and the wire, both ways. What comes from a node is foreign: bounded, checked, never trusted.

``NodeMisbehaved`` is raised where an answer cannot be true or cannot be used; the text names the field.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from coxswain.cascade.types import InnerLink
from coxswain.errors import InvalidInput, NodeMisbehaved
from coxswain.fingerprints import is_fingerprint
from coxswain.messages.sessions import EventKind, NodeEvent, PeerCounters
from coxswain.model import Obfuscation, Peer, Protocol
from coxswain.netpolicy import Policy
from coxswain.ports import PortRange
from coxswain.reconcile.types import Desired, Observed, ObservedPeer, ServiceHealth, XrayInbound
from coxswain.wire import validate
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

__all__ = [
    "MAX_REVISION",
    "PeerRows",
    "event",
    "inert_link",
    "link_config",
    "node_clock",
    "normal_ips",
    "observed",
    "peer_rows",
    "plain_ips",
    "policy_request",
    "psk_digest",
    "push_request",
    "xray_request",
]

MAX_REVISION = 2**62
"""Beyond this no answer is believed. What is *taken over* of a node's count ends at half of it, so that there is room to
count on, and what we counted to ourselves is never refused when a node says it."""

_MAX_COUNTER = 2**60
"""An exabyte. What a node claims beyond it is cut: one absurd row must not cost us the node, nor overflow a sum."""

_MAX_TEXT = 256
_MAX_PEERS = 50_000
"""Above what fits one push (node-contract.md 2.6)."""

_NOBODY = base64.b64encode(hashlib.sha256(b"no node has this key").digest()).decode()

_REALITY_KEY = re.compile(r"[A-Za-z0-9_+/=-]{1,64}")
"""43 characters of base64url with agents of the contract (1.3); what clients make of another length is between the node and
them.
"""

_MAX_SERVICES = 16
_LATEST = 13_569_465_600.0
"""The year 2400."""

_OLDEST_S = 10 * 365 * 86_400
_SKEW_BEHIND_S = 30.0
_SKEW_AHEAD_S = 210.0
"""The 180 s for which a peer is online (node-contract.md 5.4), and what rounding and the network add."""

_OBFUSCATION_FIELDS = tuple(Obfuscation.__dataclass_fields__)
_EVENT_KINDS = {int(kind): kind for kind in EventKind}
_SMALL = 2_048
_PROTOCOLS = {int(protocol): protocol for protocol in Protocol}


# -- to the node


def push_request(desired: Desired) -> pb.PushConfigRequest:
    """PushConfig of all AmneziaWG peers, in order."""
    config = pb.AmneziaWGConfig(peers=[_peer(p) for p in desired.peers if p.protocol is Protocol.AMNEZIAWG])
    return pb.PushConfigRequest(protocol=pb.PROTOCOL_AMNEZIAWG, revision=desired.revision, config=config.SerializeToString())


def xray_request(inbound: XrayInbound, revision: int) -> pb.PushConfigRequest:
    """PushConfig of the REALITY inbound with all its clients."""
    reality = inbound.reality
    clients = [
        pb.Peer(id=p.id, protocol=pb.PROTOCOL_XRAY_REALITY, public_key=p.public_key, flow=p.flow) for p in inbound.clients
    ]
    config = pb.XRayRealityConfig(
        peers=clients,
        dest=reality.dest,
        server_names=reality.server_names,
        short_ids=reality.short_ids,
        port=reality.port,
    )
    return pb.PushConfigRequest(protocol=pb.PROTOCOL_XRAY_REALITY, revision=revision, config=config.SerializeToString())


def policy_request(policy: Policy) -> pb.NetworkConfig:
    transits = [
        pb.TransitRoute(
            device_cidr=transit.device_cidr, inner_interface=transit.inner_interface, mark=transit.mark, table=transit.table
        )
        for transit in policy.transits
    ]
    config = pb.NetworkConfig(
        forwarding=policy.forwarding, masquerade=policy.masquerade, isolation=policy.isolation, transits=transits
    )
    if policy.ports is not None:
        config.endpoint_port_min, config.endpoint_port_max = policy.ports.low, policy.ports.high
    return config


def link_config(link: InnerLink) -> pb.InnerLinkConfig:
    """A link as its dialling node takes it (node-contract.md 6.6). Everything it sends into the link goes to the exit."""
    return pb.InnerLinkConfig(
        interface=link.interface,
        listen_port=link.listen_port,
        mtu=link.mtu,
        peer_obfuscation=pb.AmneziaWGObfuscation(**{name: getattr(link.obfuscation, name) for name in _OBFUSCATION_FIELDS}),
        exit=pb.Peer(
            id=link.id,
            protocol=pb.PROTOCOL_AMNEZIAWG,
            public_key=link.exit_key,
            allowed_ips=["0.0.0.0/0", "::/0"] if link.ipv6 else ["0.0.0.0/0"],
            preshared_key=link.preshared_key,
            endpoints=[link.endpoint],
        ),
    )


def inert_link(interface: str) -> pb.InnerLinkConfig:
    """A link to nowhere: makes an agent that forgot ``interface`` know it again, so that it can be removed. Its address is
    for documentation only (RFC 5737), and nothing is allowed in.
    """
    return pb.InnerLinkConfig(
        interface=interface,
        listen_port=0,
        mtu=1280,
        peer_obfuscation=pb.AmneziaWGObfuscation(
            jc=3, jmin=25, jmax=725, s1=15, s2=16, s3=17, s4=18, h1=5, h2=6, h3=7, h4=8
        ),
        exit=pb.Peer(protocol=pb.PROTOCOL_AMNEZIAWG, public_key=_NOBODY, endpoints=["192.0.2.1:9"]),
    )


def _peer(peer: Peer) -> pb.Peer:
    return pb.Peer(
        id=peer.id,
        protocol=pb.PROTOCOL_AMNEZIAWG,
        public_key=peer.public_key,
        allowed_ips=peer.allowed_ips,
        preshared_key=peer.preshared_key,
    )


# -- from the node


def observed(
    status: pb.GetStatusResponse,
    peers: pb.ListPeersResponse | None,
    received_at: float,
    *,
    asked_at: tuple[float, float] | None = None,
    rows: PeerRows | None = None,
) -> Observed:
    """Reads a status, and the peers if they were asked for.

    Args:
        status: GetStatus.
        peers: ListPeers(AMNEZIAWG), or None.
        received_at: epoch seconds.
        asked_at: when GetStatus was asked, monotonic and epoch seconds.
        rows: of ``peers``, if they were read already (``peer_rows``).
    """
    if rows is None and peers is not None:
        rows = peer_rows(status, peers, received_at)
    revision = status.applied_revision
    if not 0 <= revision <= MAX_REVISION:
        raise NodeMisbehaved(f"GetStatus: applied_revision {revision} is not between 0 and 2^62")
    if status.uptime_seconds < 0:
        raise NodeMisbehaved(f"GetStatus: uptime_seconds {status.uptime_seconds} is negative")
    if len(status.services) > _MAX_SERVICES:
        raise NodeMisbehaved(f"GetStatus: {len(status.services)} services are too many")
    return Observed(
        agent_version=_text(status.agent_version),
        uptime_s=status.uptime_seconds,
        applied_revision=revision,
        services=tuple(_service(s) for s in status.services if s.protocol in _PROTOCOLS),
        wg_public_key=_public_key(status.amneziawg.public_key),
        obfuscation=_obfuscation(status.amneziawg.obfuscation),
        xray_public_key=_reality_key(status.xray.public_key),
        peers=None if peers is None or rows is None else _observed_peers(peers, rows),
        clock_skew_s=None if rows is None else rows.node_now - rows.received_at,
        asked_at=asked_at,
        tunnel_ipv6=status.tunnel_ipv6,
        mapped_ports=_mapped(status.endpoint_port_min, status.endpoint_port_max),
        policy=_fingerprint(status.network_fingerprint),
        xray=_fingerprint(status.xray_fingerprint),
    )


def _fingerprint(text: str) -> str:
    """What is none of ours says nothing."""
    return text if is_fingerprint(text) else ""


def _mapped(low: int, high: int) -> str:
    if not low and not high:
        return ""
    if not 1 <= low <= high <= 65_535:
        raise NodeMisbehaved(f"GetStatus: endpoint_port_min {low} and endpoint_port_max {high} are no range of ports")
    return str(PortRange(low, high))


@dataclass(frozen=True, slots=True)
class PeerRows:
    """What both the session tracker and the link want of ListPeers; read once for both. Epoch seconds.

    Attributes:
        received_at: when it came, by our clock.
        node_now: by the node's, as far as that can be told.
        counters: of each row, in order.
    """

    received_at: float
    node_now: float
    counters: tuple[PeerCounters, ...]

    @property
    def usable(self) -> tuple[PeerCounters, ...]:
        """The rows that have a usable key."""
        return tuple(row for row in self.counters if validate.is_key(row.peer_key))


def peer_rows(status: pb.GetStatusResponse, peers: pb.ListPeersResponse, received_at: float) -> PeerRows:
    """Reads ListPeers(AMNEZIAWG), asked right after ``status``. ``received_at``: epoch seconds."""
    counters = tuple(map(_counters, _rows(peers)))
    return PeerRows(received_at, node_clock(status, counters, received_at), counters)


def node_clock(status: pb.GetStatusResponse, rows: tuple[PeerCounters, ...], received_at: float) -> float:
    """The node's clock, epoch seconds, as far as it can be told; ours when it cannot, or when they agree.

    No field has it. But the status tells how long ago the newest handshake was, by the node's clock, and the list of peers
    when it was. The two answers are not of one moment: a handshake in between makes the node seem ahead by up to that age,
    so only what is beyond doubt counts.

    Args:
        status: GetStatus.
        rows: of ListPeers(AMNEZIAWG), asked right after it.
        received_at: our clock when they came, epoch seconds.
    """
    service = next((s for s in status.services if s.protocol == pb.PROTOCOL_AMNEZIAWG), None)
    newest = max((row.last_handshake for row in rows), default=0.0)
    if service is None or newest == 0.0:
        return received_at
    age = service.newest_handshake_age_seconds
    if not 0 <= age <= _OLDEST_S or (age == 0 and service.handshaking_peers == 0):  # never, or an agent too old to tell
        return received_at
    node_now = newest + age
    agrees = -_SKEW_BEHIND_S <= node_now - received_at <= _SKEW_AHEAD_S
    return received_at if agrees or not 0 <= node_now <= _LATEST else node_now


def event(node_id: str, message: pb.Event, received_at: float) -> NodeEvent | None:
    """Reads an event. None: it is about no protocol or peer that we know how to count."""
    kind = _EVENT_KINDS.get(message.type, EventKind.UNSPECIFIED)
    number = message.protocol or Protocol.AMNEZIAWG  # the observer watches awg0 only (node-contract.md 5.1)
    protocol = _PROTOCOLS.get(number)
    if kind is EventKind.UNSPECIFIED or protocol is None:
        return None
    peer_key = message.peer_id
    if kind is EventKind.ERROR:
        peer_key = _text(peer_key)
    elif not _is_peer_key(protocol, peer_key):
        return None
    return NodeEvent(
        node_id=node_id,
        at=_seconds(message.at, received_at) if message.HasField("at") else received_at,
        received_at=received_at,
        kind=kind,
        protocol=protocol,
        peer_key=peer_key,
        message=_text(message.message),
        endpoint=_text(message.source_endpoint)[:64],
        rx_bytes=_counter(message.rx_bytes),
        tx_bytes=_counter(message.tx_bytes),
    )


def is_known(message: pb.Event) -> bool:
    """Whether it is of a kind that we count: others are of agents that are newer than this, and missed by nobody."""
    return _EVENT_KINDS.get(message.type, EventKind.UNSPECIFIED) is not EventKind.UNSPECIFIED


def psk_digest(preshared_key: str) -> int:
    """What stands for a preshared key in a comparison within this process, so that no secret lives in a value that may be
    printed: Python's own keyed hash of 64 bits, for a twentieth of the cost of SHA-256 at each look at thousands of peers.
    """
    return hash(preshared_key)


def plain_ips(addresses: Iterable[str]) -> frozenset[str]:
    """Allowed IPs as a set in which a bare address is its /32 or /128. Cheap, for thousands of peers a second; two spellings
    of one IPv6 address stay two (``normal_ips``).
    """
    return frozenset(map(_plain_ip, addresses))


def normal_ips(addresses: Iterable[str]) -> frozenset[str]:
    """Allowed IPs as a set of networks: a bare address is its /32 or /128, host bits do not count, as WireGuard reads them.
    Unreadable ones stay as they are.
    """
    return frozenset(_normal_ip(address) for address in addresses)


def _plain_ip(address: str) -> str:
    text = address.strip().lower()
    if "/" in text:
        return text
    return f"{text}/128" if ":" in text else f"{text}/32"


def _normal_ip(address: str) -> str:
    text = _plain_ip(address)
    if ":" not in text and text.endswith("/32"):
        return text
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text


def _counter(value: int) -> int:
    return min(max(0, value), _MAX_COUNTER)


def _rows(peers: pb.ListPeersResponse) -> list[pb.PeerState]:
    if len(peers.peers) > _MAX_PEERS:
        raise NodeMisbehaved(f"ListPeers: {len(peers.peers)} peers are more than fit any push")
    return list(peers.peers)


def _observed_peers(peers: pb.ListPeersResponse, rows: PeerRows) -> tuple[ObservedPeer, ...]:
    return tuple(
        ObservedPeer(
            public_key=counted.peer_key,
            allowed_ips=plain_ips(_text(ip) for ip in state.peer.allowed_ips),
            psk_digest=psk_digest(state.peer.preshared_key),
            counters=counted,
        )
        for state, counted in zip(peers.peers, rows.counters, strict=True)
    )


def _counters(state: pb.PeerState) -> PeerCounters:
    return PeerCounters(
        protocol=Protocol.AMNEZIAWG,
        peer_key=_text(state.peer.public_key),
        last_handshake=_handshake(state),
        rx_bytes=_counter(state.rx_bytes),
        tx_bytes=_counter(state.tx_bytes),
        endpoint=_text(next(iter(state.peer.endpoints), ""))[:64],
    )


def _service(service: pb.ServiceStatus) -> ServiceHealth:
    return ServiceHealth(
        protocol=_PROTOCOLS[service.protocol],
        running=service.running,
        listening=service.listening,
        peer_count=service.peer_count,
        detail=_text(service.detail),
        newest_handshake_age_s=max(-1, service.newest_handshake_age_seconds),
        handshaking_peers=min(service.handshaking_peers, service.peer_count),
    )


def _public_key(text: str) -> str:
    if text and not validate.is_key(text):
        raise NodeMisbehaved("GetStatus: amneziawg.public_key is not a WireGuard key")
    return text


def _reality_key(text: str) -> str:
    """Devices are told it as it is, in documents and links of many programs. What is none is as if the node had none: its
    AmneziaWG is served all the same.
    """
    return text if _REALITY_KEY.fullmatch(text) else ""


def _obfuscation(message: pb.AmneziaWGObfuscation) -> Obfuscation:
    """A node tells it with every status, and it hardly ever changes: it is read and checked once, unless it is so large that
    keeping thousands of them would cost memory.
    """
    encoded = message.SerializeToString()
    return _known_obfuscation(encoded) if len(encoded) <= _SMALL else _read_obfuscation(message)


@lru_cache(maxsize=8192)
def _known_obfuscation(encoded: bytes) -> Obfuscation:
    return _read_obfuscation(pb.AmneziaWGObfuscation.FromString(encoded))


def _read_obfuscation(message: pb.AmneziaWGObfuscation) -> Obfuscation:
    found = Obfuscation(**{name: getattr(message, name) for name in _OBFUSCATION_FIELDS})
    if found == Obfuscation():
        return found
    try:
        if any(len(i) > 4096 for i in (found.i1, found.i2, found.i3, found.i4, found.i5)):
            raise NodeMisbehaved("GetStatus: amneziawg.obfuscation has texts of over 4096 characters")
        return validate.obfuscation("amneziawg.obfuscation", found)
    except InvalidInput as error:
        raise NodeMisbehaved(f"GetStatus: {error}") from None


def _seconds(stamp: Timestamp, otherwise: float) -> float:
    """Epoch seconds; ``otherwise`` for what lies before 1970 or after 2400."""
    seconds = float(stamp.seconds + stamp.nanos / 1e9)
    return seconds if 0 <= seconds <= _LATEST else otherwise


def _handshake(state: pb.PeerState) -> float:
    return _seconds(state.last_handshake, 0.0) if state.HasField("last_handshake") else 0.0


def _is_peer_key(protocol: Protocol, text: str) -> bool:
    if protocol is Protocol.AMNEZIAWG:
        return validate.is_key(text)
    try:
        validate.uuid("key", text)
    except InvalidInput:
        return False
    return True


def _text(text: str) -> str:
    """Printable, and not longer than anybody wants to read. What was changed can be seen: a key with a line break in it
    must not pass for the key without.
    """
    cut = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in cut)
