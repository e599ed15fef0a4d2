"""What changes for a device when it is provisioned: the difference between what it should have and what it has.

Keys and addresses of what does not change are kept, so that no live tunnel is cut and no client has to fetch anything
anew. A profile that cannot be served is left as it was, and said so; it never holds up the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coxswain.ids import new_id
from coxswain.model import Credential, Device, DeviceStatus, Node, Peer, Profile, ProfileProtocol, Protocol
from coxswain.provisioning.offer import Offer
from coxswain.provisioning.readiness import endpoints, is_ready, offered, why_not
from coxswain.reality import FLOW

__all__ = [
    "ALL_NODES",
    "Addresses",
    "Assignment",
    "Has",
    "PeerKey",
    "Place",
    "Skipped",
    "World",
    "addresses_by",
    "assign",
    "new_peers",
    "renumbered",
]

ALL_NODES = ""
"""The profile id of a device without profiles: it is given every node that is ready."""

Place = tuple[str, Protocol]
"""Where a credential has a peer: a node's id, and a protocol."""

Addresses = Callable[[Credential, str, Protocol], tuple[str, ...]]
"""The allowed IPs of a credential's peer on a node (its id)."""

PeerKey = tuple[str, Protocol, str]
"""What names a peer: node id, protocol, public key."""

_PROTOCOLS = {
    ProfileProtocol.AMNEZIAWG: (Protocol.AMNEZIAWG,),
    ProfileProtocol.XRAY_REALITY: (Protocol.XRAY_REALITY,),
    ProfileProtocol.BOTH: (Protocol.AMNEZIAWG, Protocol.XRAY_REALITY),
}


@dataclass(frozen=True, slots=True)
class World:
    """What does not depend on the device. ``entries``: the node at which each path begins, by path id."""

    nodes: Mapping[str, Node]
    entries: Mapping[str, str]
    offer: Offer


