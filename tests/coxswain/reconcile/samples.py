"""Values that several test files of reconcile use."""

from __future__ import annotations

import base64
import hashlib

from coxswain.messages.sessions import PeerCounters
from coxswain.model import NetworkPolicy, Node, Obfuscation, Peer, Protocol
from coxswain.reconcile.codec import plain_ips, psk_digest
from coxswain.reconcile.desired import desired, policy_fingerprint
from coxswain.reconcile.types import Desired, LinkMemory, Observed, ObservedPeer, ServiceHealth

AWG = Protocol.AMNEZIAWG


def key(number: int | str) -> str:
    return base64.b64encode(hashlib.sha256(str(number).encode()).digest()).decode()


def peer(number: int, *, ips: tuple[str, ...] | None = None, psk: str = "") -> Peer:
    address = (f"10.7.{number // 250}.{number % 250 + 2}/32",)
    return Peer(f"per_{number}", "nod_a", f"dev_{number}", AWG, key(number), address if ips is None else ips, psk)


def wanted(*peers: Peer, revision: int = 5, policy: NetworkPolicy | None = None) -> Desired:
    state, findings = desired(Node("nod_a", "a", config_revision=revision, policy=policy or NetworkPolicy()), peers)
    assert findings == ()
    return state


def service(peer_count: int = 0, handshaking: int = 0, age: int = -1, *, running: bool = True) -> ServiceHealth:
    return ServiceHealth(AWG, running, running, peer_count, "", age, handshaking)


def shown(peer: Peer) -> ObservedPeer:
    """A peer as ListPeers has it."""
    counters = PeerCounters(AWG, peer.public_key, 0.0, 0, 0)
    return ObservedPeer(peer.public_key, plain_ips(peer.allowed_ips), psk_digest(peer.preshared_key), counters)


def seen(
    *peers: Peer,
    applied: int = 5,
    services: tuple[ServiceHealth, ...] | None = None,
    uptime: int = 100,
    asked: bool = True,
) -> Observed:
    """``services`` None: AmneziaWG runs, and what is configured is in force."""
    rows = tuple(shown(peer) for peer in peers) if asked else None
    if services is None:
        services = (service(len({peer.public_key for peer in peers})),)
    return Observed("v1", uptime, applied, services, key("node"), Obfuscation(), "", rows)


def confirmed(policy: NetworkPolicy | None = None, **more: object) -> LinkMemory:
    return LinkMemory(policy_fingerprint(policy or NetworkPolicy()), **more)  # type: ignore[arg-type]
