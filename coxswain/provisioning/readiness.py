"""Whether a node can serve devices yet, and where they reach it (fleet-model.md 2.5, 2.8)."""

from __future__ import annotations

from coxswain.model import Node, Obfuscation, Profile, Protocol
from coxswain.provisioning.offer import Offer, decoy

__all__ = ["ENTRY_PORT", "endpoints", "entry_points", "entry_ports", "is_ready", "offered", "server_name", "why_not"]

ENTRY_PORT = 443
"""awg0 binds one port, and so does REALITY, UDP and TCP (fleet-model.md 7)."""


def endpoints(node: Node) -> tuple[str, ...]:
    """The addresses at which clients reach the node: its pool, or else its public address."""
    return node.endpoint_ips or ((node.public_ip,) if node.public_ip else ())


def entry_points(node: Node, profile: Profile | None) -> tuple[str, ...]:
    """Those of the node's endpoints that a profile names; all of them if it names none, or none that is there."""
    pool = endpoints(node)
    wanted = () if profile is None else profile.entry_ips
    return tuple(ip for ip in pool if ip in wanted) or pool


def entry_ports(node: Node) -> tuple[int, int]:
    """The least and the greatest UDP port at which clients may dial its AmneziaWG, of which they choose any: those that were
    asked for, if its agent says that exactly these are in force. So a range that comes is not used before it is there, and
    one that goes is used no more.
    """
    if not node.endpoint_ports or node.endpoint_ports != node.mapped_ports:
        return ENTRY_PORT, ENTRY_PORT
    low, _, high = node.endpoint_ports.partition("-")
    return int(low), int(high)


def server_name(node: Node, offer: Offer) -> str:
    """The name by which clients ask for its REALITY."""
    return decoy(node.decoy_site or offer.decoy_site)[1]


def offered(protocol: Protocol, offer: Offer) -> bool:
    """Whether the fleet serves the protocol at all."""
    return offer.amneziawg if protocol is Protocol.AMNEZIAWG else offer.xray


def is_ready(node: Node, protocol: Protocol, offer: Offer) -> bool:
    return not why_not(node, protocol, offer)


def why_not(node: Node, protocol: Protocol, offer: Offer) -> str:
    """Why a device cannot be given this protocol on this node, as a sentence; empty: it can."""
    if not offered(protocol, offer):
        key = "protocols.amneziawg" if protocol is Protocol.AMNEZIAWG else "protocols.xray"
        return f"{key} is off"
    if not endpoints(node):
        return f"node {node.name} has no endpoint address; give it one: cox nodes endpoints {node.name} IP"
    if protocol is Protocol.AMNEZIAWG:
        if not node.wg_public_key or node.obfuscation == Obfuscation():
            return f"node {node.name} has not reported its AmneziaWG key yet"
        return ""
    return "" if node.xray_public_key else f"node {node.name} has not reported its REALITY key yet"
