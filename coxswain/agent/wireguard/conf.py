"""The conf of an interface: what is written, what is read back, what plain tools are given (node-contract.md 6.4).

The format is shared with the existing agent, so that a host can change agents in place. Values come back as they were
written, as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from coxswain.agent.dataplane import DataPlaneFailed, PeerConfig
from coxswain.model import Obfuscation

__all__ = ["COMMENT", "ConfError", "InterfaceBlock", "parse_block", "parse_peers", "render", "render_peers", "render_plain"]

COMMENT = "# Written by the node agent. Changes made here are lost."

_NUMBERS = ("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4")
_TEXTS = ("i1", "i2", "i3", "i4", "i5")


class ConfError(DataPlaneFailed):
    """A conf cannot be read. Names the line by number only: it could hold a key."""


@dataclass(frozen=True, slots=True)
class InterfaceBlock:
    """The ``[Interface]`` section. ``routed``: False writes ``Table = off``, as inner links have it."""

    private_key: str = field(repr=False)
    listen_port: int
    mtu: int
    obfuscation: Obfuscation
    routed: bool = True


def render(block: InterfaceBlock, peers: Iterable[PeerConfig]) -> str:
    """The conf as it is on disk: the order of lines is part of the contract."""
    return "\n".join([COMMENT, *_interface_lines(block)]) + "\n" + render_peers(peers)


def render_plain(block: InterfaceBlock, peers: Iterable[PeerConfig], *, obfuscated: bool) -> str:
    """What ``setconf`` and ``syncconf`` take when there is no ``awg-quick strip``: without MTU and Table.

    Args:
        obfuscated: False leaves the keys out that only AmneziaWG knows.
    """
    lines = ["[Interface]", f"PrivateKey = {block.private_key}", f"ListenPort = {block.listen_port}"]
    if obfuscated:
        lines += _obfuscation_lines(block.obfuscation)
    return "\n".join(lines) + "\n" + render_peers(peers)


def render_peers(peers: Iterable[PeerConfig]) -> str:
    """What ``addconf`` takes."""
    return "".join("\n".join(["", *_peer_lines(peer), ""]) for peer in peers)


def _interface_lines(block: InterfaceBlock) -> list[str]:
    return [
        "[Interface]",
        f"PrivateKey = {block.private_key}",
        f"ListenPort = {block.listen_port}",
        f"MTU = {block.mtu}",
        *([] if block.routed else ["Table = off"]),
        *_obfuscation_lines(block.obfuscation),
    ]


def _obfuscation_lines(obfuscation: Obfuscation) -> list[str]:
    numbers = [f"{name.capitalize()} = {getattr(obfuscation, name)}" for name in _NUMBERS]
    return numbers + [f"{name.capitalize()} = {text}" for name in _TEXTS if (text := getattr(obfuscation, name))]


def _peer_lines(peer: PeerConfig) -> list[str]:
    return [
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        *([f"PresharedKey = {peer.preshared_key}"] if peer.preshared_key else []),
        *([f"AllowedIPs = {', '.join(peer.allowed_ips)}"] if peer.allowed_ips else []),
        *([f"Endpoint = {peer.endpoint}"] if peer.endpoint else []),
    ]


@lru_cache(maxsize=4)  # one change reads the conf before and the one after several times, and the next change the latter
def parse_peers(text: str) -> tuple[PeerConfig, ...]:
    """The ``[Peer]`` sections in their order.

    Raises:
        ConfError: a line of a peer has no ``=``, or a peer has no public key.
    """
    sections: list[tuple[int, dict[str, str]]] = []
    for number, section, line in _lines(text):
        if section != "peer":
            continue
        if not line:
            sections.append((number, {}))
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfError(f"line {number} of the conf is no setting")
        values = sections[-1][1]
        name, value = name.strip().lower(), value.strip()
        # Several lines of allowed IPs add up, as the tools have it.
        values[name] = f"{values[name]},{value}" if name == "allowedips" and name in values else value
    return tuple(_peer(number, values) for number, values in sections)


def _peer(number: int, values: dict[str, str]) -> PeerConfig:
    if not values.get("publickey"):
        raise ConfError(f"the peer at line {number} of the conf has no public key")
    allowed = tuple(text for part in values.get("allowedips", "").split(",") if (text := part.strip()))
    return PeerConfig(values["publickey"], allowed, values.get("presharedkey", ""), values.get("endpoint", ""))


@lru_cache(maxsize=4)
def parse_block(text: str) -> InterfaceBlock:
    """The ``[Interface]`` section, to compare it with the intended one. Raises ``ConfError``."""
    values: dict[str, str] = {}
    for _, section, line in _lines(text):
        name, equals, value = line.partition("=")
        if section == "interface" and equals:
            values[name.strip().lower()] = value.strip()
    try:
        obfuscation: dict[str, Any] = {name: int(values.get(name, "0")) for name in _NUMBERS}
        port, mtu = int(values.get("listenport", "0")), int(values.get("mtu", "0"))
    except ValueError:
        raise ConfError("the interface section of the conf has a number that is none") from None
    obfuscation |= {name: values.get(name, "") for name in _TEXTS}
    routed = values.get("table", "auto").lower() != "off"
    return InterfaceBlock(values.get("privatekey", ""), port, mtu, Obfuscation(**obfuscation), routed)


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Line numbers from 1, the section in lower case, and the stripped line; empty for the head of a section."""
    section = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = line.strip("[]").strip().lower()
            line = ""
        yield number, section, line
