"""The canonical network policy: its validation and its rule strings (node-contract.md 7.2 and 7.3).

Pure. The controller's preview and the agent render with the same functions, because rule text is the contract between
them: byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from coxswain.errors import InvalidInput
from coxswain.ports import PortRange

__all__ = ["Policy", "Rules", "Transit", "check", "render", "resolve"]

INTERFACE_MARK = "%i"
"""Stands for the client interface."""

EGRESS_MARK = "%e"
"""Stands for the interface of the default route, found when the policy is applied."""


@dataclass(frozen=True, slots=True)
class Transit:
    """Sends what one device's address sends on through an inner link (node-contract.md 1.3)."""

    device_cidr: str
    inner_interface: str
    mark: int
    table: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node does with its clients' packets. The default does nothing at all.

    ``ports``: UDP ports that lead to the clients' interface besides its own. Not the contract's: only agents of ours do
    it, and no rule string says it.
    """

    forwarding: bool = False
    masquerade: bool = False
    isolation: bool = False
    transits: tuple[Transit, ...] = ()
    ports: PortRange | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The commands of one policy, in order; ``%i`` and ``%e`` are not resolved yet."""

    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()


def check(policy: Policy) -> Policy:
    """Returns ``policy``; raises ``InvalidInput`` for the first rule it breaks, in the contract's order."""
    for name in ("masquerade", "isolation"):
        if getattr(policy, name) and not policy.forwarding:
            raise InvalidInput(f"policy.{name}: needs forwarding")
    if policy.transits and not policy.forwarding:
        raise InvalidInput("policy.transits: need forwarding")
    for position, transit in enumerate(policy.transits):
        where = f"policy.transits[{position}]"
        if not transit.device_cidr:
            raise InvalidInput(f"{where}.device_cidr: is empty")
        if not transit.inner_interface:
            raise InvalidInput(f"{where}.inner_interface: is empty")
        if transit.mark == 0:
            raise InvalidInput(f"{where}.mark: 0 marks nothing; 1 to 4294967295 would do")
        if transit.table == 0:
            raise InvalidInput(f"{where}.table: 0 is no routing table; 1 to 4294967295 would do")
    return policy


def render(policy: Policy) -> Rules:
    """Renders a policy that passed ``check``. Without forwarding there are no rules."""
    if not policy.forwarding:
        return Rules()
    pre_up = ["sysctl -w net.ipv4.conf.all.forwarding=1", "sysctl -w net.ipv6.conf.all.forwarding=1"]
    if policy.transits:
        pre_up += ["sysctl -w net.ipv4.conf.all.rp_filter=0", "sysctl -w net.ipv4.conf.default.rp_filter=0"]
    post_up: list[str] = []
    post_down: list[str] = []
    if policy.isolation:
        post_up.append("iptables -I FORWARD 1 -i %i -o %i -j DROP")
        post_down.append("iptables -D FORWARD -i %i -o %i -j DROP")
    post_up += ["iptables -A FORWARD -i %i -j ACCEPT", "iptables -A FORWARD -o %i -j ACCEPT"]
    post_down += ["iptables -D FORWARD -i %i -j ACCEPT", "iptables -D FORWARD -o %i -j ACCEPT"]
    if policy.masquerade:
        post_up.append("iptables -t nat -A POSTROUTING -o %e -j MASQUERADE")
        post_down.append("iptables -t nat -D POSTROUTING -o %e -j MASQUERADE")
    for transit in policy.transits:
        mark = f"PREROUTING -i %i -s {transit.device_cidr} -j MARK --set-mark {transit.mark}"
        rule = f"fwmark {transit.mark} lookup {transit.table}"
        route = f"default dev {transit.inner_interface} table {transit.table}"
        post_up += [f"iptables -t mangle -A {mark}", f"ip rule add {rule}", f"ip route replace {route}"]
        post_down += [f"ip route del {route}", f"ip rule del {rule}", f"iptables -t mangle -D {mark}"]
    return Rules(tuple(pre_up), tuple(post_up), tuple(post_down))


def resolve(line: str, interface: str, egress: str) -> tuple[str, ...]:
    """One rule as the argv that is executed: marks filled in, split on white space (node-contract.md 7.4)."""
    return tuple(line.replace(INTERFACE_MARK, interface).replace(EGRESS_MARK, egress).split())
