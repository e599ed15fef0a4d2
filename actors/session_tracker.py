"""``session_tracker``: node events in, sessions out, durable in batches.

A batch's sessions and its number are written in one transaction; only then is it acknowledged to the funnel, which sends
the next. So a crash anywhere loses no batch and counts none twice. Power loss may take the last second (BATCHED commits);
the first snapshot of each node after it puts sessions right again. While the database does not answer, what a batch changed
waits here, and the funnel holds the rest back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from actors.supervision import Actor, Context
from coxswain.errors import StoreUnavailable
from coxswain.messages.hub import Publish, PublishAll
from coxswain.messages.sessions import (
    EventBatch,
    ForgetPeers,
    GetActiveSessions,
    GetSessionCounts,
    ListSessions,
    SessionCounts,
    SessionView,
)
from coxswain.sessions import NODE_GONE_S, Key, OpenSession, SessionBook
from coxswain.store import Durability, Store
from coxswain.store import fleet as fleet_rows
from coxswain.store import sessions as rows

__all__ = ["SessionTracker"]

_EXPIRE_S = 10.0
_PUBLISH_PER_S = 200
"""Sessions that are told one by one within a second; beyond that only their number is."""

_RETRY_S = 2.0
"""After the database did not answer: waiting for it again at once, for each copy that the funnel sent meanwhile, would leave
no time for anybody else."""

_CACHE_MOST = 50_000
_LIST_MOST = 1_000


class _Expire:
    """To itself: look for nodes that have been silent for too long."""


class SessionTracker(Actor):
    """Holds every open session in memory, and an attribution for each of the last 50,000 peers.

    Args:
        context: its place in the system.
        epoch: this run of the daemon, as the funnel numbers it; what is counted, is counted since its start.
        store: where sessions go.
        acknowledge: the funnel's, called with (epoch, number) on this actor's thread.
        node_gone_s: after how many seconds of silence a node's sessions are closed as stream-lost.
    """

    mailbox_capacity = 10_000

    def __init__(
        self,
        context: Context,
        *,
        epoch: str,
        store: Store,
        acknowledge: Callable[[str, int], None],
        node_gone_s: float = NODE_GONE_S,
    ) -> None:
        super().__init__(context)
        self._epoch = epoch
        self._store = store
        self._acknowledge = acknowledge
        self._node_gone_s = node_gone_s
        self._book = SessionBook()
        self._durable = (epoch, 0)
        self._applied = self._durable
        self._owners: dict[Key, tuple[str, str]] = {}
        self._node_keys_are_stale = False
        self._opened = self._closed = self._events = self._duplicates = 0
        self._retry_at = float("-inf")
        self._publish_second = 0
        self._publish_left = 0

    def started(self) -> None:
        with self._store.read() as tx:
            self._book = SessionBook(rows.load_open(tx), rows.next_id(tx), self._now(), node_gone_s=self._node_gone_s)
            self._book.not_devices = fleet_rows.node_keys(tx)
            self._resume(self._epoch, rows.progress(tx, self._epoch))
        self.context.after(_EXPIRE_S, _Expire())

    def receive(self, message: Any) -> Any:
        match message:
            case EventBatch():
                self._take(message)
            case _Expire():
                self._expire()
                self.context.after(_EXPIRE_S, message)
            case ForgetPeers():
                self._owners.clear()
                self._node_keys_are_stale = True
            case GetSessionCounts():
                return SessionCounts(self._book.active, self._opened, self._closed, self._events, self._duplicates)
            case GetActiveSessions():
                return self._book.active_by_node()
            case ListSessions():
                return self._list(message)
        return None

    # -- taking in

    def _take(self, batch: EventBatch) -> None:
        if self.context.clock.monotonic() < self._retry_at:
            return  # the funnel sends it again
        try:
            if self._is_durable(batch):
                self._duplicates += 1
            else:
                self._apply(batch)
                self._write(batch)
        except StoreUnavailable as error:
            self.context.log.warning("batch %d waits: %s", batch.number, error)
            self._retry_at = self.context.clock.monotonic() + _RETRY_S
            return
        self._acknowledge(batch.epoch, batch.number)

    def _is_durable(self, batch: EventBatch) -> bool:
        if self._durable[0] != batch.epoch:
            with self._store.read() as tx:
                self._resume(batch.epoch, rows.progress(tx, batch.epoch))
        return batch.number <= self._durable[1]

    def _resume(self, epoch: str, made: rows.Progress) -> None:
        """After a restart of this actor the store knows how far it came."""
        self._durable = self._applied = epoch, made.number
        self._opened, self._closed, self._events = made.opened, made.closed, made.events

    def _apply(self, batch: EventBatch) -> None:
        if self._applied == (batch.epoch, batch.number):
            return  # it could not be written last time; the book has it
        if self._node_keys_are_stale:
            with self._store.read() as tx:
                self._book.not_devices = fleet_rows.node_keys(tx)
            self._node_keys_are_stale = False
        for item in batch.items:
            self._book.apply(item)
        self._applied = batch.epoch, batch.number
        self._events += len(batch.items)

    def _expire(self) -> None:
        self._book.expire(self._now())
        # What waits because of an outage goes with its batch: written without it, it would be counted twice after a crash.
        if self._applied == self._durable:
            try:
                self._write(None)
            except StoreUnavailable as error:
                self.context.log.warning("closed sessions wait: %s", error)

    # -- writing

    def _write(self, batch: EventBatch | None) -> None:
        changes = self._book.changes
        if not changes.dirty and batch is None:
            return
        self._attribute(changes.opened)
        with self._store.write(Durability.BATCHED) as tx:
            rows.save(tx, changes.dirty.values())
            opened, closed = self._opened + len(changes.opened), self._closed + len(changes.closed)
            if batch is not None:
                made = rows.Progress(batch.number, opened, closed, self._events)
                rows.note_progress(tx, batch.epoch, made, now=self._now())
        self._book.saved()
        if batch is not None:
            self._durable = batch.epoch, batch.number
        self._opened, self._closed = opened, closed
        told = (*self._told("session.opened", changes.opened), *self._told("session.closed", changes.closed))
        if told:
            self.context.tell("event_hub", PublishAll(told))

    def _attribute(self, opened: list[OpenSession]) -> None:
        """Peers that nobody knows are looked up each time: they may be known by then."""
        unknown = [s.key for s in opened if s.key not in self._owners]
        if unknown:
            with self._store.read() as tx:
                found = fleet_rows.attribution(tx, unknown)
            if len(self._owners) + len(found) > _CACHE_MOST:
                self._owners.clear()
            self._owners.update(found)
        for session in opened:
            session.device_id, session.user_id = self._owners.get(session.key, (None, None))

    # -- telling

    def _told(self, kind: str, sessions: list[OpenSession]) -> list[Publish]:
        second = int(self.context.clock.monotonic())
        if second != self._publish_second:
            self._publish_second, self._publish_left = second, _PUBLISH_PER_S
        told = sessions[: self._publish_left]
        self._publish_left -= len(told)
        events = [Publish(kind, session.closed_at or session.opened_at, _event_data(session)) for session in told]
        if len(sessions) > len(told):
            events.append(Publish(kind, self._now(), {"more": len(sessions) - len(told)}))
        return events

    def _list(self, query: ListSessions) -> list[SessionView]:
        with self._store.read() as tx:
            return rows.list_sessions(tx, dataclasses.replace(query, limit=max(0, min(query.limit, _LIST_MOST))))

    def _now(self) -> float:
        return self.context.clock.now()


def _event_data(session: OpenSession) -> dict[str, Any]:
    node_id, protocol, peer_key = session.key
    data: dict[str, Any] = {
        "session_id": session.id,
        "node_id": node_id,
        "protocol": protocol.name,
        "peer_key": peer_key,
        "device_id": session.device_id,
        "user_id": session.user_id,
        "endpoint": session.endpoint,
    }
    if session.closed_at is not None:
        data |= {"reason": session.reason, "rx_bytes": session.rx_bytes, "tx_bytes": session.tx_bytes}
    return data