@dataclass(frozen=True, slots=True)
class Has:
    """What a device has. ``peers``: those that were made from a credential."""

    profiles: Sequence[Profile]
    credentials: Sequence[Credential]
    peers: Sequence[Peer]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A profile that cannot be served just now, or not in full. What it had, it keeps."""

    profile_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """What to do.

    Attributes:
        mint: profile ids that need keys and an address.
        adopt: credential id to the profile that has it from now on.
        drop: credentials to delete, with their peers.
        remove: peers to remove.
        places: where each profile should have peers.
        skipped: what could not be done.
    """

    mint: tuple[str, ...]
    adopt: dict[str, str]
    drop: tuple[str, ...]
    remove: tuple[PeerKey, ...]
    places: dict[str, tuple[Place, ...]]
    skipped: tuple[Skipped, ...]


def assign(device: Device, has: Has, world: World) -> Assignment:
    """See ``Assignment``. A suspended device is assigned like any other; whether its peers are on is not decided here."""
    if device.status == DeviceStatus.REVOKED:
        return Assignment((), {}, tuple(c.id for c in has.credentials), (), {}, ())
    known = {c.profile_id: c for c in has.credentials}
    peers_of: dict[str, list[Peer]] = {c.id: [] for c in has.credentials}
    for peer in has.peers:
        peers_of.setdefault(peer.credential_id, []).append(peer)
    # What is switched off for the whole fleet is kept nowhere.
    present = {
        c.profile_id: tuple((p.node_id, p.protocol) for p in peers_of[c.id] if offered(p.protocol, world.offer))
        for c in has.credentials
    }

    places: dict[str, tuple[Place, ...]] = {}
    skipped: list[Skipped] = []
    for profile in has.profiles:
        wanted, reason = _places(profile, present.get(profile.id, ()), world)
        if reason:
            skipped.append(Skipped(profile.id, profile.name, reason))
        if wanted or profile.id in known:
            places[profile.id] = wanted
    if not has.profiles:
        places[ALL_NODES] = _everywhere(present.get(ALL_NODES, ()), world)
    elif not places and ALL_NODES in known:
        places[ALL_NODES] = present[ALL_NODES]  # better what it had than nothing at all

    mint = [profile_id for profile_id in places if profile_id not in known]
    stale = [c for c in has.credentials if c.profile_id not in places]
    adopt: dict[str, str] = {}
    # From every node to a first profile and back: the tunnel that is up goes on.
    if mint and stale and ALL_NODES in (mint[0], stale[0].profile_id):
        adopt[stale[0].id] = mint.pop(0)
        del stale[0]
    owner = {c.id: adopt.get(c.id, c.profile_id) for c in has.credentials}
    gone = {c.id for c in stale}
    remove = [
        (peer.node_id, peer.protocol, peer.public_key)
        for credential_id, peers in peers_of.items()
        if credential_id not in gone
        for peer in peers
        if (peer.node_id, peer.protocol) not in places[owner[credential_id]]
    ]
    return Assignment(tuple(mint), adopt, tuple(gone), tuple(remove), places, tuple(skipped))


def new_peers(
    assignment: Assignment,
    credentials: Iterable[Credential],
    peers: Iterable[Peer],
    addresses: Addresses,
    new_key: Callable[[], str],
) -> list[Peer]:
    """The peers that are still missing.

    Args:
        assignment: what should be.
        credentials: as they are once ``mint`` and ``adopt`` are done.
        peers: as they are, before ``remove``.
        addresses: what each may send from.
        new_key: makes preshared keys.
    """
    there = {(p.credential_id, p.node_id, p.protocol) for p in peers}
    return [
        _peer(credential, node_id, protocol, addresses(credential, node_id, protocol), new_key)
        for credential in credentials
        for node_id, protocol in assignment.places.get(credential.profile_id, ())
        if (credential.id, node_id, protocol) not in there
    ]


def renumbered(credentials: Iterable[Credential], peers: Iterable[Peer], addresses: Addresses) -> list[Peer]:
    """Those of ``peers`` that are to have other addresses, with these; their keys stay, and so does their tunnel.

    Args:
        credentials: theirs; of those that are not here, nothing is said.
        peers: those that stay.
        addresses: what each may send from.
    """
    owners = {credential.id: credential for credential in credentials}
    pairs = ((peer, owners[peer.credential_id]) for peer in peers if peer.credential_id in owners)
    wanted = ((peer, addresses(credential, peer.node_id, peer.protocol)) for peer, credential in pairs)
    return [dataclasses.replace(peer, allowed_ips=now) for peer, now in wanted if peer.allowed_ips != now]


def addresses_by(world: World, taken: Container[str] = ()) -> Addresses:
    """An IPv4 address everywhere; an IPv6 one where AmneziaWG's packets can go on as IPv6 does, and on no other node.

    ``taken``: IPv6 addresses, as CIDRs, that peers made by hand have somewhere.
    """

    def addresses(credential: Credential, node_id: str, protocol: Protocol) -> tuple[str, ...]:
        node = world.nodes.get(node_id)
        second = f"{world.offer.address_v6(credential.address)}/128"
        if protocol is not Protocol.AMNEZIAWG or node is None or not node.tunnel_ipv6 or second == "/128" or second in taken:
            return (f"{credential.address}/32",)
        return f"{credential.address}/32", second

    return addresses


def _peer(
    credential: Credential, node_id: str, protocol: Protocol, allowed_ips: tuple[str, ...], new_key: Callable[[], str]
) -> Peer:
    xray = protocol is Protocol.XRAY_REALITY
    return Peer(
        id=new_id("peer"),
        node_id=node_id,
        device_id=credential.device_id,
        protocol=protocol,
        public_key=credential.uuid if xray else credential.wg_public_key,
        allowed_ips=allowed_ips,
        preshared_key="" if xray else new_key(),
        flow=FLOW if xray else "",
        credential_id=credential.id,
    )


def _places(profile: Profile, present: Sequence[Place], world: World) -> tuple[tuple[Place, ...], str]:
    """Where a profile's peers should be, and why not where it wants them. Nothing to be had: where they are now."""
    entry_id = profile.node_id or world.entries.get(profile.path_id, "")
    entry = world.nodes.get(entry_id)
    if entry is None:
        what = f"path {profile.path_id}" if profile.path_id else f"node {profile.node_id}"
        return tuple(present), f"{what} is not there"
    wanted: list[Place] = []
    reasons: list[str] = []
    for protocol in _PROTOCOLS[profile.protocol]:
        reason = why_not(entry, protocol, world.offer)
        place = (entry.id, protocol)
        if reason:
            reasons.append(reason)
        if not reason or place in present:
            wanted.append(place)
    if wanted or not any(offered(p, world.offer) for p in _PROTOCOLS[profile.protocol]):
        # XRay that is missing from "both" is how it is meant (accounts-profiles.md 6.2); anything else is worth a word.
        degraded = profile.protocol is ProfileProtocol.BOTH and (entry.id, Protocol.AMNEZIAWG) in wanted
        return tuple(wanted), "" if degraded else "; ".join(reasons)
    return tuple(present), "; ".join(reasons)


def _everywhere(present: Sequence[Place], world: World) -> tuple[Place, ...]:
    """Every node that is ready; and where there is a peer already, it stays."""
    kept = {p for p in present if p[0] in world.nodes}
    return tuple(
        (node.id, protocol)
        for node in world.nodes.values()
        for protocol in Protocol
        if (node.id, protocol) in kept or (endpoints(node) and is_ready(node, protocol, world.offer))
    )
