"""From paths, links and bindings to what each node has to have. Pure, and the same for the same input.

At every hop the source address is the one that the device has on the entry (fleet-model.md 6.1). Edges that several paths
share carry all their addresses. What cannot be wired is left out and reported; it never keeps the rest from working.

A node whose agent carries no IPv6 is told to send no IPv6 address on: its rules cannot (node-contract.md 7.3). What it does
not send on would leave there, so such an address is not let in. Where only a later node cannot, the link to it takes none.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from coxswain.cascade.resources import check_joint, endpoint, names_of
from coxswain.cascade.stages import Claims, Spot, staged
from coxswain.cascade.types import Binding, InnerLink, NodeCascade, NodeLink, Path, Phase, Problem
from coxswain.errors import CoxswainError
from coxswain.model import Node, Peer, Protocol
from coxswain.netpolicy import Transit

__all__ = ["Cascade", "inner_link", "wire"]

_NOTHING = NodeCascade()


@dataclass(frozen=True, slots=True)
class Cascade:
    """The whole fleet's. ``problems``: whatever was left out."""

    nodes: Mapping[str, NodeCascade] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def of(self, node_id: str) -> NodeCascade:
        return self.nodes.get(node_id, _NOTHING)


def wire(
    nodes: Mapping[str, Node], links: Iterable[NodeLink], paths: Mapping[str, Path], bindings: Sequence[Binding]
) -> Cascade:
    """What every node that a link or path touches has to have.

    Args:
        nodes: by id.
        links: one for each edge of ``paths``.
        paths: by id.
        bindings: in the order in which they go first, should two want the same address.
    """
    work = _Work(nodes, {(link.entry_node_id, link.exit_node_id): link for link in links}, paths)
    for binding in bindings:
        work.add(binding)
    return work.result()


def inner_link(link: NodeLink, target: Node) -> InnerLink:
    """``link`` as its dialling node is told of it."""
    return InnerLink(
        id=link.id,
        interface=link.interface,
        listen_port=link.listen_port,
        mtu=link.mtu,
        obfuscation=link.obfuscation,
        exit_key=target.wg_public_key,
        endpoint=endpoint(target),
        preshared_key=link.preshared_key,
    )


