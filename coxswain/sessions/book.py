"""Sessions from what nodes report: pure bookkeeping, no I/O.

A session is one device's stay on one node, keyed by (node, protocol, peer), because one key may be used on several nodes
at once. Events are hints, in order but with holes (node-contract.md 5.7, 5.8); snapshots of all peers fill the holes: they
open and close what the events did not tell. Unknown bytes are None, never a false 0.

A device that moves to another address stays in its session. Of every opening, closing and move the book tells ``Boundary``
events as well: the rows of which the contract's history consists (management-plane.md 6.2). A move is the end of one
segment (``roamed``) and the begin of the next, so the segments of a session add up to what it moved.

Two clocks are at work. ``at`` of events and handshakes is the node's, which may be wrong by any amount; ``received_at`` is
ours. Order is decided within one clock only, never by comparing the two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from coxswain.messages.sessions import (
    EventKind,
    NodeEvent,
    PeerCounters,
    PeersSnapshot,
    StreamItem,
    StreamLost,
)
from coxswain.model import Protocol
from coxswain.sessions.session import Key, OpenSession

__all__ = ["NODE_GONE_S", "ONLINE_S", "Boundary", "Changes", "SessionBook"]

ONLINE_S = 180.0
"""A peer is online while its handshake is younger than this (node-contract.md 5.4)."""

NODE_GONE_S = 900.0
"""After so long without a word of a node, its sessions are closed as stream-lost."""

_IDLE_GRACE_S = 10.0
"""The agent sees that a peer fell silent up to 5 s after the fact (node-contract.md 5.5); its event is waited for."""

_SETTLED_S = 10.0
"""Events and snapshots travel side by side and may cross: for so long, neither overrules the other."""

_MOST_OF_NODE = 50_000
"""Sessions of one node that events may open: more than fit any push. One that goes on inventing peers would fill our memory;
of XRay's, no look ever closes one.
"""

_MAX_AHEAD_S = 300.0
_MAX_BEHIND_S = 900.0
"""Further off, a node's stamp is not believed. Events may be held back for minutes while a database is away."""

_REMEMBERED = 20_000

_CONNECTED = EventKind.PEER_CONNECTED
_DISCONNECTED = EventKind.PEER_DISCONNECTED


@dataclass(slots=True)
class Boundary:
    """A connect or a disconnect, as the contract has it (management-plane.md 6.2).

    Attributes:
        session: whose; attributed by whoever writes it.
        at: epoch seconds, when it happened as far as the node can be believed; ``received_at``: when we learned of it.
        reason: None: it is a connect. Of a disconnect see ``SessionView``, and ``roamed``.
        endpoint: of the segment that begins or ends.
        rx_bytes, tx_bytes: of the segment that ends; None: unknown.
        message: what the node said with it.
        seq: its number in the store; 0: not numbered yet.
        country: ISO 3166 code of where the endpoint is; None: not known.
    """

    session: OpenSession
    at: float
    received_at: float
    reason: str | None
    endpoint: str
    rx_bytes: int | None = 0
    tx_bytes: int | None = 0
    message: str = ""
    seq: int = 0
    country: str | None = None


@dataclass(slots=True)
class Changes:
    """What is not written yet. ``dirty`` has every session whose row changed, by number, the other two among them;
    ``boundaries`` are in the order in which they were learned of.
    """

    opened: list[OpenSession] = field(default_factory=list)
    closed: list[OpenSession] = field(default_factory=list)
    dirty: dict[int, OpenSession] = field(default_factory=dict)
    boundaries: list[Boundary] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Over:
    """The end of a peer's last session: the node's stamp of its last event, and when it was closed, by our clock."""

    event_at: float
    seen_at: float


