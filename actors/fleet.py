"""The inventory and its intent: every change to nodes, devices, users and peers goes through this actor.

A change is one transaction: rows, bumped revisions and the audit record together, durable before anybody dials a node.
Then the links concerned are told that something changed; they read the intent late. What links report is kept in memory
for queries and written to the store in batches.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from actors.node_link import link_name
from actors.supervision import Actor, Context
from coxswain.audit import record
from coxswain.errors import AlreadyExists, InvalidInput, NotFound, StaleVersion, StoreUnavailable
from coxswain.ids import new_id
from coxswain.inventory import (
    check_endpoint_ips,
    check_name,
    check_policy,
    check_region,
    parse_control_addr,
)
from coxswain.messages import fleet as m
from coxswain.messages.audit import Committed, OutboxGrew
from coxswain.messages.hub import Publish
from coxswain.messages.links import CertificatesRenewed, IntentChanged, NodeSetChanged, ReportAgain
from coxswain.messages.sessions import ForgetPeers
from coxswain.model import LinkState, NetworkPolicy, Node, NodeStatus
from coxswain.reconcile.desired import check_peer
from coxswain.store import Durability, Store, Tx
from coxswain.store import fleet as rows

__all__ = ["Fleet"]

_FLUSH_S = 0.25
_REMIND_S = 10.0
"""A hint may be lost, with the mailbox of an actor that fell or because it was full."""

_WAVE = 50
_FEW = 8
_MAX_REVISION = 2**62


_CHANGES = (
    m.AddNode, m.EditNode, m.SetNodeEnabled, m.RemoveNode, m.ApplyPeers, m.BumpRevision, m.GetIntent,
)  # fmt: skip
"""Messages whose answer builds on what is in memory, so that it must not be in doubt."""


class _Flush:
    """To itself: write what links reported since the last time."""


class _Remind:
    """To itself: look for links that go by an old intent."""


@dataclasses.dataclass(frozen=True, slots=True)
class _TellIntents:
    """To itself: these links are still to be told."""

    node_ids: tuple[str, ...]


class Fleet(Actor):
    """See the module. Holds every node in memory (5,000 of them cost about 10 MB); peers stay in the store."""

    mailbox_capacity = 50_000

    def __init__(self, context: Context, *, store: Store) -> None:
        super().__init__(context)
        self._store = store
        self._nodes: dict[str, Node] = {}
        self._views: dict[str, m.LinkReport] = {}
        self._since: dict[str, float] = {}
        self._unwritten: dict[str, None] = {}
        self._keys_changed = False
        self._in_doubt = False

    def started(self) -> None:
        with self._store.read() as tx:
            self._nodes = {node.id: node for node in rows.list_nodes(tx, now=self._now())}
        self.context.after(_FLUSH_S, _Flush())
        self.context.after(_REMIND_S, _Remind())
        for node_id in self._nodes:
            self.context.tell(link_name(node_id), ReportAgain())
            self.context.tell(link_name(node_id), IntentChanged())  # a predecessor may have fallen before it told them all

    def stopping(self) -> None:
        self._flush()

    def receive(self, message: Any) -> Any:
        if isinstance(message, _CHANGES):
            self._settle_doubt()
        match message:
            case m.LinkReport():
                return self._on_report(message)
            case m.LinkFell():
                return self._on_fall(message)
            case m.GetIntent(node_id):
                return self._intent(node_id)
            case m.GetNode(key):
                return self._view(self._find(key))
            case m.ListNodes():
                return self._list(message)
            case m.GetSummary():
                return self._summary()
            case m.BumpRevision(node_id, at_least):
                return self._bump(node_id, at_least)
            case m.AddNode():
                return self._add(message)
            case m.EditNode():
                return self._edit(message)
            case m.SetNodeEnabled():
                return self._set_enabled(message)
            case m.RemoveNode():
                return self._remove(message)
            case m.ApplyPeers():
                return self._apply_peers(message)
            case m.RecordPush():
                return self._record_push(message)
            case m.CertificatesChanged(node_id):
                return self._on_certificates(node_id)
            case _TellIntents(node_ids):
                self._tell_intents(node_ids)
            case _Remind():
                self._remind()
                self.context.after(_REMIND_S, message)
            case _Flush():
                self._flush()
                self.context.after(_FLUSH_S, message)
        return None

    # -- changes

    @contextmanager
    def _changing(self) -> Iterator[Tx]:
        """A transaction. Where the answer to its commit is lost, nobody knows whether it was made (``Store.write``): what is
        in memory is in doubt until it is read again.
        """
        try:
            with self._store.write(Durability.ACKNOWLEDGED) as tx:
                yield tx
        except StoreUnavailable:
            self._in_doubt = True
            raise

    def _settle_doubt(self) -> None:
        """Before anything that builds on memory. Raises ``StoreUnavailable``."""
        if self._in_doubt:
            self._read_again()
            self._in_doubt = False

    def _read_again(self) -> None:
        """What the store says counts; what links reported and is not written yet is kept."""
        with self._store.read() as tx:
            nodes = {node.id: node for node in rows.list_nodes(tx, now=self._now())}
        before, self._nodes = self._nodes, nodes
        for node_id in self._unwritten:
            if node_id in nodes and node_id in self._views:
                self._take_over(nodes[node_id], self._views[node_id])
        if before.keys() != nodes.keys():
            self._node_set_changed()
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("session_tracker", ForgetPeers())
        for node_id, node in nodes.items():
            known = before.get(node_id)
            if known is None or _mark(known) != _mark(node):
                self.context.tell(link_name(node_id), IntentChanged())

    def _remind(self) -> None:
        for node_id, node in self._nodes.items():
            view = self._views.get(node_id)
            if view is not None and view.intent is not None and view.intent != _mark(node):
                self.context.tell(link_name(node_id), IntentChanged())

    def _add(self, message: m.AddNode) -> Committed[Node]:
        node = Node(
            id=new_id("nod"),
            name=check_name(message.name),
            region=check_region(message.region),
            control_addr=parse_control_addr(message.control_addr),
            public_ip=next(iter(check_endpoint_ips((message.public_ip,))), ""),
            policy=check_policy(message.policy or NetworkPolicy()),
            config_revision=1,
            created_at=self._now(),
            updated_at=self._now(),
        )
        if any(other.name == node.name for other in self._nodes.values()):
            raise AlreadyExists(f"name: a node named {node.name!r} exists already; choose another name")
        with self._changing() as tx:
            rows.insert_node(tx, node)
            detail = {"name": node.name, "control_addr": node.control_addr}
            outbox_id = record(tx, message.caller, "node.add", ("node", node.id), detail, now=self._now())
        return self._committed(node, outbox_id)

    def _edit(self, message: m.EditNode) -> Committed[Node]:
        before = self._checked(message.id, message.version)
        after = before
        if message.name is not None:
            if any(o.name == message.name and o.id != before.id for o in self._nodes.values()):
                raise AlreadyExists(f"name: a node named {message.name!r} exists already; choose another name")
            after = dataclasses.replace(after, name=check_name(message.name))
        if message.region is not None:
            after = dataclasses.replace(after, region=check_region(message.region))
        if message.endpoint_ips is not None:
            after = dataclasses.replace(after, endpoint_ips=check_endpoint_ips(message.endpoint_ips))
        if message.control_addr is not None:
            after = dataclasses.replace(after, control_addr=parse_control_addr(message.control_addr))
        if message.policy is not None and message.policy != before.policy:
            after = dataclasses.replace(
                after, policy=check_policy(message.policy), config_revision=before.config_revision + 1
            )
        changed = [f.name for f in dataclasses.fields(Node) if getattr(before, f.name) != getattr(after, f.name)]
        with self._changing() as tx:
            after = rows.update_node(tx, after, expected_version=before.version, now=self._now())
            detail = {"name": after.name, "changed": changed}
            outbox_id = record(tx, message.caller, "node.update", ("node", after.id), detail, now=self._now())
        return self._committed(after, outbox_id)

    def _set_enabled(self, message: m.SetNodeEnabled) -> Committed[Node]:
        before = self._checked(message.id, message.version)
        status = NodeStatus.PENDING if message.enabled else NodeStatus.STOPPED
        after = dataclasses.replace(before, enabled=message.enabled, status=status)
        action = "node.enable" if message.enabled else "node.disable"
        with self._changing() as tx:
            after = rows.update_node(tx, after, expected_version=before.version, now=self._now())
            target = ("node", after.id)
            outbox_id = record(tx, message.caller, action, target, {"name": after.name}, now=self._now())
        self._node_set_changed()
        return self._committed(after, outbox_id)

    def _remove(self, message: m.RemoveNode) -> Committed[Node]:
        node = self._checked(message.id, message.version)
        with self._changing() as tx:
            rows.delete_node(tx, node.id)
            target = ("node", node.id)
            outbox_id = record(tx, message.caller, "node.rm", target, {"name": node.name}, now=self._now())
        self._nodes.pop(node.id, None)
        for known in (self._views, self._since, self._unwritten):
            known.pop(node.id, None)
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("session_tracker", ForgetPeers())
        self._node_set_changed()
        return Committed(node, outbox_id)

    def _apply_peers(self, message: m.ApplyPeers) -> Committed[dict[str, int]]:
        for peer in message.add:
            check_peer(peer)
        touched = {p.node_id for p in message.add} | {node_id for node_id, _, _ in message.remove}
        for node_id in touched:
            self._known(node_id)
        with self._changing() as tx:
            rows.upsert_users(tx, message.users, now=self._now())
            rows.upsert_devices(tx, message.devices, now=self._now())
            rows.remove_peers(tx, message.remove)
            rows.put_peers(tx, message.add, now=self._now())
            revisions = rows.bump_revisions(tx, sorted(touched))
            detail = {
                "added": len(message.add),
                "removed": len(message.remove),
                "nodes": len(touched),
                "devices": [d.id for d in message.devices[:20]],
            }
            target = ("node", next(iter(touched))) if len(touched) == 1 else ("fleet", "")
            outbox_id = record(tx, message.caller, "peers.apply", target, detail, now=self._now())
        for node_id, revision in revisions.items():
            self._nodes[node_id] = dataclasses.replace(self._nodes[node_id], config_revision=revision)
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("session_tracker", ForgetPeers())
        self._tell_intents(tuple(revisions))
        return Committed(revisions, outbox_id)

    def _tell_intents(self, node_ids: tuple[str, ...]) -> None:
        """Sends links their intent, a wave at a time, so that the first push while the last are still read. A few links are
        only told: one that is busy asks once for whatever changed until it is not, so a hundred changes are read once.
        """
        if len(node_ids) < _FEW:
            for node_id in node_ids:
                self.context.tell(link_name(node_id), IntentChanged())
            return
        wave, rest = node_ids[:_WAVE], node_ids[_WAVE:]
        known = {node_id: self._nodes[node_id] for node_id in wave if node_id in self._nodes}
        intents: dict[str, m.Intent | None] = dict.fromkeys(known)
        try:
            with self._store.read() as tx:
                peers = rows.peers_of(tx, list(known))
            intents.update((node_id, m.Intent(node, tuple(peers[node_id]))) for node_id, node in known.items())
        except StoreUnavailable as error:
            self.context.log.warning("links have to ask for their intent themselves: %s", error)
        for node_id, intent in intents.items():
            self.context.tell(link_name(node_id), IntentChanged(intent))
        if rest:
            self.context.tell_self(_TellIntents(rest))

    def _record_push(self, message: m.RecordPush) -> Committed[None]:
        node = self._known(message.node_id)
        with self._changing() as tx:
            detail = {"name": node.name, "revision": message.revision}
            target = ("node", node.id)
            outbox_id = record(tx, message.caller, "node.push", target, detail, now=self._now(), error=message.error)
        self.context.tell("audit_writer", OutboxGrew())
        return Committed(None, outbox_id)

    def _bump(self, node_id: str, at_least: int) -> m.Intent:
        if at_least > _MAX_REVISION:
            raise InvalidInput(f"revision: {at_least} is beyond {_MAX_REVISION}; no revision after it can be counted")
        self._known(node_id)
        with self._changing() as tx:
            revision = rows.bump_revision(tx, node_id, at_least)
            peers = rows.peers_of(tx, [node_id])
        self._nodes[node_id] = dataclasses.replace(self._nodes[node_id], config_revision=revision)
        return m.Intent(self._nodes[node_id], tuple(peers[node_id]))

    def _committed(self, node: Node, outbox_id: int) -> Committed[Node]:
        """After the commit of a change to one node: memory, audit, links."""
        before = self._nodes.get(node.id)
        self._nodes[node.id] = node
        self.context.tell("audit_writer", OutboxGrew())
        self.context.tell("event_hub", Publish("node.changed", self._now(), {"node_id": node.id, "name": node.name}))
        if before is None:
            self._node_set_changed()
        else:
            self.context.tell(link_name(node.id), IntentChanged())
        return Committed(node, outbox_id)

    def _node_set_changed(self) -> None:
        for name in ("node_links", "reconcile_clock"):
            self.context.tell(name, NodeSetChanged())

    def _on_certificates(self, node_id: str | None) -> None:
        if node_id is None:
            self._read_again()
            return
        with self._store.read() as tx:
            node = rows.get_node(tx, node_id, now=self._now())
        if node is None:
            return
        self._nodes[node_id] = dataclasses.replace(self._nodes.get(node_id, node), server_names=node.server_names)
        self.context.tell(link_name(node_id), CertificatesRenewed(node.server_names))

    # -- what links report

    def _on_report(self, report: m.LinkReport) -> None:
        node = self._nodes.get(report.node_id)
        if node is None:
            return
        before = self._views.get(node.id)
        if before is not None and report.incarnation < before.incarnation:
            return  # of a link that was fenced off
        if before is None or before.link_state != report.link_state:
            self._since[node.id] = report.at
        self._views[node.id] = report
        self._take_over(node, report)
        if before is None or (before.link_state, before.reason) != (report.link_state, report.reason):
            data = {
                "node_id": node.id,
                "name": node.name,
                "region": node.region,
                "link_state": report.link_state.value,
                "reason": report.reason,
            }
            self.context.tell("event_hub", Publish("node.link", report.at, data))

    def _on_fall(self, fall: m.LinkFell) -> None:
        """Until its successor reports, a link that fell is not what it last said."""
        last = self._views.get(fall.node_id)
        if last is None or last.incarnation == fall.incarnation:
            reason = f"its link fell and is being replaced: {fall.reason}"
            self._on_report(m.LinkReport(fall.node_id, fall.incarnation, fall.at, LinkState.BACKING_OFF, reason))

    def _take_over(self, node: Node, report: m.LinkReport) -> None:
        """Copies what the store also keeps; it is written with the next flush."""
        observed = {
            "status": report.status if node.enabled else NodeStatus.STOPPED,
            "agent_version": report.agent_version,
            "wg_public_key": report.wg_public_key,
            "obfuscation": report.obfuscation,
            "xray_public_key": report.xray_public_key,
            "applied_revision": report.applied_revision,
            "policy_confirmed": report.policy_confirmed,
        }
        changed: dict[str, Any] = {k: v for k, v in observed.items() if v is not None and getattr(node, k) != v}
        if not changed:
            return
        self._nodes[node.id] = dataclasses.replace(node, **changed)
        self._unwritten[node.id] = None
        self._keys_changed = self._keys_changed or "wg_public_key" in changed
        if "status" in changed:
            data = {"node_id": node.id, "name": node.name, "status": str(changed["status"]), "was": str(node.status)}
            self.context.tell("event_hub", Publish("node.status", report.at, data))

    def _flush(self) -> None:
        if self._in_doubt:
            try:
                self._settle_doubt()
            except StoreUnavailable:
                return
        if not self._unwritten:
            return
        nodes = [self._nodes[node_id] for node_id in self._unwritten if node_id in self._nodes]
        try:
            with self._store.write(Durability.BATCHED) as tx:
                rows.record_observed(tx, nodes, now=self._now())
        except StoreUnavailable as error:
            self.context.log.warning("what %d nodes reported is not written yet: %s", len(nodes), error)
            return
        self._unwritten.clear()
        if self._keys_changed:
            self._keys_changed = False
            self.context.tell("session_tracker", ForgetPeers())  # peers under these keys are nodes, not devices

    # -- questions

    def _intent(self, node_id: str) -> m.Intent:
        node = self._known(node_id)
        with self._store.read() as tx:
            peers = rows.peers_of(tx, [node_id])
        return m.Intent(node, tuple(peers[node_id]))

    def _list(self, message: m.ListNodes) -> list[m.NodeView]:
        named: Iterable[Node] = sorted(self._nodes.values(), key=lambda n: n.name)
        chosen = [n for n in named if n.name > message.after]
        return [self._view(n) for n in chosen[: message.limit]]

    def _view(self, node: Node) -> m.NodeView:
        report = self._views.get(node.id)
        if report is None:
            state = LinkState.CONNECTING if node.enabled else LinkState.DISABLED
            return m.NodeView(node, state)
        return m.NodeView(
            node=node,
            link_state=report.link_state,
            link_reason=report.reason,
            since=self._since.get(node.id, 0.0),
            last_seen=report.at if report.link_state in (LinkState.LIVE, LinkState.DEGRADED) else 0.0,
            uptime_s=report.uptime_s or 0,
            peers_configured=report.peers_configured or 0,
            peers_online=report.peers_online or 0,
            in_sync=report.in_sync and node.applied_revision == node.config_revision,
            findings=report.findings,
        )

    def _summary(self) -> m.FleetSummary:
        views = [self._view(node) for node in self._nodes.values()]
        with self._store.read() as tx:
            counts = rows.counts(tx)
        return m.FleetSummary(
            nodes=len(views),
            by_link_state=dict(Counter(v.link_state for v in views)),
            by_status=dict(Counter(v.node.status for v in views)),
            in_sync=sum(v.in_sync for v in views),
            peers=counts.peers,
            users=counts.users,
            devices=counts.devices,
        )

    def _find(self, key: str) -> Node:
        if key in self._nodes:
            return self._nodes[key]
        named = [node for node in self._nodes.values() if node.name == key]
        if not named:
            raise NotFound(f"node: there is no node with the id or name {key[:80]!r}", remedy="See: cox nodes list")
        return named[0]

    def _known(self, node_id: str) -> Node:
        node = self._nodes.get(node_id)
        if node is None:
            raise NotFound(f"node: there is no node with the id {node_id[:80]!r}", remedy="See: cox nodes list")
        return node

    def _checked(self, node_id: str, version: int | None) -> Node:
        node = self._find(node_id)
        if version is not None and version != node.version:
            raise StaleVersion(
                f"node {node.name}: version {version} was changed by somebody else; it is {node.version} now",
                current=node.version,
            )
        return node

    def _now(self) -> float:
        return self.context.clock.now()


def _mark(node: Node) -> tuple[int, int, tuple[str, ...]]:
    return m.intent_mark(node, max(1, node.config_revision))
