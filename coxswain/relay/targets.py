"""Where an egress or onion relay connects to: the target line, and which targets an operator allows."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from coxswain.errors import InvalidInput, Refused
from coxswain.relay.byte_stream import SocketStream

__all__ = ["DIAL_S", "AllowList", "dial", "parse_target"]

DIAL_S = 15.0
"""Seconds for a relay's onward connection, names included (relay-contract.md 5.2, 6.3)."""

MAX_TARGET = 255

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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


@dataclass(frozen=True)
class _Rule:
    """``network`` None: any host, or the one that is called ``name``. ``port`` 0: any."""

    network: _Network | None
    name: str
    port: int


class AllowList:
    """What ``--allow`` says: each entry ``host``, ``network``, ``*``, each with ``:port`` or without. Empty: everything.

    A name is allowed as it is written; an address or network also when a name leads there. So that no name leads to
    somewhere else between look and dial, the addresses that were looked at are the ones that are dialled.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        """Raises ``InvalidInput`` for an entry that cannot be understood."""
        self._rules = tuple(_rule(entry) for entry in entries)

    def permits(self, host: str, address: str, port: int) -> bool:
        """May ``address``, which ``host`` stands for, be dialled?"""
        if not self._rules:
            return True
        ip = ipaddress.ip_address(address.partition("%")[0])
        return any(self._fits(rule, host, ip, port) for rule in self._rules)

    @staticmethod
    def _fits(rule: _Rule, host: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
        if rule.port not in (0, port):
            return False
        if rule.network is not None:
            return ip in rule.network
        return rule.name in ("*", host.lower().rstrip("."))


def _rule(entry: str) -> _Rule:
    text, port = entry.strip(), 0
    try:
        return _Rule(ipaddress.ip_network(text, strict=False), "", 0)
    except ValueError:
        pass
    head, colon, digits = text.rpartition(":")
    if colon and digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 65535:
        text, port = head.removeprefix("[").removesuffix("]"), int(digits)
        try:
            return _Rule(ipaddress.ip_network(text, strict=False), "", port)
        except ValueError:
            pass
    if not text or any(character in text for character in ":/ []"):
        raise InvalidInput(f"allow: {entry[:80]!r} is not host, address, network or *, each with :port or without")
    return _Rule(None, text.lower().rstrip("."), port)


async def dial(target: str, allowed: AllowList, within_s: float = DIAL_S) -> SocketStream:
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
            raise Refused("target: is not one of those that --allow names")
        failure: OSError = ConnectionRefusedError("no address")
        for address in addresses:
            try:
                return SocketStream(*await asyncio.open_connection(address, port))
            except OSError as error:
                failure = error
        raise failure
