"""What paths make of nodes, kept in memory: worked out anew when anything changes that it is built on.

Edge peers are pushed with a node's peers, under its revision. So whoever changes an edge peer raises that revision: in the
same transaction where paths or bindings change (``rewired``), right afterwards where devices do, or what nodes report
(``Rewire``). A crash between the two is healed by the comparison with which every link begins.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

from actors.fleet.state import FleetState, Handler
from actors.node_link import link_name
from coxswain.cascade.resources import check_joint, free_index, link_mtu
from coxswain.cascade.types import Binding, InnerLink, NodeCascade, NodeLink, Path
from coxswain.cascade.wiring import Cascade, inner_link, wire
from coxswain.errors import CoxswainError, InvalidInput, StoreUnavailable
from coxswain.messages import fleet as m
from coxswain.messages.hub import Publish
from coxswain.messages.links import IntentChanged
from coxswain.messages.paths import Rewire
from coxswain.model import Peer
from coxswain.store import Tx
from coxswain.store import fleet as rows
from coxswain.store import paths as path_rows

__all__ = ["CHANGES", "QUESTIONS", "Wired", "install", "intended", "intent", "rewired", "wired"]

_MAX_REVISION = 2**62
_AGAIN_S = 1.0


@dataclass(frozen=True)
class Wired:
    """Paths, links and bindings as the store has them, and what follows for each node. ``bumped``: new revisions."""

    paths: dict[str, Path] = field(default_factory=dict)
    links: dict[str, NodeLink] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    cascade: Cascade = Cascade()
    bumped: dict[str, int] = field(default_factory=dict)

    def edge(self, dialer: str, target: str) -> NodeLink | None:
        """The link between two nodes."""
        return self._by_ends.get((dialer, target))

    def path_of(self, device_id: str) -> Path | None:
        """The path to which a device is bound."""
        return self.paths.get(self._routes.get(device_id, ""))

    @cached_property
    def _routes(self) -> dict[str, str]:
        return {binding.id: binding.route for binding in self.bindings}

    @cached_property
    def _by_ends(self) -> dict[tuple[str, str], NodeLink]:
        return {(link.entry_node_id, link.exit_node_id): link for link in self.links.values()}


def intended(fleet: FleetState, found: Wired, link: NodeLink) -> InnerLink:
    """A link as its dialling node is told of it; one that cannot be used just now, as it would be."""
    told = found.cascade.of(link.entry_node_id).links
    return next((k for k in told if k.id == link.id), None) or inner_link(link, fleet.nodes[link.exit_node_id])


def wired(fleet: FleetState) -> Wired:
    """From memory, or read anew. Raises ``StoreUnavailable``."""
    if fleet.wired is None:
        with fleet.store.read() as tx:
            found = _read(fleet, tx)
        _remember(fleet, found)
    known: Wired = fleet.wired
    return known


def rewired(fleet: FleetState, tx: Tx) -> Wired:
    """After rows were changed in ``tx``: what follows, with the revisions of all nodes raised whose edge peers change. To be
    given to ``install`` after the commit.
    """
    before = wired(fleet)
    after = _read(fleet, tx)
    touched = [
        node_id
        for node_id in sorted(before.cascade.nodes.keys() | after.cascade.nodes.keys())
        if _peers_of(before.cascade.of(node_id)) != _peers_of(after.cascade.of(node_id)) and node_id in fleet.nodes
    ]
    return dataclasses.replace(after, bumped=rows.bump_revisions(tx, touched) if touched else {})


def _peers_of(cascade: NodeCascade) -> tuple[object, ...]:
    """What of it is pushed with the node's peers."""
    return cascade.edges, cascade.refused


def install(fleet: FleetState, after: Wired) -> None:
    """After the commit: memory, and the links concerned."""
    before: Wired = fleet.wired or Wired()
    for node_id, revision in after.bumped.items():
        fleet.nodes[node_id] = dataclasses.replace(fleet.nodes[node_id], config_revision=revision)
    _remember(fleet, dataclasses.replace(after, bumped={}))
    for node_id in sorted(before.cascade.nodes.keys() | after.cascade.nodes.keys()):
        old, new = before.cascade.of(node_id), after.cascade.of(node_id)
        if old.fingerprint != new.fingerprint or old.problems != new.problems:
            fleet.context.tell(link_name(node_id), IntentChanged())
    for problem in set(after.cascade.problems) - set(before.cascade.problems):
        data = {"about": problem.about, "problem": problem.text}
        fleet.context.tell("event_hub", Publish("path.problem", fleet.now(), data))


def intent(fleet: FleetState, node_id: str, peers: list[Peer]) -> m.Intent:
    """The one document that a node's link goes by. Raises ``StoreUnavailable``."""
    cascade = wired(fleet).cascade.of(node_id)
    node = fleet.nodes[node_id]
    return m.Intent(node, tuple(peers), cascade, fleet.reality_of(node))