class SessionBook:
    """All open sessions, and what changed since ``saved``.

    Args:
        open_sessions: those that were open when the controller stopped; the first snapshot of their node decides.
        next_id: number of the next session.
        now: epoch seconds.
        node_gone_s: after how many seconds of silence a node's sessions are closed.
    """

    def __init__(
        self,
        open_sessions: Iterable[OpenSession] = (),
        next_id: int = 1,
        now: float = 0.0,
        *,
        node_gone_s: float = NODE_GONE_S,
    ) -> None:
        self._open: dict[Key, OpenSession] = {s.key: s for s in open_sessions}
        self._of_node: dict[str, set[Key]] = {}
        for key in self._open:
            self._of_node.setdefault(key[0], set()).add(key)
        self._next_id = next_id
        self._node_gone_s = node_gone_s
        self._silent_since: dict[str, float] = dict.fromkeys(self._of_node, now)
        self._unseen = set(self._of_node)
        self._over: OrderedDict[Key, _Over] = OrderedDict()
        self.changes = Changes()
        self.not_devices: frozenset[str] = frozenset()
        self.ignored = 0

    @property
    def active(self) -> int:
        return len(self._open)

    def active_by_node(self) -> dict[str, int]:
        return {node_id: len(keys) for node_id, keys in self._of_node.items() if keys}

    def apply(self, item: StreamItem) -> None:
        """Takes one item in."""
        if isinstance(item, NodeEvent):
            if item.kind is _CONNECTED:
                self._on_connected(item)
            elif item.kind is _DISCONNECTED:
                self._on_disconnected(item)
        elif isinstance(item, PeersSnapshot):
            self._on_snapshot(item)
        else:
            self._on_lost(item)

    def expire(self, now: float) -> None:
        """Closes the sessions of nodes that have been silent for too long; their bytes are the last known ones.

        Of a node that was not heard of since the controller started, nobody knows when the sessions ended: they are closed
        at their last sign of life.
        """
        for node_id, since in list(self._silent_since.items()):
            if now - since >= self._node_gone_s:
                del self._silent_since[node_id]
                for key in list(self._of_node.get(node_id, ())):
                    session = self._open[key]
                    if node_id in self._unseen:
                        self._close(session, session.last_at, now, "controller-restart", is_counted=False)
                    else:
                        self._close(session, max(session.last_at, since), now, "stream-lost", is_counted=False)
                self._unseen.discard(node_id)

    def session_of(self, key: Key) -> OpenSession | None:
        """The open session of a peer."""
        return self._open.get(key)

    def saved(self) -> None:
        """The changes are durable; begins to gather new ones."""
        self.changes = Changes()

    # -- events

    def _on_connected(self, event: NodeEvent) -> None:
        key = (event.node_id, event.protocol, event.peer_key)
        session = self._open.get(key)
        if session is None:
            over = self._over.get(key)
            if (over is not None and event.at < over.event_at) or event.peer_key in self.not_devices:
                self.ignored += 1  # a repeat of what is over, or another node
                return
            if len(self._of_node.get(event.node_id, ())) >= _MOST_OF_NODE:
                self.ignored += 1
                return
            session = self._begin(key, _believed(event), event.received_at, event.endpoint, event.message)
            session.begin_count(event.rx_bytes, event.tx_bytes)
        else:
            if session.event_at is not None and event.at < session.event_at:
                self.ignored += 1
                return
            self._count(session, event)
            if event.endpoint not in {"", session.endpoint}:
                self._roam(session, event.endpoint, _believed(event), event.received_at)
            session.last_at = max(session.last_at, _believed(event))
            self.changes.dirty[session.id] = session
        session.event_at = event.at
        session.seen_at = event.received_at

    def _on_disconnected(self, event: NodeEvent) -> None:
        key = (event.node_id, event.protocol, event.peer_key)
        session = self._open.get(key)
        if session is None or (session.event_at is not None and event.at < session.event_at):
            self.ignored += 1  # of a peer that was never connected (node-contract.md 5.4), or a repeat
            return
        is_counted = bool(event.rx_bytes or event.tx_bytes)
        if is_counted:
            self._count(session, event)
        session.event_at = event.at
        reason = "node-shutdown" if event.message == "node-shutdown" else "disconnect"
        self._close(session, _believed(event), event.received_at, reason, is_counted=is_counted, message=event.message)

    @staticmethod
    def _count(session: OpenSession, event: NodeEvent) -> None:
        """Counters of an event are those of the agent's last poll; a snapshot that overtook it knows better."""
        overtaken = event.received_at - session.looked_at < _SETTLED_S
        if not (overtaken and session.is_behind(event.rx_bytes, event.tx_bytes)):
            session.count(event.rx_bytes, event.tx_bytes)

    # -- snapshots

    def _on_snapshot(self, snapshot: PeersSnapshot) -> None:
        node_id = snapshot.node_id
        anew = self._silent_since.pop(node_id, None) is not None  # nothing is on its way on the stream that was lost
        self._unseen.discard(node_id)
        seen: set[Key] = set()
        for peer in snapshot.peers:
            key = (node_id, peer.protocol, peer.peer_key)
            seen.add(key)
            session = self._open.get(key)
            age = snapshot.node_now - peer.last_handshake if peer.last_handshake > 0 else float("inf")
            if session is not None:
                self._compare(session, peer, snapshot, age)
            elif age < ONLINE_S and peer.peer_key not in self.not_devices and (anew or not self._just_over(key, snapshot)):
                # No event announced it; what it moved before is unknown.
                self._found(key, peer, snapshot).begin_count(peer.rx_bytes, peer.tx_bytes)
        for key in list(self._of_node.get(node_id, ())):
            # Only AmneziaWG peers are ever listed here; of others this snapshot says nothing.
            if key not in seen and key[1] is Protocol.AMNEZIAWG:
                session = self._open[key]
                if snapshot.received_at - session.seen_at >= _SETTLED_S:
                    self._close(session, snapshot.received_at, snapshot.received_at, "peer-removed", is_counted=False)

    def _just_over(self, key: Key, snapshot: PeersSnapshot) -> bool:
        """Its disconnect may have overtaken this look, which then shows what was before it; the next look tells."""
        over = self._over.get(key)
        return over is not None and snapshot.received_at - over.seen_at < _SETTLED_S

    def _compare(self, session: OpenSession, peer: PeerCounters, snapshot: PeersSnapshot, age: float) -> None:
        """One open session with what the node shows of it. ``age``: seconds since its last handshake."""
        now = snapshot.received_at
        is_blank = peer.last_handshake == 0 and peer.rx_bytes == peer.tx_bytes == 0
        was_blank, session.is_blank = session.is_blank, is_blank
        if is_blank and not was_blank:
            return  # made anew, or the agent could not read its peers this time (node-contract.md 4.9); the next look tells
        unsettled = now - session.seen_at < _SETTLED_S
        went_back = session.is_behind(peer.rx_bytes, peer.tx_bytes)
        if went_back and unsettled:
            return  # an event overtook this look
        if age >= ONLINE_S + _IDLE_GRACE_S and not unsettled:
            session.count(peer.rx_bytes, peer.tx_bytes)
            ended = min(now, max(session.last_at, peer.last_handshake + ONLINE_S))
            self._close(session, ended, now, "idle", is_counted=True)
        elif went_back:
            # The interface or the peer was made anew between two looks. Its counters began at 0 then.
            self._close(session, now, now, "counter-reset", is_counted=False)
            again = self._found(session.key, peer, snapshot)
            again.begin_count(0, 0)
            again.count(peer.rx_bytes, peer.tx_bytes)
        else:
            # Where an event was heard just now, this look may be older than it: its address says nothing new.
            moved = not unsettled and peer.endpoint not in {"", session.endpoint}
            if not moved and session.has_counted(peer.rx_bytes, peer.tx_bytes):
                return
            session.count(peer.rx_bytes, peer.tx_bytes)
            if moved:
                self._roam(session, peer.endpoint, now, now)
            session.last_at = max(session.last_at, min(peer.last_handshake, now))
            session.looked_at = now
            self.changes.dirty[session.id] = session

    def _found(self, key: Key, peer: PeerCounters, snapshot: PeersSnapshot) -> OpenSession:
        session = self._begin(key, snapshot.received_at, snapshot.received_at, peer.endpoint)
        session.looked_at = snapshot.received_at
        return session

    def _on_lost(self, lost: StreamLost) -> None:
        self._silent_since.setdefault(lost.node_id, lost.received_at)

    # -- the book

    def _begin(self, key: Key, at: float, seen_at: float, endpoint: str, message: str = "") -> OpenSession:
        session = OpenSession(self._next_id, key, at, seen_at)
        if endpoint:
            session.move_to(endpoint, at)
        self._next_id += 1
        self._open[key] = session
        self._of_node.setdefault(key[0], set()).add(key)
        self.changes.opened.append(session)
        self.changes.dirty[session.id] = session
        self.changes.boundaries.append(Boundary(session, at, seen_at, None, endpoint, message=message))
        return session

    def _roam(self, session: OpenSession, endpoint: str, at: float, seen_at: float) -> None:
        """The same session from another address. Called after the bytes of the old one were counted."""
        at = max(at, session.endpoints[-1][0] if session.endpoints else session.opened_at)
        self._tell_end(session, at, seen_at, "roamed")
        session.move_to(endpoint, at)
        self.changes.boundaries.append(Boundary(session, at, seen_at, None, endpoint))

    def _tell_end(self, session: OpenSession, at: float, seen_at: float, reason: str, message: str = "") -> None:
        rx_bytes, tx_bytes = session.segment()
        end = Boundary(session, at, seen_at, reason, session.endpoint, rx_bytes, tx_bytes, message)
        self.changes.boundaries.append(end)

    def _close(
        self, session: OpenSession, at: float, seen_at: float, reason: str, *, is_counted: bool, message: str = ""
    ) -> None:
        session.close(at, seen_at, reason, is_counted=is_counted)
        self._tell_end(session, session.closed_at or at, seen_at, reason, message)
        key = session.key
        del self._open[key]
        of_node = self._of_node[key[0]]
        of_node.discard(key)
        if not of_node:
            del self._of_node[key[0]]
            self._silent_since.pop(key[0], None)
        if session.event_at is not None:
            self._over[key] = _Over(session.event_at, seen_at)
            self._over.move_to_end(key)
            if len(self._over) > _REMEMBERED:
                self._over.popitem(last=False)
        self.changes.closed.append(session)
        self.changes.dirty[session.id] = session


def _believed(event: NodeEvent) -> float:
    """When it happened: a node's clock may be off, and then ours is taken (management-plane.md 13.1, 8)."""
    behind = event.received_at - event.at
    return event.at if -_MAX_AHEAD_S <= behind <= _MAX_BEHIND_S else event.received_at
