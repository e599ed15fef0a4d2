"""The profile document: what a client reads, key by key as existing clients want it (accounts-profiles.md 4.2, 4.3).

Numbers are JSON integers, times RFC 3339 with a zone; a client drops the whole document for anything else.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coxswain.cascade.resources import client_mtu, path_mtu
from coxswain.model import Credential, Device, Node, Obfuscation, Peer, Profile, ProfileProtocol, Protocol
from coxswain.provisioning.offer import Offer
from coxswain.provisioning.readiness import ENTRY_PORT, endpoints, entry_points, entry_ports, server_name

__all__ = [
    "CLIENT_MTU",
    "OBFUSCATION_NUMBERS",
    "Grant",
    "address_v6",
    "document",
    "in_order",
    "mtu_of",
    "tunnel_ip_v6",
]

CLIENT_MTU = 1420
"""accounts-profiles.md 4.2."""

OBFUSCATION_NUMBERS = ("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4")

_EVERYTHING = ("0.0.0.0/0", "::/0")
_AUTO = {
    Protocol.AMNEZIAWG: ("auto-amneziawg", "All Nodes (AmneziaWG)", ProfileProtocol.AMNEZIAWG),
    Protocol.XRAY_REALITY: ("auto-xray-reality", "All Nodes (XRay/REALITY)", ProfileProtocol.XRAY_REALITY),
}
_VERSIONS = {Protocol.AMNEZIAWG: 2, Protocol.XRAY_REALITY: 1}
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Grant:
    """One credential, opened, with its peers and their nodes.

    Attributes:
        profile: None: every node.
        path: the name of the path that its traffic takes; empty: none.
        hops: the path's nodes, in order.
        fallbacks: nodes that may take the place of its exit. They are in no document; what passes them is.
    """

    credential: Credential
    private_key: str = field(repr=False)
    profile: Profile | None
    peers: Sequence[tuple[Node, Peer]]
    path: str = ""
    hops: Sequence[Node] = ()
    fallbacks: Sequence[Node] = ()

    @property
    def profile_id(self) -> str:
        return self.credential.profile_id


def in_order(grants: Iterable[Grant]) -> list[Grant]:
    """The oldest profile first, and in each of them the oldest node (accounts-profiles.md 6.2)."""

    def age(grant: Grant) -> tuple[float, str]:
        return (0.0, "") if grant.profile is None else (grant.profile.created_at, grant.profile.id)

    def node_age(pair: tuple[Node, Peer]) -> tuple[float, str]:
        return pair[0].created_at, pair[0].id

    return [replace(grant, peers=sorted(grant.peers, key=node_age)) for grant in sorted(grants, key=age)]


def document(device: Device, grants: Sequence[Grant], offer: Offer, now: float) -> dict[str, Any]:
    """The whole document of a device; it holds private keys."""
    found: dict[str, Any] = {
        "fleet_id": "",
        "user": device.user_id,
        "revision": device.profile_revision,
        "issued_at": dt.datetime.fromtimestamp(int(now), dt.UTC).isoformat().replace("+00:00", "Z"),
        "expires_at": _NEVER,
        "profiles": [profile for grant in grants for profile in _profiles(grant, offer)],
    }
    place = offer.place
    if place is not None:
        label = f"Controller · {place.city}" if place.city else "Controller"
        city = {"city": place.city} if place.city else {}
        found["control"] = {"label": label, **city, "lat": place.latitude, "lon": place.longitude}
    return found


def _profiles(grant: Grant, offer: Offer) -> list[dict[str, Any]]:
    if grant.profile is not None:
        profile = grant.profile
        return [_profile((profile.id, profile.name, profile.protocol), grant, grant.peers, offer)]
    by_protocol = {p: [pair for pair in grant.peers if pair[1].protocol is p] for p in Protocol}
    entry = replace(grant, path="", hops=(), fallbacks=())  # XRay goes no further (fleet-model.md 12, 21)
    return [
        _profile(_AUTO[p], grant if p is Protocol.AMNEZIAWG else entry, pairs, offer)
        for p, pairs in by_protocol.items()
        if pairs
    ]


def _profile(
    title: tuple[str, str, ProfileProtocol], grant: Grant, pairs: Sequence[tuple[Node, Peer]], offer: Offer
) -> dict[str, Any]:
    profile_id, name, protocol = title
    nodes: dict[str, tuple[Node, list[Peer]]] = {}
    for node, peer in pairs:
        nodes.setdefault(node.id, (node, []))[1].append(peer)
    found: dict[str, Any] = {
        "id": profile_id,
        "name": name,
        "protocol": protocol.value,
        "nodes": [_node(node, peers, grant, offer) for node, peers in nodes.values()],
    }
    if grant.hops:
        found["path"] = {"name": grant.path, "hops": [_hop(node, i, grant.hops) for i, node in enumerate(grant.hops)]}
    mtu = min((mtu_of(grant, node) for node, _ in nodes.values()), default=CLIENT_MTU)
    return found | ({"mtu": mtu} if mtu < CLIENT_MTU else {})


def mtu_of(grant: Grant, entry: Node) -> int:
    """What passes every hop from ``entry`` on (fleet-model.md 12 C 24)."""
    return min(path_mtu((*grant.hops, *grant.fallbacks)) if grant.hops else CLIENT_MTU, client_mtu(entry.obfuscation))


def _hop(node: Node, index: int, hops: Sequence[Node]) -> dict[str, Any]:
    role = "entry" if index == 0 else "exit" if index == len(hops) - 1 else "mid"
    return {"id": node.id, "name": node.name, "region": node.region, "role": role, "ips": list(endpoints(node))}


def _node(node: Node, peers: Sequence[Peer], grant: Grant, offer: Offer) -> dict[str, Any]:
    return {
        "id": node.id,
        "name": node.name,
        "region": node.region,
        "endpoints": list(entry_points(node, grant.profile)),
        "protocols": [
            {
                "type": "amneziawg" if peer.protocol is Protocol.AMNEZIAWG else "xray-reality",
                "v": _VERSIONS[peer.protocol],
                "params": _params(node, peer, grant, offer),
            }
            for peer in sorted(peers, key=lambda peer: peer.protocol)  # they lie in the store by their random ids
        ],
    }


def _params(node: Node, peer: Peer, grant: Grant, offer: Offer) -> dict[str, Any]:
    address = f"{grant.credential.address}/32"
    rotation = offer.rotation
    low, high = entry_ports(node) if peer.protocol is Protocol.AMNEZIAWG else (ENTRY_PORT, ENTRY_PORT)
    common = {
        "endpoints": [{"ip": ip, "port_min": low, "port_max": high} for ip in entry_points(node, grant.profile)],
        "rotation": {
            "enabled": rotation.enabled,
            "interval_seconds": rotation.interval_seconds,
            "jitter_seconds": rotation.jitter_seconds,
        },
        "allowed_ips": list(_EVERYTHING),
    }
    if peer.protocol is Protocol.AMNEZIAWG:
        return {
            "private_key": grant.private_key,
            "address": address,
            **({"address_v6": second} if (second := address_v6(peer)) else {}),
            "public_key": node.wg_public_key,
            "preshared_key": peer.preshared_key,
            **common,
            "obfuscation": _obfuscation(node.obfuscation),
        }
    return {
        "uuid": peer.public_key,
        "flow": peer.flow,
        "address": address,
        "public_key": node.xray_public_key,
        "server_name": server_name(node, offer),
        "short_id": "",
        "fingerprint": "chrome",
        **common,
    }


def address_v6(peer: Peer) -> str:
    """What it may send IPv6 from on its node, as a CIDR; empty: it may not. Existing clients read one address, of IPv4, and
    pass over a key that they do not know (accounts-profiles.md 4.2, 4.3), so this is a key of its own.
    """
    return next((address for address in peer.allowed_ips if ":" in address), "")


def tunnel_ip_v6(credential: Credential, peers: Iterable[Peer]) -> str:
    """The same of a credential, bare: on any of the nodes where it has ``peers``; empty: on none."""
    found = (address_v6(peer) for peer in peers if peer.credential_id == credential.id)
    return next(filter(None, found), "").removesuffix("/128")


def _obfuscation(value: Obfuscation) -> dict[str, Any]:
    numbers = {name: int(getattr(value, name)) for name in OBFUSCATION_NUMBERS}
    texts = {name: getattr(value, name) for name in ("i1", "i2", "i3", "i4", "i5") if getattr(value, name)}
    return numbers | texts
