"""What a node just told of itself, for people to read."""

from __future__ import annotations

import heapq

from coxswain.messages.links import PeerSeen, ServiceSeen
from coxswain.reconcile.types import Desired, Observed

__all__ = ["peers_seen", "services_seen"]

_MOST_PEERS = 100


def services_seen(observed: Observed) -> tuple[ServiceSeen, ...]:
    """Its data planes."""
    return tuple(
        ServiceSeen(
            protocol=service.protocol,
            running=service.running,
            listening=service.listening,
            peers=service.peer_count,
            handshaking=service.handshaking_peers,
            handshake_age_s=service.newest_handshake_age_s,
            detail=service.detail,
        )
        for service in observed.services
    )


def peers_seen(desired: Desired, observed: Observed, most: int = _MOST_PEERS) -> tuple[PeerSeen, ...]:
    """The ``most`` that were there last, the latest first, with whose they are."""
    owners = {peer.public_key: peer.device_id for peer in desired.peers}
    latest = heapq.nlargest(most, observed.peers or (), key=lambda peer: (peer.counters.last_handshake, peer.public_key))
    return tuple(
        PeerSeen(
            public_key=peer.public_key,
            device_id=owners.get(peer.public_key, ""),
            endpoint=peer.counters.endpoint,
            last_handshake=peer.counters.last_handshake,
            rx_bytes=peer.counters.rx_bytes,
            tx_bytes=peer.counters.tx_bytes,
        )
        for peer in latest
    )
