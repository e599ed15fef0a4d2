"""Machines and relays as plain values, and what may be said of them (fleet-model.md 2.3, 2.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coxswain.errors import InvalidInput
from coxswain.inventory import host_of, parse_control_addr

__all__ = ["Relay", "RelayKind", "Server", "check_ssh_host", "check_ssh_port", "check_ssh_user", "relay_host"]

_USER = re.compile(r"^[a-z_][a-z0-9_.-]{0,31}\$?$")


@dataclass(frozen=True, slots=True)
class Server:
    """One machine.

    Attributes:
        ssh_host_key: pinned, ``<type> <base64>``; empty for the controller's own machine.
        offered_host_key: another one that it showed since and that was refused; empty: none.
        facts: what was found there: ``os``, ``arch``, ``kernel``, …
    """

    id: str
    name: str
    ssh_host: str
    ssh_user: str = "root"
    ssh_port: int = 22
    ssh_host_key: str = ""
    offered_host_key: str = ""
    region: str = ""
    is_self: bool = False
    status: str = "active"
    facts: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0


class RelayKind(StrEnum):
    """Inside the daemon, or on a machine of its own."""

    EMBEDDED = "embedded"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay; up to three roles, each with an endpoint ``host:port`` or empty (fleet-model.md 2.6).

    Attributes:
        endpoint: the reverse tunnel that the controller dials.
        egress_endpoint: hop of the control path.
        egress_hop: its place in the default order, from 1; 0: none.
        onion_endpoint: with ``onion_pubkey`` (base64 X25519).
        hostname: the name in its certificate.
    """

    id: str
    name: str
    kind: RelayKind = RelayKind.REMOTE
    endpoint: str = ""
    egress_endpoint: str = ""
    egress_hop: int = 0
    onion_endpoint: str = ""
    onion_pubkey: str = ""
    hostname: str = ""
    region: str = ""
    server_id: str = ""
    agent_version: str = ""
    status: str = "pending"
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0


def relay_host(relay: Relay) -> str:
    """Host of its first endpoint (management-plane.md 3.3)."""
    for endpoint in (relay.endpoint, relay.egress_endpoint, relay.onion_endpoint):
        if endpoint:
            return host_of(endpoint)
    return ""


def check_ssh_host(host: str) -> str:
    """A name or an address, without port or brackets."""
    try:
        return host_of(parse_control_addr(f"[{host}]" if ":" in host else host))
    except InvalidInput:
        raise InvalidInput(f"ssh_host: {host[:120]!r} is not a host name or IP address") from None


def check_ssh_user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise InvalidInput(f"ssh_user: {user[:80]!r} is not a user name")
    return user


def check_ssh_port(port: int) -> int:
    """0 means 22 (fleet-model.md 3.2)."""
    if not 0 <= port <= 65_535:
        raise InvalidInput(f"ssh_port: {port} is not within 1 to 65535")
    return port or 22
