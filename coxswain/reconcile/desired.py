"""What a node should be, from what the store says. Nothing that a node could choke on gets past here.

An existing agent writes what it is told straight into a conf that its next start must read (node-contract.md 4.4), so each
peer is checked before it may be pushed (11.4, rule 1). A bad one is left out and reported; the others go on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import operator
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from coxswain.cascade.types import NodeCascade
from coxswain.errors import InvalidInput
from coxswain.fingerprints import of_policy
from coxswain.model import NetworkPolicy, Node, Peer, Protocol
from coxswain.netpolicy import Policy, Transit
from coxswain.ports import PortRange
from coxswain.reality import Reality
from coxswain.reconcile.codec import normal_ips, psk_digest
from coxswain.reconcile.types import Desired, Finding, XrayInbound
from coxswain.wire import validate

__all__ = ["check_peer", "desired", "policy_fingerprint"]


_DERIVED = r"fd[0-9a-f]{2}:(?:[1-9a-f][0-9a-f]{0,3}:){2,3}:[1-9a-f][0-9a-f]{0,3}:(?:0|[1-9a-f][0-9a-f]{0,3})/128"
"""IPv6 addresses as devices are given them (``Offer.address_v6``), in the one spelling that stands for them."""

_PLAIN = re.compile(rf"1\n{validate.KEY}\n{validate.V4}/32\n(?:{validate.KEY})?\n")
"""What ``_mark`` names a peer by, where it is of the usual form: AmneziaWG, one IPv4 address, a preshared key or none."""

_PLAIN_BOTH = re.compile(rf"1\n{validate.KEY}\n{validate.V4}/32\n{_DERIVED}\n(?:{validate.KEY})?\n")
"""The same with an IPv6 address besides."""

_ONE_ADDRESS = re.compile(r"[0-9.]+(/32)?")
"""Of what is a network at all: one IPv4 address, as nearly all of them are."""

_ID = operator.attrgetter("id")

_SHORTEST_PREFIX = {4: 8, 6: 16}
"""As wide as the widest private network, by version of IP."""


def check_peer(peer: Peer) -> Peer:
    """Returns ``peer``, or raises ``InvalidInput`` naming what is wrong with it; never shows a preshared key."""
    validate.printable("peer: id", peer.id)
    name = f"peer {peer.id}"
    match peer.protocol:
        case Protocol.AMNEZIAWG:
            validate.key(f"{name}: public_key", peer.public_key)
            validate.preshared_key(f"{name}: preshared_key", peer.preshared_key)
            if not peer.allowed_ips:
                raise InvalidInput(f"{name}: allowed_ips: is empty; the device's tunnel address is needed")
        case Protocol.XRAY_REALITY:
            validate.uuid(f"{name}: public_key", peer.public_key)
            validate.flow(f"{name}: flow", peer.flow)
    validate.allowed_ips(f"{name}: allowed_ips", peer.allowed_ips)
    for address in peer.allowed_ips:
        if not _ONE_ADDRESS.fullmatch(address):
            _check_width(f"{name}: allowed_ips", address)
    return peer


def _check_width(field: str, address: str) -> None:
    """The node routes what a peer may send into the tunnel: with half the world there, it cuts itself off, for good, as its
    conf outlives a reboot. What a device's own conf has as AllowedIPs, 0.0.0.0/0, is the usual way to get there.
    """
    network = ipaddress.ip_network(address, strict=False)
    shortest = _SHORTEST_PREFIX[network.version]
    if network.prefixlen < shortest:
        raise InvalidInput(
            f"{field}: {address} is wider than /{shortest}: the node would send everybody's traffic to this peer, "
            "and be out of reach; the device's own tunnel address is needed here"
        )


def desired(
    node: Node,
    peers: Sequence[Peer],
    before: Desired | None = None,
    *,
    cascade: NodeCascade = NodeCascade(),  # noqa: B008 - frozen
    reality: Reality | None = None,
) -> tuple[Desired, tuple[Finding, ...]]:
    """Builds the desired state of ``node``; findings name what was left out. Peers that were in the one ``before`` need no
    second check: of a change to a thousand nodes, that check was a quarter of the cost.

    Of two peers with one key the first counts. Of two that claim one address, the one written last owns it on the node
    (node-contract.md 4.15); which one that is must not depend on luck, so the later one is left out. An edge peer comes
    last of all and takes its addresses from whoever has them: where a path leads over the node, they come in that way.
    """
    rows, findings = _checked(peers, before)
    kept = rows if _are_all_apart(rows) else _apart(rows, findings)
    keys = {(row[0].protocol, row[0].public_key) for row in kept} if cascade.edges else set[tuple[Protocol, str]]()
    kept = _give_way(kept, cascade)
    edges = _edges(cascade, keys, findings)
    findings += [Finding(f"left out: {problem}", degraded=True) for problem in cascade.problems]
    if edges and not cascade.transits:
        findings += _at_the_exit(node.policy)
    every = kept + edges
    columns = zip(*every, strict=True) if every else ((), (), (), ())
    listed, addresses, marks, psk_digests = columns
    state = Desired(
        node_id=node.id,
        revision=max(1, node.config_revision),
        peers=listed,
        policy=node.policy,
        transits=cascade.transits,
        links=cascade.links,
        xray=None if reality is None else _inbound(reality, kept),
        cascade=cascade.fingerprint,
        addresses=addresses,
        marks=marks,
        psk_digests=psk_digests,
        ports=PortRange.parse("endpoint_ports", node.endpoint_ports),
    )
    return state, tuple(findings)


_Row = tuple[Peer, frozenset[str], int, int]
"""A peer, its addresses as networks, what names it by its content, and the digest of its preshared key."""


def _checked(peers: Sequence[Peer], before: Desired | None) -> tuple[list[_Row], list[Finding]]:
    """Every peer that is of valid form; what is known of it is not worked out again."""
    known = {} if before is None else dict(zip(map(_ID, before.peers), _rows(before), strict=True))
    rows: list[_Row] = []
    findings: list[Finding] = []
    for peer in peers:
        row = known.get(peer.id)
        if row is None or row[0] != peer:
            try:
                row = _plain_row(peer) or _row(check_peer(peer))
            except InvalidInput as error:
                findings.append(Finding(f"left out: {error}", degraded=True))
                continue
        rows.append(row)
    return rows, findings


def _are_all_apart(rows: list[_Row]) -> bool:
    """No key and no address twice, as it nearly always is: found out for all at once."""
    keys = {row[0].public_key for row in rows}
    claimed = [row[1] for row in rows]
    return len(keys) == len(rows) and len(frozenset().union(*claimed)) == sum(map(len, claimed))


def _apart(rows: list[_Row], findings: list[Finding]) -> list[_Row]:
    """One by one: who comes first keeps it."""
    kept: list[_Row] = []
    keys: set[tuple[Protocol, str]] = set()
    owners: dict[str, str] = {}
    for row in rows:
        peer, addresses = row[0], row[1]
        taken = min((address for address in addresses if address in owners), default="")
        if (peer.protocol, peer.public_key) in keys:
            findings.append(Finding(f"left out: peer {peer.id}: its key is in the list already", degraded=True))
        elif taken:
            findings.append(Finding(f"left out: peer {peer.id}: {taken} is peer {owners[taken]}'s", degraded=True))
        else:
            keys.add((peer.protocol, peer.public_key))
            owners.update(dict.fromkeys(addresses, peer.id))
            kept.append(row)
    return kept


def _plain_row(peer: Peer) -> _Row | None:
    """Checks and names a peer of the usual form in one go, at a third of the cost; None: the long way has to look at it."""
    if (
        peer.protocol is not Protocol.AMNEZIAWG
        or not 1 <= len(peer.allowed_ips) <= 2
        or peer.flow
        or not peer.id.isprintable()
    ):
        return None
    address, *more = peer.allowed_ips
    if not address.endswith("/32"):
        address += "/32"
    if more:
        form, addresses = _PLAIN_BOTH, frozenset((address, more[0]))
        text = f"1\n{peer.public_key}\n{address}\n{more[0]}\n{peer.preshared_key}\n"
    else:
        form, addresses = _PLAIN, frozenset((address,))
        text = f"1\n{peer.public_key}\n{address}\n{peer.preshared_key}\n"
    if form.fullmatch(text) is None:
        return None
    return peer, addresses, _number(text), psk_digest(peer.preshared_key)


def _row(peer: Peer) -> _Row:
    addresses = normal_ips(peer.allowed_ips)
    claimed: frozenset[str] = addresses if peer.protocol is Protocol.AMNEZIAWG else frozenset()
    return peer, claimed, _mark(peer, addresses), psk_digest(peer.preshared_key)


def _rows(state: Desired) -> Iterator[_Row]:
    return zip(state.peers, state.addresses, state.marks, state.psk_digests, strict=True)


def _mark(peer: Peer, addresses: frozenset[str]) -> int:
    """All that a node is told of a peer but its place in the list, as a number; they are added up (``Desired.content``)."""
    parts = (str(int(peer.protocol)), peer.public_key, *sorted(addresses), peer.preshared_key, peer.flow)
    return _number("\n".join(parts))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _give_way(kept: list[_Row], cascade: NodeCascade) -> list[_Row]:
    """A device that may also come in here on its own keeps its place in the list, without what comes over a path, or would
    have to go over one and cannot.
    """
    if not cascade.edges and not cascade.refused:
        return kept
    routed = normal_ips(cascade.refused).union(*(normal_ips(edge.allowed_ips) for edge in cascade.edges))
    return [row if routed.isdisjoint(row[1]) else _row_without(row, routed) for row in kept]


def _row_without(row: _Row, routed: frozenset[str]) -> _Row:
    peer, addresses = row[0], row[1] - routed
    left = tuple(ip for ip in peer.allowed_ips if normal_ips((ip,)).isdisjoint(routed))
    return dataclasses.replace(peer, allowed_ips=left), addresses, _mark(peer, addresses), row[3]


def _edges(cascade: NodeCascade, keys: set[tuple[Protocol, str]], findings: list[Finding]) -> list[_Row]:
    kept: list[_Row] = []
    for edge in cascade.edges:
        try:
            check_peer(edge)
        except InvalidInput as error:
            findings.append(Finding(f"left out: {error}", degraded=True))
            continue
        if (edge.protocol, edge.public_key) in keys:
            findings.append(Finding(f"left out: edge peer {edge.id}: its key is in the list already", degraded=True))
            continue
        kept.append(_row(edge))
    return kept


def _at_the_exit(policy: NetworkPolicy) -> list[Finding]:
    if not policy.forwarding:
        return [Finding("a path ends here, but forwarding is off: nothing leaves", degraded=True)]
    if not policy.masquerade:
        return [Finding("a path ends here, but masquerading is off: what leaves keeps its tunnel address")]
    return []


def _inbound(reality: Reality, kept: list[_Row]) -> XrayInbound:
    clients = tuple(peer for peer, *_ in kept if peer.protocol is Protocol.XRAY_REALITY) if reality.enabled else ()
    return XrayInbound(reality, clients)


@lru_cache(maxsize=4096)
def policy_fingerprint(policy: NetworkPolicy, transits: tuple[Transit, ...] = (), ports: PortRange | None = None) -> str:
    """Names a policy by its content, with the transits and ports that go with it. Asked for at each look at each node."""
    return of_policy(
        Policy(policy.forwarding or bool(transits), policy.masquerade, policy.isolation, transits, ports),
    )
