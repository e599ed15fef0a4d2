"""The text of our nftables table: a pure function of the policy, the egress interface and the links' MTUs.

What the rules do is what the canonical strings do (node-contract.md 7.3): isolation, forwarding, masquerade, marks. Beyond
them, where the contract's own list of gaps (7.9) leaves room:

- isolation holds for IPv6, also where a path would take a packet out and back in (a lookup of where its destination
  lives, whatever its mark), and for the node's own services;
- link-local addresses and the metadata services of clouds are out of reach for clients: such an address is not to be
  forwarded anyway (RFC 3927, section 7), and what answers there hands out the node's own credentials;
- clients' unique local IPv6 addresses are masqueraded;
- what a link carries is told to TCP, so that clients with a larger MTU do not depend on ICMP;
- a range of UDP ports leads to the port of the client interface, whether or not anything is forwarded.

An interface group switches the table off without naming it (``HANDOVER_GROUP``), but for the range of ports: what dials them
comes from outside, where no command of a stored policy can tell it. It goes on leading to where clients are served,
whichever agent serves them, until the host's next boot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from coxswain.agent.dataplane import CLIENT_INTERFACE, CLIENT_PORT
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange

__all__ = ["HANDOVER_GROUP", "NFT_TABLE", "Network", "ruleset", "sources"]

NFT_TABLE = "coxswain"
"""Name of our table in the ``inet`` family."""

HANDOVER_GROUP = 7199
"""Interface group that makes the table let everything of the client interface pass untouched.

The teardown commands of a stored policy may only be ``ip``, ``iptables`` and ``sysctl`` (node-contract.md 7.4), and none
of them removes a table. ``ip link set dev awg0 group 7199`` is one of them, so an existing agent that takes the host
over puts ours out of force by running what it finds in ``netpolicy.json``.
"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV4_UNREACHABLE = ("169.254.0.0/16", "100.100.100.200", "168.63.129.16")
"""Link-local with the metadata service of most clouds; that of Alibaba Cloud; the wire server of Azure."""

_IPV6_UNREACHABLE = ("fe80::/10", "fd00:ec2::254", "fd20:ce::254")
"""Link-local; the metadata services of AWS and of Google Cloud."""

_MASQUERADE_V6 = f'iifname "{CLIENT_INTERFACE}" ip6 saddr fc00::/7 oifname != "awg*" masquerade'
"""Clients' own, where it leaves this node for good: wherever the default route of IPv6 leads, but not by an inner link. Only
addresses that are no use on the internet (RFC 4193): a prefix that is routed to the node stays as it is.
"""

_TCP_OVERHEAD = {"ipv4": 40, "ipv6": 60}
"""Bytes of an IP header and a TCP header without options (RFC 9293, section 3.7.1)."""


def sources(transits: Iterable[Transit]) -> dict[int, tuple[Network, ...]]:
    """Networks by mark, each address in one of them at most.

    The last transit that covers an address has it, as with rules of which each marks anew.
    """
    last: dict[Network, tuple[int, int]] = {}
    for position, transit in enumerate(transits):
        last[ipaddress.ip_network(transit.device_cidr, strict=False)] = (position, transit.mark)
    lengths = {(network.version, network.prefixlen) for network in last}
    inside: dict[Network, list[Network]] = {}
    lost: set[Network] = set()
    for network, (position, _) in last.items():
        wider = [network.supernet(new_prefix=p) for v, p in lengths if v == network.version and p < network.prefixlen]
        for around in wider:
            if around in last:
                if last[around][0] > position:
                    lost.add(network)
                else:
                    inside.setdefault(around, []).append(network)
    marks: dict[int, list[Network]] = {}
    for network, (_, mark) in last.items():
        if network not in lost:
            holes = [hole for hole in inside.get(network, ()) if hole not in lost]
            marks.setdefault(mark, []).extend(_without(network, holes))
    return {mark: tuple(found) for mark, found in marks.items()}


def _without(network: Network, holes: Iterable[Network]) -> list[Network]:
    parts = [network]
    for hole in sorted(holes, key=lambda each: each.prefixlen):
        kept: list[Network] = []
        for part in parts:
            if hole.version == part.version and hole.subnet_of(part):  # type: ignore[arg-type]
                kept += part.address_exclude(hole)  # type: ignore[arg-type]
            else:
                kept.append(part)
        parts = kept
    return parts


def ruleset(policy: Policy, egress: str, mtus: Mapping[str, int] | None = None, *, lookups: bool = True) -> str:
    """The transaction that makes the table what a checked policy says, whether it is there or not.

    Args:
        egress: interface of the default route; only looked at if the policy masquerades.
        mtus: of the inner links, as far as known.
        lookups: False leaves out what needs the kernel's ``nft_fib``: of isolation the part for paths, and the range of
            ports, which without it would take what a host's containers send to such ports elsewhere.
    """
    # Adding it first makes the deletion work on a host that does not have it.
    lines = [f"table inet {NFT_TABLE} {{}}", f"delete table inet {NFT_TABLE}"]
    mapped = _mapping(policy.ports) if policy.ports is not None and lookups else []
    if not policy.forwarding and not mapped:
        return "\n".join(lines) + "\n"
    lines.append(f"table inet {NFT_TABLE} {{")
    if mapped:
        lines += _chain("ports", "type nat hook prerouting priority dstnat", mapped)
    if policy.forwarding:
        lines += _passing(policy, egress, mtus or {}, lookups=lookups)
    return "\n".join([*lines, "}"]) + "\n"


