"""What may be written into a node's configuration: checks that controller and agent share.

A malformed key, a bad CIDR or a newline in a field poisons the conf of an agent that does not look (node-contract.md
4.4), so the controller checks before every push (11.4, rule 1) and our agent checks before it touches anything (9.2).

Every function takes the name of the field and the value, returns the value, and raises ``InvalidInput`` naming both and
what would do. A preshared key's value is never in a message.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from coxswain.errors import InvalidInput
from coxswain.model import Obfuscation

__all__ = [
    "CLIENT_INTERFACE",
    "KEY",
    "V4",
    "allowed_ips",
    "cidr",
    "endpoint",
    "flow",
    "interface",
    "key",
    "obfuscation",
    "port",
    "preshared_key",
    "printable",
    "short_id",
    "uint32",
    "uuid",
]

CLIENT_INTERFACE = "awg0"
"""The interface that clients come in on (node-contract.md 6.3); an inner link may not be called so (4.12)."""

KEY = r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
"""Of 32 bytes, as a pattern. The last character carries four bits, and two that must be zero: two texts of one key would be
two peers.
"""
_KEY = re.compile(KEY)

_V4_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
V4 = rf"{_V4_BYTE}(?:\.{_V4_BYTE}){{3}}"
"""An IPv4 address, as a pattern."""
_V4_ADDRESS = re.compile(rf"{V4}(?:/32)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_INTERFACE = re.compile(r"[a-zA-Z0-9_=+][a-zA-Z0-9_=+.-]{0,14}")
_CIDR = re.compile(r"[0-9a-fA-F.:]+(/[0-9]{1,3})?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SHORT_ID = re.compile(r"(?:[0-9a-fA-F]{2}){0,8}")
_FLOWS = ("", "xtls-rprx-vision")


def _shown(value: str) -> str:
    return ascii(value if len(value) <= 80 else value[:77] + "...")


def printable(field: str, value: str) -> str:
    """No control characters, no line or paragraph separators: the value stays on its line of a conf."""
    if not value.isprintable():
        raise InvalidInput(f"{field}: {_shown(value)} has control characters")
    return value


def is_key(value: str) -> bool:
    """Whether it is a WireGuard public key: canonical base64 of 32 bytes."""
    return _KEY.fullmatch(value) is not None


def key(field: str, value: str) -> str:
    """A WireGuard public key: canonical base64 of 32 bytes."""
    if not is_key(value):
        raise InvalidInput(f"{field}: {_shown(value)} is not a WireGuard key: 44 characters, base64 of 32 bytes")
    return value


def preshared_key(field: str, value: str) -> str:
    """A preshared key, or empty for none."""
    if value and not is_key(value):
        raise InvalidInput(f"{field}: is not a preshared key: 44 characters, base64 of 32 bytes, or empty")
    return value


def cidr(field: str, value: str) -> str:
    """An IPv4 or IPv6 network or address; host bits may be set, a zone or a dotted mask may not."""
    if _V4_ADDRESS.fullmatch(value):  # nearly all of them; the long way takes fifty times as long
        return value
    try:
        well_formed = bool(_CIDR.fullmatch(value) and ipaddress.ip_interface(value))
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidInput(f"{field}: {_shown(value)} is not an address or CIDR such as 10.7.0.2/32")
    return value


def allowed_ips(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """Each entry a CIDR; an empty list is a peer that may send nothing."""
    return tuple(
        value if _V4_ADDRESS.fullmatch(value) else cidr(f"{field}[{position}]", value)
        for position, value in enumerate(values)
    )


def endpoint(field: str, value: str) -> str:
    """``host:port``, ``1.2.3.4:port`` or ``[v6]:port``; or empty for none."""
    if not value:
        return value
    host, colon, number = value.rpartition(":")
    if not colon or not _is_host(host) or not _is_port(number):
        raise InvalidInput(f"{field}: {_shown(value)} is not an endpoint: host:port, with an IPv6 host in brackets")
    return value


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def _is_host(host: str) -> bool:
    try:
        if host.startswith("[") and host.endswith("]"):
            return "%" not in host and bool(ipaddress.IPv6Address(host[1:-1]))
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        labels = host.removesuffix(".").split(".")
        # Something like 1.2.3 or 10.0.0.256 is a mistyped address and no name.
        return 0 < len(host) <= 253 and not labels[-1].isdigit() and all(_LABEL.fullmatch(label) for label in labels)


def uuid(field: str, value: str) -> str:
    """A VLESS client id. XRay takes any string of up to 30 bytes and makes *another* UUID of it (node-contract.md 8.3),
    so only the hyphenated form will do.
    """
    if not _UUID.fullmatch(value):
        raise InvalidInput(f"{field}: {_shown(value)} is not a UUID such as 0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55")
    return value


def flow(field: str, value: str) -> str:
    """A VLESS flow."""
    if value not in _FLOWS:
        raise InvalidInput(f"{field}: {_shown(value)} is not a flow: empty, or xtls-rprx-vision")
    return value


def short_id(field: str, value: str) -> str:
    """A REALITY short id: up to 16 hex digits, an even number of them; empty is one, too."""
    if not _SHORT_ID.fullmatch(value):
        raise InvalidInput(f"{field}: {_shown(value)} is not a short id: 0 to 16 hex digits, an even number")
    return value


def interface(field: str, value: str) -> str:
    """The name of an inner link. It becomes part of file paths and of argv, so no leading dot or dash."""
    if not _INTERFACE.fullmatch(value):
        raise InvalidInput(
            f"{field}: {_shown(value)} is not an interface name: 1 to 15 letters, digits or _=+.- "
            "not starting with a dot or dash"
        )
    if value == CLIENT_INTERFACE:
        raise InvalidInput(f"{field}: {CLIENT_INTERFACE} is the clients' interface, not an inner link")
    if value == "awg":
        # Its revision file would be awg-revision, which is the clients' (node-contract.md 3.4).
        raise InvalidInput(f"{field}: 'awg' is taken; awg1 would do")
    return value


def port(field: str, value: int, *, zero: bool = False) -> int:
    """A TCP or UDP port. ``zero``: 0 is accepted and means any."""
    if not (0 if zero else 1) <= value <= 65535:
        raise InvalidInput(f"{field}: {value} is not a port: {0 if zero else 1} to 65535")
    return value


def uint32(field: str, value: int) -> int:
    """A number that fits the wire's uint32."""
    if not 0 <= value <= 0xFFFF_FFFF:
        raise InvalidInput(f"{field}: {value} is out of range: 0 to 4294967295")
    return value


def obfuscation(field: str, value: Obfuscation) -> Obfuscation:
    """The rules of node-contract.md 6.2 that a set must keep wherever it comes from; nothing else is checked there."""
    headers = (value.h1, value.h2, value.h3, value.h4)
    for position, header in enumerate(headers, 1):
        if uint32(f"{field}.h{position}", header) < 5:
            raise InvalidInput(f"{field}.h{position}: {header} is taken by plain WireGuard; 5 or more would do")
    if len(set(headers)) != 4:
        raise InvalidInput(f"{field}: h1 to h4 must be four different numbers, not {headers}")
    if value.jmin > value.jmax:
        raise InvalidInput(f"{field}.jmin: {value.jmin} is more than jmax {value.jmax}")
    if value.s2 == value.s1 + 56:
        raise InvalidInput(f"{field}.s2: {value.s2} is s1 + 56, which makes the first two packets of one size")
    for name in ("jc", "jmin", "jmax", "s1", "s2", "s3", "s4"):
        uint32(f"{field}.{name}", getattr(value, name))
    for name in ("i1", "i2", "i3", "i4", "i5"):
        printable(f"{field}.{name}", getattr(value, name))
    return value
