"""Where an egress or onion relay connects to: the target line, and which targets are allowed.

An operator says so (``--allow``), or the controller (``coxswain.relay.policy``). Under an existing controller, which says
nothing of the kind, a relay connects where it is asked to (``WHERE_ASKED``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Protocol

from coxswain.errors import InvalidInput, Refused
from coxswain.relay.byte_stream import SocketStream

__all__ = ["DIAL_S", "WHERE_ASKED", "AllowList", "Allowed", "dial", "parse_target"]

DIAL_S = 15.0
"""Seconds for a relay's onward connection, names included (relay-contract.md 5.2, 6.3)."""

MAX_TARGET = 255

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_THIS_HOST = tuple(map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.0/8", "::/127")))
"""Loopback, and the unspecified addresses, which connect to this host as well."""

_LINK_LOCAL_OR_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local; most clouds' metadata service is 169.254.169.254
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # of Azure
        "192.0.0.192/32",  # of Oracle Cloud
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "fd00:ec2::254/128",  # metadata of AWS
        "fe80::/10",
        "ff00::/8",
    )
)
_PRIVATE_TO_HOST = _THIS_HOST + _LINK_LOCAL_OR_METADATA
"""What only this host can reach, and what gives away its identity: never dialled for a name, a wide network or ``*``."""


def parse_target(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``, as it comes in a CONNECT line or an onion layer; host and port.

    Raises:
        InvalidInput: anything else; the text is not repeated.
    """
    host, colon, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    sound = host.isascii() and host.isprintable() and " " not in host
    if not (colon and host and sound and digits.isascii() and digits.isdigit() and len(digits) <= 5):
        raise InvalidInput("target: is not host:port")
    port = int(digits)
    if not 1 <= port <= 65535:
        raise InvalidInput("target: its port is not one of 1 to 65535")
    return host, port


class Allowed(Protocol):
    """Says where a relay may connect."""

    def permits(self, host: str, address: str, port: int) -> bool:
        """May ``address``, which ``host`` stands for, be dialled?"""
        ...


class AllowList:
    """Entries are ``host``, ``network`` or ``*``, each with ``:port`` or without. None: nothing is allowed.

    A name is allowed as it is written; an address or network also when a name leads there. So that no name leads to
    somewhere else between look and dial, the addresses that were looked at are the ones that are dialled. Loopback,
    link-local and metadata addresses are allowed only where an entry is such an address, a network of them, or
    ``localhost``: whoever holds a name could else lead it there.
    """

    def __init__(self, entries: Sequence[str], *, anywhere: bool = False) -> None:
        """``anywhere``: as ``*`` among the entries. Raises ``InvalidInput`` for an entry that cannot be understood."""
        self._single: set[tuple[str | _Address, int]] = set()  # port 0: any
        self._networks: list[tuple[_Network, int]] = []
        for entry in ("*", *entries) if anywhere else entries:
            what, port = _rule(entry)
            if isinstance(what, str):
                self._single.add((what, port))
            elif what.num_addresses == 1:
                self._single.add((_plain(what.network_address), port))
            else:
                self._networks.append((what, port))

    def permits(self, host: str, address: str, port: int) -> bool:
        """May ``address``, which ``host`` stands for, be dialled?"""
        ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
        name = host.lower().rstrip(".")
        private = [network for network in _PRIVATE_TO_HOST if ip in network]
        if self._single & {(ip, port), (ip, 0)}:
            return True
        if name == "localhost" and ip.is_loopback and self._single & {(name, port), (name, 0)}:
            return True
        for network, wanted in self._networks:
            if wanted in (0, port) and ip in network and (not private or any(_within(network, p) for p in private)):
                return True
        return not private and bool(self._single & {(name, port), (name, 0), ("*", port), ("*", 0)})


class _WhereAsked:
    """Wherever the controller says, as the contract has it (relay-contract.md 5.2, 6.3): this host as well, where a node may
    stand beside the relay. What gives away the host's identity is no target of any controller.
    """

    def permits(self, _host: str, address: str, _port: int) -> bool:
        ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
        return not any(ip in network for network in _LINK_LOCAL_OR_METADATA)


WHERE_ASKED: Allowed = _WhereAsked()


def _plain(ip: _Address) -> _Address:
    """An IPv4 address that is written as an IPv6 one is itself."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _within(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _rule(entry: str) -> tuple[str | _Network, int]:
    """Name, network or ``*``; and a port, or 0 for any."""
    text, port = entry.strip(), 0
    try:
        return ipaddress.ip_network(text, strict=False), 0
    except ValueError:
        pass
    head, colon, digits = text.rpartition(":")
    if colon and digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535:
        text, port = head.removeprefix("[").removesuffix("]"), int(digits)
        try:
            return ipaddress.ip_network(text, strict=False), port
        except ValueError:
            pass
    if not text or any(character in text for character in ":/ []"):
        raise InvalidInput(f"allow: {entry[:80]!r} is not host, address, network or *, each with :port or without")
    return text.lower().rstrip("."), port


async def dial(target: str, allowed: Allowed, within_s: float = DIAL_S) -> SocketStream:
    """Connects to where ``target`` says.

    Raises:
        InvalidInput: it is none.
        Refused: it is not allowed.
        OSError: nobody answers there; ``TimeoutError`` among them.
    """
    host, port = parse_target(target)
    async with asyncio.timeout(within_s):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(where[0]) for _, _, _, _, where in found if allowed.permits(host, str(where[0]), port)]
        if not addresses:
            raise Refused("target: is not one of those that are allowed")
        failure: OSError = ConnectionRefusedError("no address")
        for address in addresses:
            try:
                return SocketStream(*await asyncio.open_connection(address, port))
            except OSError as error:
                failure = error
        raise failure
