"""What all parts of ``fleet`` share: memory, transactions, and who is told after a commit.

Only the thread of the actor touches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from actors.fleet.attempts import Attempts
from actors.fleet.exit_watch import ExitWatch
from actors.node_link import link_name
from actors.supervision import Context
from coxswain.cascade.health import LinkHealth
from coxswain.errors import Conflict, NotFound, StaleVersion, StoreUnavailable
from coxswain.keyring import Keyring
from coxswain.messages import fleet as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.messages.links import IntentChanged, NodeSetChanged
from coxswain.messages.paths import Rewire
from coxswain.messages.servers import AddressesChanged
from coxswain.messages.sessions import ForgetPeers
from coxswain.metering import Uptime
from coxswain.model import Node
from coxswain.provisioning.offer import Settings
from coxswain.reality import Reality, reality_of
from coxswain.store import Durability, Store, Tx
from coxswain.store import operations as operation_rows
from coxswain.store import paths as path_rows

__all__ = ["FleetState", "Handler", "mark"]


class FleetState:
    """Memory of the fleet, and the way to change it.

    Attributes:
        nodes: every node, by id, as the store has it or will have it with the next flush (5,000 cost about 10 MB).
        views: what each node's link last reported.
        sightings: what its links note at each look, without a word.
        since: when each link entered the state that it is in.
        uptimes: for how long each was up, for ``meter``.
        drifted: of what each node was put right lately, and since when (``drift``).
        unwritten: nodes whose reports are not written yet; an ordered set.
        keys_changed: a node reported another key since the last flush.
        serves_anew: nodes that reported another key or obfuscation since then, so that what devices know of them is old.
        in_doubt: the answer to a commit was lost, so memory may be wrong.
        reread: what else is kept in memory and must be read again with the nodes; called after them.
        waiters: doors that wait for a node to acknowledge a revision, by node id (``waiting``).
        not_refreshed: nodes for which devices are still to be provisioned, each with how far that has come (``refreshing``).
        path_entries: reads the node at which each path begins, by path id.
        reality: what XRay looks like where a node has no decoy of its own, and whether it is used.
        wired: what paths make of nodes (``wiring.Wired``); None: to be worked out when it is asked for.
        cascades: fingerprint of what that is, by node; not in it: nothing.
        in_use: since when somebody's traffic goes into an inner link, by dialling node and interface.
        link_health: how inner links were when they were last reviewed, by id.
        links_told: when the dialling node of each was last told of it because it was down, monotonic seconds.
        exits: what is remembered of the exits of paths that have more than one (``failover``).
        moving: devices on the way to another path, and the attempts at bringing them to its end (``unfinished``).
        rewire_due: it is about to be worked out anew.
    """

    def __init__(self, context: Context, store: Store, keyring: Keyring, settings: Settings) -> None:
        self.context = context
        self.store = store
        self.keyring = keyring
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self._ids: dict[str, str] = {}
        self.views: dict[str, m.LinkReport] = {}
        self.sightings: MutableMapping[str, m.Sighting] = {}
        self.since: dict[str, float] = {}
        self.uptimes: dict[str, Uptime] = {}
        self.drifted: dict[str, tuple[frozenset[str], float]] = {}
        self.unwritten: dict[str, None] = {}
        self.keys_changed = False
        self.serves_anew: dict[str, None] = {}
        self.in_doubt = False
        self.reread: list[Callable[[], None]] = [self.rewire_soon]
        self.reality = reality_of(settings["reality.decoy_site"], enabled=settings["protocols.xray"])
        self.wired: Any = None
        self.cascades: dict[str, str] = {}
        self.in_use: dict[tuple[str, str], float] = {}
        self.link_health: dict[str, LinkHealth] = {}
        self.links_told: dict[str, float] = {}
        self.exits = ExitWatch()
        self.moving: dict[str, Attempts] = {}
        self.rewire_due = False
        self.waiters: dict[str, list[Any]] = {}
        self.not_refreshed: dict[str, str] = {}
        self.path_entries: Callable[[Tx], Mapping[str, str]] = path_rows.entries

    def now(self) -> float:
        return self.context.clock.now()

    def reality_of(self, node: Node) -> Reality:
        """What XRay looks like on this node."""
        return reality_of(node.decoy_site, enabled=self.reality.enabled) if node.decoy_site else self.reality

    # -- changes

    @contextmanager
    def changing(self, durability: Durability = Durability.ACKNOWLEDGED) -> Iterator[Tx]:
        """A transaction. Where the answer to its commit is lost, nobody knows whether it was made (``Store.write``): what is
        in memory is in doubt until it is read again.

        ``BATCHED`` is for a change whose door waits for its audit record: that comes later in the same log of the database,
        and is synced. Then ``settle`` has to come before anybody is told to act on it.
        """
        try:
            with self.store.write(durability) as tx:
                yield tx
        except StoreUnavailable:
            self.in_doubt = True
            raise

    def settle(self) -> None:
        """Returns when all changes up to now are on disk: nobody dials a node for one that a power cut may still take back.
        Costs nothing if they are. Raises ``StoreUnavailable``.
        """
        try:
            self.store.sync()
        except StoreUnavailable:
            self.in_doubt = True
            raise

    def committed(self, node: Node, outbox_id: int) -> Committed[Node]:
        """After the commit of a change to one node: memory, audit, links."""
        before = self.nodes.get(node.id)
        self.nodes[node.id] = node
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("event_hub", Publish("node.changed", self.now(), {"node_id": node.id, "name": node.name}))
        if before is None or before.control_addr != node.control_addr:
            self.context.tell("servers", AddressesChanged())
        if before is None:
            self.node_set_changed()
        else:
            if mark(self, node) != mark(self, before) or node.status is not before.status:
                self.settle()
                self.context.tell(link_name(node.id), IntentChanged())
            if self.wired is not None and self.wired.links:
                self.rewire_soon()
        return Committed(node, outbox_id)

    def node_set_changed(self) -> None:
        """There are other nodes now, or others enabled: whoever holds one thing per node looks again."""
        for name in ("node_links", "reconcile_clock"):
            self.context.tell(name, NodeSetChanged())

    def check_stay(self, tx: Tx, node_ids: Iterable[str]) -> None:
        """Before anything new leads over these nodes. Raises ``Conflict``: one is just being removed; whether it is used was
        asked before its agent is stopped.
        """
        for node_id, operation_id in operation_rows.being_removed(tx, node_ids).items():
            raise Conflict(
                f"node {self.nodes[node_id].name}: is being removed (operation {operation_id})",
                remedy=f"See: cox operations show {operation_id}",
            )

    def peers_changed(self) -> None:
        """After the commit of a change to peers: audit, and whoever keeps whose peer is whose."""
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("session_tracker", ForgetPeers())
        if self.wired is None or self.wired.links:
            self.rewire_soon()

    def rewire_soon(self) -> None:
        """Something changed that paths build on: addresses of devices, keys or addresses of nodes."""
        if not self.rewire_due:
            self.rewire_due = True
            self.context.tell_self_surely(Rewire())

    # -- finding

    def find(self, key: str) -> Node:
        """By id or name. Raises ``NotFound``."""
        if key in self.nodes:
            return self.nodes[key]
        node = self.named(key)
        if node is None:
            raise NotFound(f"node: there is no node with the id or name {key[:80]!r}", remedy="See: cox nodes list")
        return node

    def named(self, name: str) -> Node | None:
        """By name. PERF: ids are remembered by name, and looked up anew when what is remembered is not true any more."""
        node = self.nodes.get(self._ids.get(name, ""))
        if node is None or node.name != name:
            self._ids = {node.name: node.id for node in self.nodes.values()}
            node = self.nodes.get(self._ids.get(name, ""))
        return node

    def known(self, node_id: str) -> Node:
        """By id. Raises ``NotFound``."""
        node = self.nodes.get(node_id)
        if node is None:
            raise NotFound(f"node: there is no node with the id {node_id[:80]!r}", remedy="See: cox nodes list")
        return node

    def checked(self, node_id: str, version: int | None) -> Node:
        """By id or name, and as its author saw it. Raises ``NotFound``, ``StaleVersion``."""
        node = self.find(node_id)
        if version is not None and version != node.version:
            raise StaleVersion.of(f"node {node.name}", version, node.version)
        return node


Handler = Callable[[FleetState, Any], Any]
"""Answers one kind of message."""


def mark(fleet: FleetState, node: Node) -> m.IntentMark:
    """What a link must go by to go by the present intent of its node."""
    return m.intent_mark(node, max(1, node.config_revision), fleet.cascades.get(node.id, ""))
