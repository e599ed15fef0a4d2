"""Where relays have to connect for their controller, and no further: from the inventory and the control paths, per relay.

A relay learns by its policy what it would learn as a hop, and not more: the hop after it, or what the last one leads to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coxswain.control_path.model import ControlPath
from coxswain.inventory import host_of
from coxswain.model import Node
from coxswain.servers import Relay, RelayKind, Server, relay_host

__all__ = ["Allowance", "Allowances", "allowances"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of one relay. ``program``: its version; another one may take policies where the one before took none."""

    targets: frozenset[str] = frozenset()
    program: str = ""


class Allowances:
    """All relays' as they are now: written by ``servers``, read on the I/O loop. Every method is safe on every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Mapping[str, Allowance] | None = None
        self._listeners: list[Callable[[], object]] = []

    def on_change(self, listener: Callable[[], object]) -> None:
        """Is called on the thread of ``set``; must not block."""
        self._listeners.append(listener)

    def set(self, found: Mapping[str, Allowance]) -> None:
        with self._lock:
            changed, self._known = found != self._known, found
        if changed:
            for listener in self._listeners:
                listener()

    def of(self, relay_id: str) -> Allowance | None:
        """None: not known yet, or no relay of the inventory."""
        with self._lock:
            return None if self._known is None else self._known.get(relay_id)


def allowances(
    paths: Iterable[ControlPath], relays: Sequence[Relay], nodes: Iterable[Node], servers: Iterable[Server]
) -> dict[str, Allowance]:
    """By relay id, of every relay with an egress role. On no path: nothing; what is asked for by ``--via`` is told then."""
    known = {relay.id: relay for relay in relays}
    machines = list(servers)
    beyond = frozenset(n.control_addr for n in nodes if n.control_addr) | {_ssh_of(s) for s in machines if not s.is_self}
    found: dict[str, set[str]] = {r.id: set() for r in relays if r.kind is RelayKind.REMOTE and r.egress_endpoint}
    for path in paths:
        for position, relay_id in enumerate(path.hops):
            if relay_id not in found:
                continue
            following = known.get(path.hops[position + 1]) if position + 1 < len(path.hops) else None
            if following is not None:
                found[relay_id] |= _hop_and_its_machine(following, machines)
            elif position + 1 == len(path.hops):
                found[relay_id] |= beyond
    return {relay_id: Allowance(frozenset(targets), known[relay_id].agent_version) for relay_id, targets in found.items()}


def _hop_and_its_machine(relay: Relay, servers: Iterable[Server]) -> set[str]:
    """SSH to a hop goes by the hops before it (``Route.before``)."""
    endpoints = {e for e in (relay.egress_endpoint, relay.onion_endpoint) if e}
    hosts = {host_of(endpoint) for endpoint in endpoints} | {relay_host(relay)}
    return endpoints | {_ssh_of(s) for s in servers if s.ssh_host in hosts or s.id == relay.server_id}


def _ssh_of(server: Server) -> str:
    host = f"[{server.ssh_host}]" if ":" in server.ssh_host else server.ssh_host
    return f"{host}:{server.ssh_port}"
