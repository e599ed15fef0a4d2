"""What an operator can hand to a client by hand: an AmneziaWG conf, a ``.pharos`` file, a VLESS link."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from coxswain.accounts.container import write_plain
from coxswain.errors import Conflict
from coxswain.messages.accounts import Exported, ExportFormat
from coxswain.model import Device, Node, Peer, Protocol
from coxswain.provisioning.document import OBFUSCATION_NUMBERS, Grant, address_v6, document, mtu_of
from coxswain.provisioning.offer import Offer
from coxswain.provisioning.readiness import ENTRY_PORT, entry_points, server_name

__all__ = ["Grant", "conf", "export", "file_name"]

_KEEPALIVE_S = 25
"""accounts-profiles.md 4.2."""


def export(kind: ExportFormat, device: Device, grants: Sequence[Grant], offer: Offer, now: float) -> Exported:
    """Raises ``Conflict`` if the device has nothing of that kind. A conf and a link are of the first node that has it."""
    if kind is ExportFormat.PHAROS:
        return Exported(f"{file_name(device.name)}.pharos", write_plain(document(device, grants, offer, now)))
    protocol = Protocol.AMNEZIAWG if kind is ExportFormat.CONF else Protocol.XRAY_REALITY
    ways = [
        (grant, node, peer)
        for grant in grants
        for node, peer in grant.peers
        if peer.protocol is protocol and entry_points(node, grant.profile)
    ]
    if ways:
        grant, node, peer = ways[0]
        text = conf(grant, node, peer) if kind is ExportFormat.CONF else _vless(grant, node, peer, offer)
        suffix = "conf" if kind is ExportFormat.CONF else "txt"
        also = tuple(dict.fromkeys(other.name for _, other, _ in ways if other.id != node.id))
        name = f"{file_name(f'{device.name}-{node.name}')}.{suffix}"
        goes_on = kind is ExportFormat.CONF and grant.hops  # XRay goes no further (fleet-model.md 12, 21)
        return Exported(name, text, also=also, leaves_at="" if goes_on else node.id)
    deaf = next((node for grant in grants for node, peer in grant.peers if peer.protocol is protocol), None)
    if deaf is not None:
        raise Conflict(
            f"device {device.id} has keys on node {deaf.name}, which has no endpoint address",
            remedy=f"Give it one: cox nodes endpoints {deaf.name} IP",
        )
    word = "AmneziaWG" if protocol is Protocol.AMNEZIAWG else "XRay"
    raise Conflict(f"device {device.id} has no {word} keys", remedy="See: cox profiles list")


def conf(grant: Grant, node: Node, peer: Peer) -> str:
    """A conf for ``awg-quick``: all traffic, to the first endpoint (node-contract.md 6.2 to 6.4)."""
    host = entry_points(node, grant.profile)[0]
    endpoint = f"[{host}]" if ":" in host else host
    values = node.obfuscation
    lines = [
        "[Interface]",
        f"PrivateKey = {grant.private_key}",
        f"Address = {', '.join(filter(None, (f'{grant.credential.address}/32', address_v6(peer))))}",
        f"MTU = {mtu_of(grant, node)}",
        *(f"{name.capitalize()} = {getattr(values, name)}" for name in OBFUSCATION_NUMBERS),
        *(f"{name.capitalize()} = {text}" for name in ("i1", "i2", "i3", "i4", "i5") if (text := getattr(values, name))),
        "",
        "[Peer]",
        f"PublicKey = {node.wg_public_key}",
        *([f"PresharedKey = {peer.preshared_key}"] if peer.preshared_key else []),
        "AllowedIPs = 0.0.0.0/0, ::/0",
        f"Endpoint = {endpoint}:{ENTRY_PORT}",
        f"PersistentKeepalive = {_KEEPALIVE_S}",
    ]
    return "\n".join(lines) + "\n"


def _vless(grant: Grant, node: Node, peer: Peer, offer: Offer) -> str:
    """The link that XRay clients import."""
    host = entry_points(node, grant.profile)[0]
    endpoint = f"[{host}]" if ":" in host else host
    query = {
        "type": "tcp",
        "security": "reality",
        "encryption": "none",
        "flow": peer.flow,
        "pbk": node.xray_public_key,
        "sni": server_name(node, offer),
        "sid": "",
        "fp": "chrome",
        "spx": "/",
    }
    return f"vless://{peer.public_key}@{endpoint}:{ENTRY_PORT}?{urlencode(query)}#{quote(node.name)}\n"


def file_name(text: str) -> str:
    """``text`` as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "profile"
