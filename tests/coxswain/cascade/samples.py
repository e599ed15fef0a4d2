"""Nodes, links and paths for the tests of the cascade."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from coxswain.cascade.resources import link_mtu
from coxswain.cascade.types import Binding, NodeLink, Path
from coxswain.cascade.wiring import Cascade, wire
from coxswain.model import Node, Obfuscation


def key(name: object) -> str:
    return base64.b64encode(hashlib.sha256(str(name).encode()).digest()).decode()


def obfuscation(number: int = 0, *, s4: int = 40) -> Obfuscation:
    return Obfuscation(4, 40, 900, 20, 30, 25, s4, 10 + number, 20 + number, 30 + number, 40 + number)


def node(name: str, **more: object) -> Node:
    number = sum(map(ord, name))
    made = Node(
        id=f"nod_{name}",
        name=name,
        control_addr=f"198.51.100.{number % 250}:8444",
        endpoint_ips=(f"203.0.113.{number % 250}",),
        wg_public_key=key(name),
        obfuscation=obfuscation(number),
    )

    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


NODES: Mapping[str, Node] = {f"nod_{name}": node(name) for name in "eabcd"}


def path(name: str, hops: str) -> Path:
    return Path(f"pth_{name}", name, tuple(f"nod_{hop}" for hop in hops))


def links_for(*paths: Path, nodes: Mapping[str, Node] = NODES) -> list[NodeLink]:
    """As the fleet makes them: the lowest free place on each dialling node."""
    made: dict[tuple[str, str], NodeLink] = {}
    for found in paths:
        for dialer, target in found.edges:
            if (dialer, target) not in made:
                index = sum(edge[0] == dialer for edge in made)
                at = nodes[target]
                ident = f"nlk_{dialer[4:]}{target[4:]}"
                made[dialer, target] = NodeLink(
                    ident, dialer, target, index, link_mtu(at), at.obfuscation, key(f"psk {ident}")
                )
    return list(made.values())


def bound(device: str, path: Path, address: str, **more: object) -> Binding:
    return Binding(device, device, path.id, addresses={path.entry: (address,)}, **more)  # type: ignore[arg-type]


def wired(paths: Sequence[Path], *bindings: Binding, nodes: Mapping[str, Node] = NODES) -> Cascade:
    return wire(nodes, links_for(*paths, nodes=nodes), {p.id: p for p in paths}, bindings)
