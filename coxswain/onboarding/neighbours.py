"""A node and a relay on one machine: their ports must differ, and by default they do not (fleet-model.md 12 D 30)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from coxswain.errors import Conflict
from coxswain.inventory import CONTROL_PORT
from coxswain.messages import fleet
from coxswain.messages import servers as m
from coxswain.servers import Relay, Server

__all__ = ["CLIENT_PORT", "Ask", "check_node_beside_relays", "check_relay_beside_nodes", "relay_ports"]

CLIENT_PORT = 8443
"""Where devices reach a relay (relay-contract.md 7.3)."""

_XRAY_PORT = 443


class Ask(Protocol):
    """Asks an actor, within a deadline of its own: that of a request, or of a step."""

    def __call__(self, actor: str, message: Any, /) -> Any: ...


def relay_ports(endpoint: str, egress_endpoint: str, onion_endpoint: str) -> list[int]:
    """The TCP ports that a relay with these roles listens on; empty endpoints are roles that it does not have."""
    ports = [int(at.rpartition(":")[2]) for at in (endpoint, egress_endpoint, onion_endpoint) if at]
    return [CLIENT_PORT, *ports] if endpoint else ports


def check_relay_beside_nodes(ask: Ask, server: Server, ports: Iterable[int]) -> None:
    """Raises ``Conflict``: a node on this machine has one of ``ports``."""
    views: list[fleet.NodeView] = ask("fleet", fleet.ListNodes(server_id=server.id))
    for view in views:
        control = int(view.node.control_addr.rpartition(":")[2] or CONTROL_PORT)
        taken = sorted({control, _XRAY_PORT} & set(ports))
        if taken:
            raise Conflict(
                f"server {server.name}: the node {view.node.name} listens there on TCP port {taken[0]}, as the relay would",
                remedy="Give the relay other ports: --endpoint HOST:PORT, --egress-port, --onion-port; or --no-ingress.",
            )


def check_node_beside_relays(ask: Ask, server: Server) -> None:
    """Raises ``Conflict``: a relay on this machine has a port that a node needs."""
    relays: list[Relay] = ask("servers", m.ListRelays())
    for relay in relays:
        if relay.server_id != server.id:
            continue
        taken = {CONTROL_PORT, _XRAY_PORT} & set(relay_ports(relay.endpoint, relay.egress_endpoint, relay.onion_endpoint))
        if taken:
            raise Conflict(
                f"server {server.name}: the relay {relay.name} listens there on TCP port {min(taken)}, as the node would",
                remedy="Set the relay up again with other ports (cox relays add), or take another machine.",
            )
