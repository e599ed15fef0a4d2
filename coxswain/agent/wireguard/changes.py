"""What an interface has to be told so that it has the peers of a conf: nothing of what it has already.

``wg syncconf`` tells it everything, which leaves sessions alone, but not packets: the port is set anew, for which
wireguard-go opens another socket, and everybody's allowed IPs are taken away and given again.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from coxswain.agent.dataplane import PeerConfig
from coxswain.x25519 import clamped

__all__ = ["NO_PRESHARED_KEY", "Changes", "Settings", "as_shown", "changes", "read_settings"]

NO_PRESHARED_KEY = base64.b64encode(bytes(32)).decode()
"""What WireGuard takes for none. A conf without one leaves a peer the one that it has."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a running interface is set to. ``peers``: by public key."""

    private_key: str = field(repr=False)
    listen_port: int
    peers: Mapping[str, PeerConfig]


@dataclass(frozen=True, slots=True)
class Changes:
    """``changed``: new peers, and those to be otherwise, with the addresses that are theirs, and ``NO_PRESHARED_KEY``
    where one has to go. ``gone``: public keys.
    """

    changed: tuple[PeerConfig, ...]
    gone: tuple[str, ...]


def read_settings(dump: str) -> Settings | None:
    """What ``wg show IFACE dump`` says (node-contract.md 6.5).

    None: it is not what plain WireGuard writes, or the interface has a mark, which no conf of ours gives it.
    """
    first, *rest = (line.split("\t") for line in dump.splitlines() or [""])
    if len(first) != 4 or first[3] != "off" or any(len(columns) != 8 for columns in rest):
        return None
    if not (first[2].isascii() and first[2].isdigit()):
        return None
    peers = {}
    for public_key, preshared_key, endpoint, allowed_ips, *_ in rest:
        allowed = tuple(_said(allowed_ips).split(",")) if _said(allowed_ips) else ()
        peers[public_key] = PeerConfig(public_key, allowed, _said(preshared_key), _said(endpoint))
    return Settings(_said(first[0]), int(first[2]), peers)


def as_shown(private_key: str) -> str:
    """A conf's private key as an interface shows it."""
    return base64.b64encode(clamped(base64.b64decode(private_key))).decode()


def _said(column: str) -> str:
    return "" if column == "(none)" else column


def changes(live: Settings, peers: Iterable[PeerConfig]) -> Changes:
    """From what it is set to to ``peers``, in the order of their conf: an address of two is the last one's (contract 4.15).

    An endpoint that the conf does not name is where a peer was last heard of, and no difference.

    Raises:
        ValueError: an allowed IP is none.
    """
    wanted = {peer.public_key: peer for peer in peers}
    known = {address: address for peer in live.peers.values() for address in peer.allowed_ips}
    owners: dict[str, str] = {}
    for peer in wanted.values():
        for address in peer.allowed_ips:
            owners[known.get(address) or str(ipaddress.ip_network(address, strict=False))] = peer.public_key
    owned: dict[str, list[str]] = {}
    for address, owner in owners.items():
        owned.setdefault(owner, []).append(address)
    changed = []
    for key, peer in wanted.items():
        there, own = live.peers.get(key), owned.get(key, [])
        if (
            there is None
            or there.preshared_key != peer.preshared_key
            or (peer.endpoint and there.endpoint != peer.endpoint)
            or set(there.allowed_ips) != set(own)
        ):
            had = NO_PRESHARED_KEY if there is not None and there.preshared_key else ""
            changed.append(replace(peer, allowed_ips=tuple(own), preshared_key=peer.preshared_key or had))
    return Changes(tuple(changed), tuple(key for key in live.peers if key not in wanted))
