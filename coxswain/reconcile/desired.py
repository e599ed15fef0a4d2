"""What a node should be, from what the store says. Nothing that a node could choke on gets past here.

An existing agent writes what it is told straight into a conf that its next start must read (node-contract.md 4.4), so each
peer is checked before it may be pushed (11.4, rule 1). A bad one is left out and reported; the others go on.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence

from coxswain.errors import InvalidInput
from coxswain.model import NetworkPolicy, Node, Peer, Protocol
from coxswain.reconcile.codec import normal_ips, psk_digest
from coxswain.reconcile.types import Desired, Finding
from coxswain.wire import validate

__all__ = ["check_peer", "content_hash", "desired", "policy_fingerprint"]


_SHORTEST_PREFIX = {4: 8, 6: 16}
"""As wide as the widest private network, by version of IP."""


def check_peer(peer: Peer) -> Peer:
    """Returns ``peer``, or raises ``InvalidInput`` naming what is wrong with it; never shows a preshared key."""
    validate.printable("peer: id", peer.id)
    name = f"peer {peer.id}"
    match peer.protocol:
        case Protocol.AMNEZIAWG:
            validate.key(f"{name}: public_key", peer.public_key)
            validate.preshared_key(f"{name}: preshared_key", peer.preshared_key)
            if not peer.allowed_ips:
                raise InvalidInput(f"{name}: allowed_ips: is empty; the device's tunnel address is needed")
        case Protocol.XRAY_REALITY:
            validate.uuid(f"{name}: public_key", peer.public_key)
            validate.flow(f"{name}: flow", peer.flow)
    validate.allowed_ips(f"{name}: allowed_ips", peer.allowed_ips)
    for address in peer.allowed_ips:
        _check_width(f"{name}: allowed_ips", address)
    return peer


def _check_width(field: str, address: str) -> None:
    """The node routes what a peer may send into the tunnel: with half the world there, it cuts itself off, for good, as its
    conf outlives a reboot. What a device's own conf has as AllowedIPs, 0.0.0.0/0, is the usual way to get there.
    """
    network = ipaddress.ip_network(address, strict=False)
    shortest = _SHORTEST_PREFIX[network.version]
    if network.prefixlen < shortest:
        raise InvalidInput(
            f"{field}: {address} is wider than /{shortest}: the node would send everybody's traffic to this peer, "
            "and be out of reach; the device's own tunnel address is needed here"
        )


def desired(node: Node, peers: Sequence[Peer], before: Desired | None = None) -> tuple[Desired, tuple[Finding, ...]]:
    """Builds the desired state of ``node``; findings name what was left out. Peers that were in the one ``before`` need no
    second check: of a change to a thousand nodes, that check was a quarter of the cost.

    Of two peers with one key the first counts. Of two that claim one address, the one written last owns it on the node
    (node-contract.md 4.15); which one that is must not depend on luck, so the later one is left out.
    """
    known = {} if before is None else dict(zip(before.peers, before.addresses, strict=True))
    kept: dict[Peer, frozenset[str]] = {}
    findings: list[Finding] = []
    keys: set[tuple[Protocol, str]] = set()
    owners: dict[str, str] = {}
    for peer in peers:
        addresses = known.get(peer)
        if addresses is None:
            try:
                check_peer(peer)
            except InvalidInput as error:
                findings.append(Finding(f"left out: {error}", degraded=True))
                continue
            addresses = normal_ips(peer.allowed_ips) if peer.protocol is Protocol.AMNEZIAWG else frozenset()
        taken = sorted(address for address in addresses if address in owners)
        if (peer.protocol, peer.public_key) in keys:
            findings.append(Finding(f"left out: peer {peer.id}: its key is in the list already", degraded=True))
        elif taken:
            findings.append(Finding(f"left out: peer {peer.id}: {taken[0]} is peer {owners[taken[0]]}'s", degraded=True))
        else:
            keys.add((peer.protocol, peer.public_key))
            owners.update(dict.fromkeys(addresses, peer.id))
            kept[peer] = addresses
    state = Desired(node.id, max(1, node.config_revision), tuple(kept), node.policy, tuple(kept.values()))
    return state, tuple(findings)


def policy_fingerprint(policy: NetworkPolicy) -> str:
    """Names a policy by its content."""
    return _digest({"forwarding": policy.forwarding, "masquerade": policy.masquerade, "isolation": policy.isolation})


def content_hash(state: Desired) -> str:
    """Names a desired state by its content, whatever its revision; stands beside the counter, which alone proves nothing."""
    peers = [
        [p.protocol.value, p.public_key, sorted(normal_ips(p.allowed_ips)), psk_digest(p.preshared_key).hex(), p.flow]
        for p in state.peers
    ]
    return _digest({"peers": peers, "policy": policy_fingerprint(state.policy)})


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