def _read(fleet: FleetState, tx: Tx) -> Wired:
    paths = path_rows.paths(tx)
    links = path_rows.links(tx)
    if not links:
        return Wired(paths, links)
    bindings = path_rows.bindings(tx, {path.id: path.entry for path in paths.values()})
    return Wired(paths, links, tuple(bindings), wire(fleet.nodes, links.values(), paths, bindings))


def _remember(fleet: FleetState, found: Wired) -> None:
    fleet.wired = found
    fleet.cascades = {node_id: cascade.fingerprint for node_id, cascade in found.cascade.nodes.items()}


# -- what changes on its own


def _rewire(fleet: FleetState, message: Rewire) -> None:
    """Devices changed, or nodes reported another key or obfuscation: links to them are adopted anew."""
    fleet.rewire_due = False
    try:
        with fleet.store.read() as tx:
            now = _read(fleet, tx)
        moved = _outdated(fleet, now)
        if not moved and now.cascade == wired(fleet).cascade:
            _remember(fleet, now)
            return
        with fleet.changing() as tx:
            for link in moved:
                path_rows.update_link(tx, link, now=fleet.now())
            after = rewired(fleet, tx)
        install(fleet, after)
    except StoreUnavailable as error:
        fleet.context.log.warning("paths are not worked out anew yet: %s", error)
        fleet.rewire_due = True
        fleet.context.after(_AGAIN_S, message)


def _outdated(fleet: FleetState, now: Wired) -> list[NodeLink]:
    """Links that were made for something else than their exit is by now, as they have to be."""
    links = dict(now.links)
    for link in now.links.values():
        dialer, target = fleet.nodes.get(link.entry_node_id), fleet.nodes.get(link.exit_node_id)
        if dialer is None or target is None or (link.mtu, link.obfuscation) == (link_mtu(target), target.obfuscation):
            continue
        try:
            check_joint(dialer, target)
        except CoxswainError:
            continue  # is a problem of the link's already
        index = _elsewhere(fleet, link, links)
        links[link.id] = dataclasses.replace(link, index=index, mtu=link_mtu(target), obfuscation=target.obfuscation)
    return [link for link in links.values() if link != now.links[link.id]]


def _elsewhere(fleet: FleetState, link: NodeLink, links: dict[str, NodeLink]) -> int:
    """Another place on the dialling node, if the interface is there already: its shape is never changed, and the new one
    carries before the old one goes (node-contract.md 4.12).
    """
    held = dict(fleet.nodes[link.entry_node_id].links_confirmed)
    if link.interface not in held:
        return link.index
    return free_index((k for k in links.values() if k.entry_node_id == link.entry_node_id), held)


def _begin(fleet: FleetState, message: m.BeginLinks) -> m.Intent:
    node = fleet.known(message.node_id)
    if message.at_least > _MAX_REVISION:
        raise InvalidInput(f"revision: {message.at_least} is beyond {_MAX_REVISION}; no revision after it can be counted")
    confirmed = dict(node.links_confirmed)
    moved = _misshapen(fleet, node.id, confirmed)
    with fleet.changing() as tx:
        for link in moved:
            path_rows.update_link(tx, link, now=fleet.now())
        after = rewired(fleet, tx) if moved else None
        for inner in (after or wired(fleet)).cascade.of(node.id).links:
            known = confirmed.get(inner.interface)
            if inner.interface in message.interfaces or known != f"{inner.block}:{inner.peer}":
                confirmed[inner.interface] = f"{inner.block}:"
        # Counted from the clock on, so that a database that was restored goes past what nodes have seen since.
        revision = path_rows.begin_links(tx, node.id, confirmed, max(message.at_least, int(fleet.now())))
        peers = rows.peers_of(tx, [node.id])[node.id]
    fleet.nodes[node.id] = dataclasses.replace(
        node, links_confirmed=tuple(sorted(confirmed.items())), link_revision=revision
    )
    if after is not None:
        install(fleet, after)
    return intent(fleet, node.id, peers)


def _misshapen(fleet: FleetState, node_id: str, confirmed: dict[str, str]) -> list[NodeLink]:
    """Links whose interface the node has in another shape, e.g. since before a restored database."""
    now = wired(fleet)
    links = dict(now.links)
    for inner in now.cascade.of(node_id).links:
        block, _, _ = confirmed.get(inner.interface, "").partition(":")
        if block and block != inner.block:
            link = links[inner.id]
            links[inner.id] = dataclasses.replace(link, index=_elsewhere(fleet, link, links))
    return [link for link in links.values() if link != now.links[link.id]]


CHANGES: dict[type, Handler] = {m.BeginLinks: _begin}
QUESTIONS: dict[type, Handler] = {Rewire: _rewire}