class _Work:
    def __init__(
        self, nodes: Mapping[str, Node], links: Mapping[tuple[str, str], NodeLink], paths: Mapping[str, Path]
    ) -> None:
        self._nodes = nodes
        self._paths = paths
        self._links = links
        self._places = {edge: (link.interface, link.mark, link.table) for edge, link in links.items()}
        self._problems: list[Problem] = []
        self._usable: dict[tuple[str, str], InnerLink] = {}
        self._taken: dict[tuple[Spot, str], str] = {}
        self._refused: dict[str, set[str]] = {}
        self._staged: dict[tuple[Sequence[str], Sequence[str], Phase], Claims] = {}
        for edge, link in links.items():
            self._use(edge, link)
        self._tell_twins_apart()

    def _use(self, edge: tuple[str, str], link: NodeLink) -> None:
        dialer, target = (self._nodes.get(node_id) for node_id in edge)
        if dialer is None or target is None:
            self._problems.append(Problem(link.id, f"link {names_of(self._nodes, edge)}: a node of it is gone"))
            return
        try:
            check_joint(dialer, target)
        except CoxswainError as error:
            self._problems.append(Problem(link.id, f"link {names_of(self._nodes, edge)}: {error}"))
            return
        self._usable[edge] = inner_link(link, target)

    def _tell_twins_apart(self) -> None:
        """A node tells its key itself, and may tell another's: of peers with one key an exit serves the last one, and the
        paths of the others are cut. So the node that is longest in the inventory has it.
        """
        holders: dict[tuple[str, str], Node] = {}
        for dialer_id, target_id in self._usable:
            for node in (self._nodes[target_id], self._nodes[dialer_id]):
                place = (target_id, node.wg_public_key)
                holders[place] = min(holders.get(place, node), node, key=lambda n: (n.id != target_id, n.created_at, n.id))
        for edge in list(self._usable):
            dialer = self._nodes[edge[0]]
            holder = holders[edge[1], dialer.wg_public_key]
            if holder.id != dialer.id:
                del self._usable[edge]
                what = f"link {names_of(self._nodes, edge)}: node {dialer.name} has the AmneziaWG key of node {holder.name}"
                self._problems.append(Problem(self._links[edge].id, what))

    # -- bindings

    def add(self, binding: Binding) -> None:
        if binding.xray:
            self._problems.append(Problem(binding.id, "its XRay traffic is proxied at the entry and leaves there"))
        if not binding.active or not binding.tunnel:
            return
        wanted: dict[tuple[Spot, str], str] = {}
        refused: set[tuple[str, str]] = set()
        try:
            for addresses, found in self._parts(binding):
                for address in addresses:
                    for spot, to in found.items():
                        if ":" not in address or self._carries_ipv6(spot[1]):
                            wanted.setdefault((spot, address), to)
                        elif spot[0] == "transit":
                            refused.add((spot[1], address))
            self._check(wanted)
        except _LeftOut as reason:
            self._problems.append(Problem(binding.id, str(reason)))
            return
        self._taken.update(wanted)
        for node_id, address in refused:
            self._refused.setdefault(node_id, set()).add(address)

    def _carries_ipv6(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and node.tunnel_ipv6

    def _parts(self, binding: Binding) -> Sequence[tuple[Sequence[str], Claims]]:
        """Addresses, and what they claim. Where both routes begin on different nodes, the device has to go over to the
        other one itself; until it has, each of the two serves whoever comes in by it, and the one that carries goes first.
        """
        old, new = self._route(binding.route), self._route(binding.next_route)
        if binding.phase is Phase.SETTLED:
            return [(self._addresses(binding, old), self._carried(self._paths[binding.route]))] if old else []
        old, new = old or new[:1], new or old[:1]
        if old[:1] == new[:1]:
            return [(self._addresses(binding, old), self._claims(old, new, binding.phase))]
        parts = [
            (self._addresses(binding, old), self._claims(old, old, Phase.SETTLED)),
            (self._addresses(binding, new), self._claims(new[:1], new, binding.phase)),
        ]
        return parts if binding.phase is Phase.PREPARING else parts[::-1]

    def _carried(self, path: Path) -> Claims:
        """What everybody on it claims who is going nowhere else; on its way to another exit, it takes them along."""
        return self._claims(path.route, path.next_route, path.detour.phase)

    def _claims(self, old: Sequence[str], new: Sequence[str], phase: Phase) -> Claims:
        """Thousands of devices go the same few ways."""
        known = self._staged.get((old, new, phase))
        if known is None:
            known = self._staged[old, new, phase] = staged(old, new, phase)
        return known

    def _route(self, path_id: str) -> tuple[str, ...]:
        if not path_id:
            return ()
        path = self._paths.get(path_id)
        if path is None:
            raise _LeftOut(f"path {path_id} is gone")
        return path.route

    def _addresses(self, binding: Binding, route: Sequence[str]) -> tuple[str, ...]:
        addresses = binding.addresses.get(route[0], ())
        if not addresses:
            entry = names_of(self._nodes, route[:1])
            raise _LeftOut(f"it has no AmneziaWG address on {entry}, the entry of its path")
        return addresses

    def _check(self, wanted: Mapping[tuple[Spot, str], str]) -> None:
        for (spot, address), to in wanted.items():
            kind, node_id = spot
            edge = (node_id, to) if kind == "transit" else (to, node_id)
            if edge not in self._usable:
                raise _LeftOut(f"the link {names_of(self._nodes, edge)} cannot be made just now")
            other = self._taken.get((spot, address), to)
            if other != to:
                raise _LeftOut(
                    f"{address} goes by {names_of(self._nodes, (other,))} on {names_of(self._nodes, (node_id,))} already"
                )

    # -- nodes

    def result(self) -> Cascade:
        carried: dict[tuple[str, str], list[str]] = {}
        transits: dict[str, list[tuple[str, tuple[str, str]]]] = {}
        for ((kind, node_id), address), to in self._taken.items():
            if kind == "edge":
                carried.setdefault((to, node_id), []).append(address)
            else:
                transits.setdefault(node_id, []).append((address, (node_id, to)))
        dialled, edges = self._grouped(), _by_target(carried)
        both = {edge for edge, found in carried.items() if any(":" in address for address in found)}
        made = {
            node_id: NodeCascade(
                links=tuple(
                    dataclasses.replace(self._usable[edge], ipv6=edge in both)
                    for edge in dialled.get(node_id, ())
                    if edge in self._usable
                ),
                edges=tuple(self._edge(edge, carried[edge]) for edge in edges.get(node_id, ())),
                transits=tuple(
                    self._transit(address, edge) for address, edge in sorted(transits.get(node_id, ()), key=_by_address)
                ),
                problems=self._problems_of(dialled.get(node_id, ())),
                refused=tuple(sorted(self._refused.get(node_id, ()))),
            )
            for node_id in sorted(dialled.keys() | edges.keys() | self._refused.keys())
        }
        return Cascade({node_id: found for node_id, found in made.items() if found or found.problems}, tuple(self._problems))

    def _grouped(self) -> dict[str, list[tuple[str, str]]]:
        """The edges that each node dials, in the order of their links' places."""
        found: dict[str, list[tuple[str, str]]] = {}
        for edge in sorted(self._links, key=lambda edge: self._links[edge].index):
            found.setdefault(edge[0], []).append(edge)
        return found

    def _edge(self, edge: tuple[str, str], addresses: Sequence[str]) -> Peer:
        link = self._links[edge]
        return Peer(
            id=link.id,
            node_id=edge[1],
            device_id="",
            protocol=Protocol.AMNEZIAWG,
            public_key=self._nodes[edge[0]].wg_public_key,
            allowed_ips=tuple(sorted(addresses, key=_number)),
            preshared_key=link.preshared_key,
        )

    def _transit(self, address: str, edge: tuple[str, str]) -> Transit:
        return Transit(address, *self._places[edge])

    def _problems_of(self, edges: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        about = {self._links[edge].id for edge in edges}
        return tuple(problem.text for problem in self._problems if problem.about in about)


class _LeftOut(Exception):
    """Why a binding is not wired."""


def _by_target(edges: Iterable[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for edge in sorted(edges):
        found.setdefault(edge[1], []).append(edge)
    return found


@lru_cache(maxsize=65_536)
def _number(address: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(address, strict=False)
    return network.version, int(network.network_address), network.prefixlen


def _by_address(transit: tuple[str, tuple[str, str]]) -> tuple[tuple[int, int, int], str]:
    return _number(transit[0]), transit[1][1]
