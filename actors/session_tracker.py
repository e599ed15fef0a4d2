"""``session_tracker``: node events in, sessions out, durable in batches.

A batch's sessions, their boundary events, what they add to the totals, and the batch's number are written in one
transaction; only then is it acknowledged to the funnel, which sends the next. So a crash anywhere loses no batch and counts
none twice. Power loss may take the last second (BATCHED commits); the first snapshot of each node after it puts sessions
right again. While the database does not answer, what a batch changed waits here, and the funnel holds the rest back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from actors.supervision import Actor, Context
from coxswain.clock import to_micros
from coxswain.errors import CoxswainError, StoreUnavailable
from coxswain.geoip import Location
from coxswain.live.frames import boundary_frame, node_event_frame
from coxswain.messages.geo import Locate
from coxswain.messages.hub import Publish, PublishAll
from coxswain.messages.sessions import (
    EventBatch,
    EventKind,
    ForgetPeers,
    GetActiveSessions,
    GetSessionCounts,
    NodeEvent,
    SessionCounts,
)
from coxswain.sessions import NODE_GONE_S, Boundary, Changes, Key, SessionBook, source_ip
from coxswain.store import Durability, Store
from coxswain.store import fleet as fleet_rows
from coxswain.store import session_records as records
from coxswain.store import session_totals as totals
from coxswain.store import sessions as rows

__all__ = ["SessionTracker"]

_EXPIRE_S = 10.0
_PUBLISH_PER_S = 5_000
"""Events that are told one by one within a second; beyond that only their number is."""

_RETRY_S = 2.0
"""After the database did not answer: waiting for it again at once, for each copy that the funnel sent meanwhile, would leave
no time for anybody else."""

_GEO_S = 1.0
_GEO_RETRY_S = 60.0
_CACHE_MOST = 50_000
_STRANGER_S = 60.0
"""For so long a peer whom nobody knew is not looked up again for an event that opens no session."""

_BOUNDARY_KINDS = (EventKind.PEER_CONNECTED, EventKind.PEER_DISCONNECTED)


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
        geo: whom to ask where addresses are; empty: nobody.
        on_untold: told how many events were not published one by one, as more came than may be.
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
        geo: str = "",
        on_untold: Callable[[int], object] = lambda _count: None,
    ) -> None:
        super().__init__(context)
        self._epoch = epoch
        self._store = store
        self._acknowledge = acknowledge
        self._node_gone_s = node_gone_s
        self._geo = geo
        self._geo_retry_at = float("-inf")
        self._on_untold = on_untold
        self._book = SessionBook()
        self._durable = (epoch, 0)
        self._applied = self._durable
        self._owners: dict[Key, tuple[str, str]] = {}
        self._strangers: dict[Key, float] = {}
        self._heard: list[Boundary | NodeEvent] = []
        self._heard_boundaries = 0
        self._record_seq = 0
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
            self._record_seq = records.last_seq(tx)
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
                self._strangers.clear()
                self._node_keys_are_stale = True
            case GetSessionCounts():
                return SessionCounts(self._book.active, self._opened, self._closed, self._events, self._duplicates)
            case GetActiveSessions():
                return self._book.active_by_node()
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
            if isinstance(item, NodeEvent) and item.kind not in _BOUNDARY_KINDS:
                self._heard.append(item)
            else:
                self._hear_boundaries()
        self._applied = batch.epoch, batch.number
        self._events += len(batch.items)

    def _expire(self) -> None:
        self._book.expire(self._now())
        self._hear_boundaries()
        # What waits because of an outage goes with its batch: written without it, it would be counted twice after a crash.
        if self._applied == self._durable:
            try:
                self._write(None)
            except StoreUnavailable as error:
                self.context.log.warning("closed sessions wait: %s", error)

    def _hear_boundaries(self) -> None:
        """Keeps the order in which things happened, for those who watch."""
        boundaries = self._book.changes.boundaries
        if len(boundaries) > self._heard_boundaries:
            self._heard += boundaries[self._heard_boundaries :]
            self._heard_boundaries = len(boundaries)

    # -- writing

    def _write(self, batch: EventBatch | None) -> None:
        changes = self._book.changes
        told = self._to_be_told()
        self._attribute(told)
        if changes.dirty:
            self._store_changes(changes, batch)
        if batch is not None:  # one that changed nothing does so again, if it comes again after a crash
            self._durable = batch.epoch, batch.number
        self._tell(told)

    def _store_changes(self, changes: Changes, batch: EventBatch | None) -> None:
        self._number(changes.boundaries)
        self._place(changes.boundaries)
        now = self._now()
        with self._store.write(Durability.BATCHED) as tx:
            rows.save(tx, changes.dirty.values())
            records.add(tx, changes.boundaries)
            totals.add(tx, changes, now=now)
            opened, closed = self._opened + len(changes.opened), self._closed + len(changes.closed)
            if batch is not None:
                made = rows.Progress(batch.number, opened, closed, self._events)
                rows.note_progress(tx, batch.epoch, made, now=now)
        totals.totalled(changes.dirty.values())
        for boundary in changes.boundaries:
            boundary.session.country_is_new = False
        self._book.saved()
        self._opened, self._closed = opened, closed

    def _number(self, boundaries: Iterable[Boundary]) -> None:
        """Numbers rise, and say roughly when: so they are not given twice, also where a backup is put back."""
        for boundary in boundaries:
            if not boundary.seq:
                self._record_seq = max(self._record_seq + 1, to_micros(self._now()))
                boundary.seq = self._record_seq

    def _place(self, boundaries: Sequence[Boundary]) -> None:
        """In which countries they are. A session is where it came from last. Who knows is asked once for a batch; one
        that does not answer is left alone for a minute, and rows of that time say nothing.
        """
        addresses = {source_ip(boundary.endpoint) for boundary in boundaries} - {""}
        if not addresses or not self._geo or self.context.clock.monotonic() < self._geo_retry_at:
            return
        try:
            found: dict[str, Location] = self.context.ask(self._geo, Locate(tuple(addresses)), deadline=_GEO_S)
        except CoxswainError as error:
            self.context.log.warning("sessions are recorded without countries for a minute: %s", error)
            self._geo_retry_at = self.context.clock.monotonic() + _GEO_RETRY_S
            return
        for boundary in boundaries:
            place = found.get(source_ip(boundary.endpoint))
            boundary.country = (place.country_code or None) if place is not None else None
            session = boundary.session
            if boundary.reason is None and session.country != boundary.country:
                session.country, session.country_is_new = boundary.country, True

    def _attribute(self, told: list[Boundary | NodeEvent]) -> None:
        """A session whose peer nobody knows is looked up each time: it may be known by then."""
        opened = self._book.changes.opened
        monotonic = self.context.clock.monotonic()
        wanted = {session.key for session in opened}
        for event in told:
            if isinstance(event, NodeEvent) and event.peer_key:
                key = (event.node_id, event.protocol, event.peer_key)
                if monotonic - self._strangers.get(key, float("-inf")) >= _STRANGER_S:
                    wanted.add(key)
        unknown = [key for key in wanted if key not in self._owners]
        if unknown:
            with self._store.read() as tx:
                found = fleet_rows.attribution(tx, unknown)
            if len(self._owners) + len(self._strangers) + len(unknown) > _CACHE_MOST:
                self._owners.clear()
                self._strangers.clear()
            self._owners.update(found)
            self._strangers.update((key, monotonic) for key in unknown if key not in found)
        for session in opened:
            session.device_id, session.user_id = self._owners.get(session.key, (None, None))

    # -- telling

    def _to_be_told(self) -> list[Boundary | NodeEvent]:
        """As many of what was heard as may be told within this second."""
        second = int(self.context.clock.monotonic())
        if second != self._publish_second:
            self._publish_second, self._publish_left = second, _PUBLISH_PER_S
        return self._heard[: self._publish_left]

    def _tell(self, told: list[Boundary | NodeEvent]) -> None:
        self._publish_left -= len(told)
        events = [
            boundary_frame(event)
            if isinstance(event, Boundary)
            else node_event_frame(event, self._owners.get((event.node_id, event.protocol, event.peer_key)))
            for event in told
        ]
        untold = len(self._heard) - len(told)
        if untold:
            self._on_untold(untold)
            events.append(Publish("dropped", self._now(), {"node_id": "", "count": untold, "reason": "flood"}))
        self._heard.clear()
        self._heard_boundaries = 0
        if events and not self.context.tell("event_hub", PublishAll(tuple(events))):
            self._on_untold(len(told))

    def _now(self) -> float:
        return self.context.clock.now()
