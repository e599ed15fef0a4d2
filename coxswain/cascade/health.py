"""Whether an inner link carries: no agent tells, but both of its ends can be watched (fleet-model.md 12, 25). Pure.

The node that is dialled shows the handshakes of its edge peers. The node that dials shows which clients are there whose
traffic goes into the link. A link into which somebody sends shakes hands within seconds; one into which nobody does is idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Protocol

from coxswain.model import Peer
from coxswain.netpolicy import Transit
from coxswain.reconcile.types import ObservedPeer

__all__ = ["FRESH_S", "LinkHealth", "Seen", "edges_seen", "health", "links_in_use", "said_of_down"]

FRESH_S = 180.0
"""A peer that shook hands within it is there (node-contract.md 5.4)."""

_LOOKS_S = 120.0
"""By how much looks at both ends, and a client that just went away, may mislead."""


class LinkHealth(StrEnum):
    """``unknown``: not looked at yet."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    UP = "up"
    DOWN = "down"


def edges_seen(intended: Iterable[Peer], observed: Sequence[ObservedPeer], skew_s: float) -> tuple[tuple[str, float], ...]:
    """Of each edge peer its link's id and its last handshake, epoch seconds by our clock; 0: never."""
    keys = {peer.public_key: peer.id for peer in intended if not peer.device_id}
    if not keys:
        return ()
    found = ((keys[peer.public_key], peer.counters.last_handshake) for peer in observed if peer.public_key in keys)
    return tuple(sorted((link, at - skew_s if at else 0.0) for link, at in found))


def links_in_use(
    transits: Sequence[Transit], observed: Iterable[ObservedPeer], skew_s: float, now: float
) -> tuple[str, ...]:
    """The interfaces into which somebody's traffic goes who is there. ``now``: epoch seconds by our clock."""
    if not transits:
        return ()
    there: set[str] = set()
    for peer in observed:
        if peer.counters.last_handshake and now - (peer.counters.last_handshake - skew_s) < FRESH_S:
            there |= peer.allowed_ips
    return tuple(sorted({transit.inner_interface for transit in transits if transit.device_cidr in there}))


def health(in_use_since: float | None, handshake_at: float | None, now: float) -> LinkHealth:
    """How a link is.

    Args:
        in_use_since: since when somebody's traffic goes into it, epoch seconds; None: nobody's does.
        handshake_at: its last handshake, epoch seconds; 0: never; None: its exit was not looked at.
        now: epoch seconds.
    """
    if handshake_at is None:
        return LinkHealth.UNKNOWN
    if now - handshake_at < FRESH_S:
        return LinkHealth.UP
    if in_use_since is None or now - in_use_since < FRESH_S or now - handshake_at < FRESH_S + _LOOKS_S:
        return LinkHealth.IDLE
    return LinkHealth.DOWN


class Seen(Protocol):
    """A link with the names of its ends."""

    @property
    def entry(self) -> str: ...
    @property
    def exit(self) -> str: ...
    @property
    def health(self) -> LinkHealth: ...


def said_of_down(links: Iterable[Seen]) -> tuple[str, ...]:
    """A sentence for each link that is down."""
    return tuple(
        f"the link from {link.entry} to {link.exit} is down: clients use it, and it has shaken no hands for minutes"
        for link in links
        if link.health is LinkHealth.DOWN
    )