def _mapping(ports: PortRange) -> list[str]:
    """Of all that comes from outside for an address of the host's own: not what clients send, nor what arrives by links."""
    return [f'iifname != "awg*" fib daddr type local udp dport {ports} redirect to :{CLIENT_PORT}']


def _passing(policy: Policy, egress: str, mtus: Mapping[str, int], *, lookups: bool) -> list[str]:
    """Sets and chains for what clients send, and what is sent to them."""
    lines: list[str] = []
    marked = sources(policy.transits)
    for mark, networks in marked.items():
        for version in (4, 6):
            lines += _set(_set_name(mark, version), version, [n for n in networks if n.version == version])
    if policy.isolation:
        lines += _chain("input", "type filter hook input priority filter", _own_services())
    lines += _chain("forward", "type filter hook forward priority filter", _forward(policy, mtus, lookups=lookups))
    if policy.masquerade:
        rules = [f"iifgroup {HANDOVER_GROUP} return", f'meta nfproto ipv4 oifname "{egress}" masquerade', _MASQUERADE_V6]
        lines += _chain("postrouting", "type nat hook postrouting priority srcnat", rules)
    if marked:
        lines += _chain("prerouting", "type filter hook prerouting priority mangle", _marking(marked))
    return lines


def _own_services() -> list[str]:
    """Clients reach no service of the node through the tunnel; what they are told of their own packets they may answer."""
    return [
        f"iifgroup {HANDOVER_GROUP} return",
        f'iifname != "{CLIENT_INTERFACE}" return',
        "ct state established,related return",
        "meta l4proto { icmp, ipv6-icmp } return",
        "drop",
    ]


def _forward(policy: Policy, mtus: Mapping[str, int], *, lookups: bool) -> list[str]:
    client = f'"{CLIENT_INTERFACE}"'
    rules = [f"iifgroup {HANDOVER_GROUP} return", f"oifgroup {HANDOVER_GROUP} return"]
    for interface in dict.fromkeys(transit.inner_interface for transit in policy.transits):
        if interface in mtus:
            rules += _segments(interface, mtus[interface])
    rules += _only_by_their_links(policy.transits)
    if policy.isolation:
        rules.append(f"iifname {client} oifname {client} drop")
        if lookups:
            rules.append(f"iifname {client} fib daddr oifname {client} drop")
    rules.append(f"iifname {client} ip daddr {{ {', '.join(_IPV4_UNREACHABLE)} }} drop")
    rules.append(f"iifname {client} ip6 daddr {{ {', '.join(_IPV6_UNREACHABLE)} }} drop")
    return [*rules, f"iifname {client} accept", f"oifname {client} accept"]


def _only_by_their_links(transits: Iterable[Transit]) -> list[str]:
    """What is marked for a link leaves by it or not at all, whatever has become of rules and tables."""
    links: dict[int, dict[str, None]] = {}
    for transit in transits:
        links.setdefault(transit.mark, {})[f'"{transit.inner_interface}"'] = None
    return [
        f'iifname "{CLIENT_INTERFACE}" meta mark {mark} oifname != {{ {", ".join(names)} }} drop'
        for mark, names in links.items()
    ]


def _segments(interface: str, mtu: int) -> list[str]:
    """Both directions: each end tells the other how large its segments may be. The kernel only ever lowers it."""
    return [
        f'meta nfproto {family} {direction} "{interface}" tcp flags & syn == syn tcp option maxseg size set {mtu - overhead}'
        for family, overhead in _TCP_OVERHEAD.items()
        for direction in ("iifname", "oifname")
    ]


def _marking(marked: Mapping[int, tuple[Network, ...]]) -> list[str]:
    rules = [f"iifgroup {HANDOVER_GROUP} return"]
    for mark, networks in marked.items():
        for version, family in ((4, "ip"), (6, "ip6")):
            if any(network.version == version for network in networks):
                where = f'iifname "{CLIENT_INTERFACE}" {family} saddr @{_set_name(mark, version)}'
                rules.append(f"{where} meta mark set {mark}")
    return rules


def _set_name(mark: int, version: int) -> str:
    return f"mark{mark}_v{version}"


def _set(name: str, version: int, networks: list[Network]) -> list[str]:
    if not networks:
        return []
    elements = ", ".join(str(network) for network in networks)
    kind = f"type ipv{version}_addr; flags interval; auto-merge;"
    return [f"  set {name} {{", f"    {kind}", f"    elements = {{ {elements} }}", "  }"]


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", f"    {hook}; policy accept;", *(f"    {rule}" for rule in rules), "  }"]
