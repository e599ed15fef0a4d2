"""The process is killed at random moments under load; what was not acknowledged is sent again. Every session is there in the
end, once, with the counts that an undisturbed run would have."""

from __future__ import annotations

import base64
import pickle
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from coxswain.messages.sessions import (
    EventBatch,
    EventKind,
    ListRecords,
    ListSessions,
    ListTotals,
    NodeEvent,
    PeerCounters,
    PeersSnapshot,
    SessionView,
    StreamItem,
)
from coxswain.model import Protocol
from coxswain.sessions import SessionBook
from coxswain.store import open_store
from coxswain.store.session_records import list_records
from coxswain.store.session_totals import list_totals
from coxswain.store.sessions import list_sessions, progress

AWG = Protocol.AMNEZIAWG
CHILD = Path(__file__).with_name("session_tracker_process.py")
BATCHES, NODES, PEERS, KILLS = 40, 12, 40, 24


class Child:
    """One life of the process."""

    def __init__(self, where: str) -> None:
        self.acknowledged: queue.Queue[int] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.acknowledged.put(int(line.split()[1]))

    def send(self, batch: EventBatch) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(base64.b64encode(pickle.dumps(batch)).decode() + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


def fleet_stream(rng: random.Random) -> list[EventBatch]:
    """Connects, roams, disconnects and looks of some nodes over time; 30 s from batch to batch."""
    start = time.time() - 3600
    open_peers: set[tuple[str, str]] = set()
    counters: dict[tuple[str, str], int] = {}
    batches = []
    for number in range(1, BATCHES + 1):
        now = start + number * 30
        items: list[StreamItem] = []
        for node in rng.sample(range(NODES), 4):
            node_id = f"nod_{node}"
            there = [peer for on, peer in sorted(open_peers) if on == node_id]
            rows = tuple(PeerCounters(AWG, peer, now - 60, counters[node_id, peer], 0) for peer in there)
            items.append(PeersSnapshot(node_id, now, now, rows))
        for _ in range(1000):
            key = (f"nod_{rng.randrange(NODES)}", f"peer_{rng.randrange(PEERS)}")
            counters[key] = counters.get(key, 0) + rng.randrange(1000)
            ends = key in open_peers and rng.random() < 0.5
            kind = EventKind.PEER_DISCONNECTED if ends else EventKind.PEER_CONNECTED
            (open_peers.discard if ends else open_peers.add)(key)
            at = now + len(items) * 0.005
            items.append(NodeEvent(key[0], at, at, kind, AWG, key[1], "", f"198.51.100.7:{number}", counters[key], 0))
        batches.append(EventBatch("epoch", number, tuple(items)))
    return batches


def undisturbed(batches: list[EventBatch]) -> list[tuple[object, ...]]:
    book = SessionBook()
    for batch in batches:
        for item in batch.items:
            book.apply(item)
    return sorted(
        (s.id, *s.key, round(s.opened_at, 3), s.closed_at and round(s.closed_at, 3), s.endpoint, s.rx_bytes, s.reason)
        for s in book.changes.dirty.values()
    )


def summary(view: SessionView) -> tuple[object, ...]:
    closed_at = None if view.closed_at is None else round(view.closed_at, 3)
    where = (view.node_id, view.protocol, view.peer_key)
    return (view.id, *where, round(view.opened_at, 3), closed_at, view.endpoint, view.rx_bytes, view.reason)


def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(fresh_where: Callable[[], str]) -> None:
    where = fresh_where()
    rng = random.Random(20)
    batches = fleet_stream(rng)
    kill_at = set(rng.sample(range(1, BATCHES + 1), KILLS))
    child = Child(where)
    try:
        for batch in batches:
            child.send(batch)
            if batch.number in kill_at:
                # Anywhere between its arrival and well after its acknowledgement.
                time.sleep(rng.uniform(0, 0.05))
                child.kill()
                child = Child(where)
                child.send(batch)
            assert child.acknowledged.get(timeout=30) == batch.number
        child.kill()
    finally:
        child.kill()
    store = open_store(where)
    try:
        with store.read() as tx:
            assert progress(tx, "epoch").number == BATCHES
            views = list_sessions(tx, ListSessions(limit=1_000_000))
            stored = sorted(summary(view) for view in views)
            told = list_records(tx, ListRecords(limit=1_000_000))
            totals = list_totals(tx, ListTotals(by="node", limit=1_000))
    finally:
        store.close()
    expected = undisturbed(batches)
    assert len(expected) > 5_000
    assert stored == expected
    # What the contract's rows tell, and the totals, is what the sessions tell: nothing twice, nothing missing.
    segments: Counter[int] = Counter()
    for record in told:
        segments[record.session_id] += record.rx_bytes or 0
    by_node: dict[str, Counter[str]] = {}
    for view in views:
        if view.closed_at is not None:
            assert segments[view.id] == (view.rx_bytes or 0)
        by_node.setdefault(view.node_id, Counter())["rx"] += view.rx_bytes or 0
        by_node[view.node_id]["opened"] += 1
        by_node[view.node_id]["closed"] += view.closed_at is not None
    assert {t.id: Counter(rx=t.rx_bytes, opened=t.opened, closed=t.closed) for t in totals} == by_node
    assert Counter(record.reason for record in told)[None] == len(views) + sum(view.roams for view in views)
