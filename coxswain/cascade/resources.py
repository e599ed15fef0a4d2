"""What a link needs: a place on the node that dials it, an MTU, an endpoint; and which paths can be built at all.

All of it raises ``InvalidInput`` or ``Conflict`` with the way out, before anything is stored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from coxswain.cascade.types import NodeLink
from coxswain.errors import Conflict, InvalidInput
from coxswain.model import Node, Obfuscation
from coxswain.wire import validate
from coxswain.words import counted

__all__ = [
    "CLIENT_PORT",
    "LEAST_MTU",
    "MAX_FALLBACKS",
    "MAX_HOPS",
    "check_color",
    "check_fallbacks",
    "check_hops",
    "check_joint",
    "client_mtu",
    "endpoint",
    "free_index",
    "index_of",
    "link_mtu",
    "names_of",
    "path_mtu",
]

MAX_HOPS = 3
"""Two segments (fleet-model.md 2.7)."""

MAX_FALLBACKS = 4
"""Exits that stand ready beside a path's own; each costs a link on the node before the exit."""

CLIENT_PORT = 443
"""UDP port of awg0 on every node (node-contract.md 6.3)."""

UPLINK_MTU = 1500
LEAST_MTU = 1280
"""What IPv6 asks of every link (RFC 8200, section 5)."""

_MOST_MTU = 1420
_MAX_INDEX = 65_535 - 51_820
_NO_NAMES: Mapping[str, str] = MappingProxyType({})
_COLOR = re.compile(r"[0-9a-f]{6}|[0-9a-f]{3}")
_INTERFACE = re.compile(r"awg([1-9][0-9]{0,4})")


def check_hops(hops: Sequence[str], names: Mapping[str, str] = _NO_NAMES) -> tuple[str, ...]:
    """2 or 3 different nodes, given as ids; ``names``: what an operator calls them."""
    if not 2 <= len(hops) <= MAX_HOPS:
        raise InvalidInput(f"node_ids: {counted(len(hops), 'node')} cannot make a path; 2 or {MAX_HOPS} can, entry first")
    if len(set(hops)) != len(hops):
        twice = next(hop for hop in hops if hops.count(hop) > 1)
        raise InvalidInput(f"node_ids: {names.get(twice, twice)[:80]!r} comes twice; a path visits each of its nodes once")
    return tuple(hops)


def check_fallbacks(hops: Sequence[str], fallbacks: Sequence[str], names: Mapping[str, str] = _NO_NAMES) -> tuple[str, ...]:
    """Up to ``MAX_FALLBACKS`` other nodes, given as ids; ``names``: what an operator calls them."""
    if len(fallbacks) > MAX_FALLBACKS:
        raise InvalidInput(f"fallback_ids: {len(fallbacks)} are too many; a path has at most {MAX_FALLBACKS}")
    for place, node_id in enumerate(fallbacks):
        if node_id in hops or node_id in fallbacks[:place]:
            called = names.get(node_id, node_id)[:80]
            raise InvalidInput(
                f"fallback_ids: {called!r} is a node of the path already; a fallback is another node, named once"
            )
    return tuple(fallbacks)


def check_color(color: str) -> str:
    """``#rrggbb``, which may be given without its ``#`` or in three digits (fleet-model.md 6.9: hex), or empty for one that
    the dashboard chooses.
    """
    digits = color.strip().lower().removeprefix("#")
    if color.strip() and not _COLOR.fullmatch(digits):
        raise InvalidInput(f"color: {color[:40]!r} is not a colour such as #4fd1c4; empty lets the dashboard choose")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    return digits and f"#{digits}"


def endpoint(node: Node) -> str:
    """Where other nodes dial it, ``host:443``; empty if no address of it is known (fleet-model.md 2.5, 6.4)."""
    address = next(iter(node.endpoint_ips), "") or node.public_ip
    if not address:
        return ""
    return f"[{address}]:{CLIENT_PORT}" if ":" in address else f"{address}:{CLIENT_PORT}"


def link_mtu(target: Node) -> int:
    """Bytes that fit one packet to ``target`` without being cut: each carries headers and ``S4`` bytes of noise.

    Every node unpacks and packs again, so hops do not add up. 60 bytes over IPv4, 80 over IPv6 (fleet-model.md 12, 24).
    """
    over_v6 = endpoint(target).startswith("[")
    return min(_MOST_MTU, UPLINK_MTU - (80 if over_v6 else 60) - target.obfuscation.s4)


def client_mtu(obfuscation: Obfuscation) -> int:
    """What passes a client's uplink with the noise that the node adds: over IPv6, as nobody knows by what a client comes
    (node-contract.md 6.3).
    """
    return max(LEAST_MTU, min(_MOST_MTU, UPLINK_MTU - 80 - obfuscation.s4))


def path_mtu(nodes: Sequence[Node]) -> int:
    """For the client of a path over these nodes, the entry first: the least of all hops, its own to the entry among them."""
    return min(client_mtu(nodes[0].obfuscation), *(link_mtu(node) for node in nodes))


def check_joint(dialer: Node, target: Node) -> None:
    """Can ``dialer`` have a link to ``target``? Raises ``Conflict`` naming what is missing, and of whom."""
    for node in (dialer, target):
        if not node.control_addr:
            raise Conflict(f"node {node.name}: has no control address yet", remedy=f"See: cox nodes show {node.name}")
        if not node.wg_public_key:
            raise Conflict(
                f"node {node.name}: its AmneziaWG key is not known yet",
                remedy="It is read when the node is first reached; see: cox nodes list",
            )
    if not endpoint(target):
        raise Conflict(
            f"node {target.name}: no address is known at which node {dialer.name} could dial it",
            remedy=f"Set one: cox nodes endpoints {target.name} ADDRESS",
        )
    if target.obfuscation == Obfuscation():
        raise Conflict(f"node {target.name}: it reported no obfuscation", remedy="Its agent is too old; upgrade it.")
    validate.obfuscation(f"node {target.name}: obfuscation", target.obfuscation)
    if link_mtu(target) < LEAST_MTU:
        raise Conflict(
            f"node {target.name}: with S4 of {target.obfuscation.s4} at {endpoint(target)} only {link_mtu(target)} bytes "
            f"fit a packet, and {LEAST_MTU} are needed",
            remedy="Give it an IPv4 endpoint, or set its agent up anew for another obfuscation.",
        )


def free_index(links: Iterable[NodeLink], held: Collection[str]) -> int:
    """The lowest place on a node that none of its ``links`` has, nor an interface that it still holds."""
    taken = {link.index for link in links} | {index for name in held if (index := index_of(name)) is not None}
    return next(index for index in range(_MAX_INDEX) if index not in taken)


def index_of(interface: str) -> int | None:
    """The place that goes with the name of an interface; None if it is none of ours."""
    match = _INTERFACE.fullmatch(interface)
    return int(match[1]) - 1 if match else None


def names_of(nodes: Mapping[str, Node], ids: Iterable[str]) -> str:
    """``a → b → c``."""
    return " → ".join(nodes[node_id].name if node_id in nodes else node_id for node_id in ids)
