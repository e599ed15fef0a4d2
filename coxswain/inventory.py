"""What may enter the inventory: pure checks of names, addresses and policies, each with an error that names the way out."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Sequence

from coxswain.errors import Conflict, InvalidInput
from coxswain.model import NetworkPolicy, Node
from coxswain.ports import PortRange
from coxswain.reality import reality_of

__all__ = [
    "AUTO",
    "CONTROL_PORT",
    "NODE_ACCOUNT",
    "check_decoy_site",
    "check_dialable",
    "check_endpoint_ips",
    "check_endpoint_ports",
    "check_name",
    "check_policy",
    "check_region",
    "check_runs",
    "host_of",
    "is_same_addr",
    "is_source",
    "parse_control_addr",
]

CONTROL_PORT = 8444
"""Where agents listen (node-contract.md 2.1)."""

NODE_ACCOUNT = "cox-node"
"""The system user that an agent of ours runs as on its host."""

AUTO = "auto"
"""In ``node.control_from``: the address from which a host sees this controller, or the last relay of its control path."""

_BROADCAST = ipaddress.IPv4Address(2**32 - 1)
_LONGEST_NAME = 100
_HOST_LABEL = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)$")


def check_name(name: str) -> str:
    """Returns ``name``, trimmed and in composed form (NFC): of a node, a machine, a relay, a path, which existing callers
    name as they like. Raises ``InvalidInput`` if it is none, or one that no path of a URL could ask for.
    """
    trimmed = unicodedata.normalize("NFC", name.strip(" "))
    if not trimmed or len(trimmed) > _LONGEST_NAME or not trimmed.isprintable() or "/" in trimmed or trimmed in {".", ".."}:
        raise InvalidInput(f"name: {name[:80]!r} is not a name: 1 to {_LONGEST_NAME} printable characters, no slash")
    return trimmed


def check_region(region: str) -> str:
    """Returns ``region``, which is free text; raises ``InvalidInput`` for control characters or more than 64."""
    if len(region) > 64 or not region.isprintable():
        raise InvalidInput(f"region: {region[:80]!r} is not a region: at most 64 printable characters")
    return region


def is_source(text: str) -> bool:
    """Whether it may stand in ``node.control_from``: ``auto``, an address or a network."""
    try:
        return text == AUTO or (ipaddress.ip_network(text) is not None and "%" not in text)
    except ValueError:
        return False


def parse_control_addr(text: str) -> str:
    """Normalises ``host``, ``host:port``, ``v6`` or ``[v6]:port`` to ``host:port``; the port defaults to 8444."""
    problem = InvalidInput(
        f"control_addr: {text[:120]!r} is not an address: a host name or IP, with :port if it is not {CONTROL_PORT}"
    )
    text = text.strip()
    try:
        if text.startswith("["):
            inner, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise problem
            host, port = str(ipaddress.IPv6Address(inner)), rest[1:]
        elif text.count(":") > 1:
            host, port = str(ipaddress.IPv6Address(text)), ""
        else:
            host, _, port = text.partition(":")
            if not _is_host(host) or (not port and text.endswith(":")):
                raise problem
    except ValueError:
        raise problem from None
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None if port else CONTROL_PORT
    if number is None or not 1 <= number <= 65535:
        raise problem
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def is_same_addr(one: str, other: str) -> bool:
    """Whether two normalised control addresses are one. Names are compared as names: nobody is asked what they lead to."""
    return one.lower() == other.lower()


def host_of(control_addr: str) -> str:
    """The host of a normalised control address, without brackets: the pinned name of the node's certificate."""
    return control_addr.rpartition(":")[0].strip("[]")


def check_endpoint_ips(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Trims, drops blanks and repeats, keeps the order; each must be an IP (fleet-model.md 2.5)."""
    cleaned: dict[str, None] = {}
    for address in addresses:
        if not address.strip():
            continue
        try:
            cleaned[str(ipaddress.ip_address(address.strip()))] = None
        except ValueError:
            raise InvalidInput(f"endpoint_ips: {address[:80]!r} is not an IP address") from None
    return tuple(cleaned)


def check_dialable(name: str, addresses: Sequence[str], *, known: Sequence[str] = ()) -> None:
    """``addresses`` are in their normal form, in the field ``name``. Those that are ``known`` are there already, and pass.

    Raises ``InvalidInput``: no client can dial one of them. What is private or loopback may be near enough to somebody.
    """
    for address in addresses:
        found = ipaddress.ip_address(address)
        found = getattr(found, "ipv4_mapped", None) or found
        what = "no address of a host" if found.is_unspecified else "a multicast address" if found.is_multicast else ""
        what = "the broadcast address" if found == _BROADCAST else what
        if what and address not in known:
            raise InvalidInput(
                f"{name}: {address} is {what}, which no client can dial",
                remedy="Give the address at which clients reach the node.",
            )


def check_decoy_site(text: str) -> str:
    """``host`` or ``host:port``, without blanks around it; empty stays empty. Raises ``InvalidInput``: also for an address,
    and for a name with a dot at its end, as TLS clients name hosts, and without it (RFC 6066, section 3).
    """
    site = text.strip()
    name = reality_of(site, field="decoy_site").server_names[0] if site else ""
    if name.startswith("[") or name.rpartition(".")[2].isdigit():
        raise InvalidInput(f"decoy_site: {name} is an address, and REALITY's clients ask for a host by its name")
    if name.endswith("."):
        raise InvalidInput(f"decoy_site: {name} ends with a dot, and REALITY's clients ask for it without")
    return site


def check_endpoint_ports(text: str) -> str:
    """A range of UDP ports in its one spelling, ``20000-29999``; empty stays empty."""
    return str(PortRange.parse("endpoint_ports", text) or "")


def check_runs(node: Node) -> None:
    """Before its agent is started anew. Raises ``Conflict``: it was stopped, and is not to serve again, out of reach as its
    link is closed, without anybody having said so.
    """
    if not node.enabled:
        raise Conflict(
            f"node {node.name}: is disabled, and its agent would be started",
            remedy=f"Start it first: cox nodes start {node.name}; or, if its onboarding failed, onboard it again.",
        )


def check_policy(policy: NetworkPolicy) -> NetworkPolicy:
    """Masquerade and isolation need forwarding (node-contract.md 7.2)."""
    for name in ("masquerade", "isolation"):
        if getattr(policy, name) and not policy.forwarding:
            raise InvalidInput(f"policy.{name}: needs forwarding; switch forwarding on, or {name} off")
    return policy


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        numeric = all(label.isdigit() for label in host.split("."))
        labels = host.removesuffix(".").split(".")
        return 0 < len(host) <= 253 and not numeric and all(_HOST_LABEL.fullmatch(label) for label in labels)
    return True
