"""The tracker in a real system, on both stores; only the funnel and the nodes are played by the test."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from actors.event_hub import EventHub
from actors.session_archive import SessionArchive, _Purge
from actors.session_tracker import SessionTracker, _Expire
from actors.supervision import Actor, ChildSpec, Context, System
from actors.supervision.actor import Harm
from coxswain.clock import SystemClock
from coxswain.geoip import Location
from coxswain.live.ring import EventRing
from coxswain.messages.geo import Locate
from coxswain.messages.hub import EventsAfter, Publish
from coxswain.messages.names import NamesOf
from coxswain.messages.sessions import (
    EventBatch,
    EventKind,
    ForgetPeers,
    GetSessionCounts,
    ListRecords,
    ListSessions,
    NodeEvent,
    SessionCounts,
    SessionView,
    StreamItem,
    StreamLost,
)
from coxswain.model import Device, Node, Peer, Protocol, User
from coxswain.store import Store, open_store
from coxswain.store import fleet as rows
from coxswain.store.accounts import delete_user, insert_user
from tests.postgres import PostgresServer
from tests.support import eventually

AWG = Protocol.AMNEZIAWG
T = 1_700_000_000.0


def event(kind: EventKind, at: float, key: str = "p1", rx: int = 0, tx: int = 0, node: str = "nod_a") -> NodeEvent:
    return NodeEvent(node, T + at, T + at, kind, AWG, key, "", "198.51.100.7:4000", rx, tx)


def connected(at: float, key: str = "p1", rx: int = 0, tx: int = 0, node: str = "nod_a") -> NodeEvent:
    return event(EventKind.PEER_CONNECTED, at, key, rx, tx, node)


def disconnected(at: float, key: str = "p1", rx: int = 0, tx: int = 0, node: str = "nod_a") -> NodeEvent:
    return event(EventKind.PEER_DISCONNECTED, at, key, rx, tx, node)


class Geo(Actor):
    """Knows where ``places`` says that addresses are; says nothing while that is empty, as without a database."""

    def __init__(self, context: Context, *, places: dict[str, Location]) -> None:
        super().__init__(context)
        self._places = places

    def receive(self, message: Any) -> Any:
        assert isinstance(message, Locate)
        return {host: self._places[host] for host in message.hosts if host in self._places}


class Rig:
    """A hub and a tracker, and the funnel's side of the conversation."""

    def __init__(self, store: Store) -> None:
        self.acknowledged: queue.Queue[tuple[str, int]] = queue.Queue()
        self.keep_days = 0
        self.untold: list[int] = []
        self.places: dict[str, Location] = {}
        kwargs = {
            "store": store,
            "epoch": "e",
            "acknowledge": lambda epoch, number: self.acknowledged.put((epoch, number)),
            "node_gone_s": 5.0,
            "on_untold": self.untold.append,
            "geo": "geo_locator",
        }
        self.system = System(
            children=(
                ChildSpec("event_hub", EventHub, {"store": store, "ring": EventRing()}),
                ChildSpec("geo_locator", Geo, {"places": self.places}),
                ChildSpec("session_tracker", SessionTracker, kwargs, hang_s=30.0),
                ChildSpec("session_archive", SessionArchive, {"store": store, "keep_days": lambda: self.keep_days}),
            ),
            clock=SystemClock(),
            rng=random.Random(1),
            allow_chaos=True,
        )

    def send(self, number: int, *items: StreamItem, epoch: str = "e") -> None:
        assert self.system.tell("session_tracker", EventBatch(epoch, number, items))
        assert self.acknowledged.get(timeout=30) == (epoch, number)

    def counts(self) -> SessionCounts:
        found: SessionCounts = self.system.ask("session_tracker", GetSessionCounts(), deadline=10)
        return found

    def list(self, **query: object) -> list[SessionView]:
        found: list[SessionView] = self.system.ask("session_archive", ListSessions(**query), deadline=10)  # type: ignore[arg-type]
        return found

    def published(self) -> list[Publish]:
        found = self.system.ask("event_hub", EventsAfter(0, 10_000), deadline=10)
        return [event.event for event in found.events]


@contextmanager
def running(store: Store) -> Iterator[Rig]:
    rig = Rig(store)
    rig.system.start()
    rig.counts()  # it is up
    try:
        yield rig
    finally:
        assert rig.system.stop()


@pytest.fixture
def rig(store: Store) -> Iterator[Rig]:
    with running(store) as made:
        yield made


def add_peer(store: Store, key: str, *, node: str = "nod_a", node_key: str = "") -> None:
    with store.write() as tx:
        if rows.get_node(tx, node, now=T) is None:
            rows.insert_node(tx, Node(node, node, wg_public_key=node_key, created_at=T, updated_at=T))
        rows.upsert_users(tx, [User(f"usr_{key}", "", "")], now=T)
        rows.upsert_devices(tx, [Device(f"dev_{key}", f"usr_{key}", "phone")], now=T)
        rows.put_peers(tx, [Peer(f"per_{key}_{node}", node, f"dev_{key}", AWG, key, (f"10.7.0.{key[1:]}",))], now=T)


def test_a_session_is_whose_peer_it_is_of(store: Store, rig: Rig) -> None:
    add_peer(store, "p1")
    rig.send(1, connected(0, rx=100, tx=200), connected(5, "stranger"))
    stranger, known = rig.list(active=True)
    assert (known.device_id, known.user_id, known.closed_at) == ("dev_p1", "usr_p1", None)
    assert (stranger.device_id, stranger.user_id) == (None, None)
    rig.send(2, disconnected(300, rx=150, tx=1200))
    [closed] = rig.list(active=False)
    expected = SessionView(
        known.id,
        *("nod_a", AWG, "p1", "dev_p1", "usr_p1", T, T + 300, "198.51.100.7:4000", 50, 1000, "disconnect"),
        endpoints=((T, "198.51.100.7:4000"),),
        last_at=T,
    )
    assert closed == expected
    assert rig.counts() == SessionCounts(active=1, opened=2, closed=1, events=3, duplicates=0)
    kinds = [message.kind for message in rig.published()]
    assert kinds == ["PEER_CONNECTED", "PEER_CONNECTED", "PEER_DISCONNECTED"]
    assert rig.published()[-1].data["rx_bytes"] == 50
    assert rig.published()[-1].data["user"] == "usr_p1"


def test_a_batch_that_comes_twice_counts_once_and_is_acknowledged_twice(rig: Rig) -> None:
    for _ in range(2):
        rig.send(1, connected(0), disconnected(300, rx=7))
    assert rig.counts() == SessionCounts(active=0, opened=1, closed=1, events=2, duplicates=1)
    rig.send(1, connected(400), epoch="another")
    assert rig.counts().active == 1


@pytest.mark.parametrize("how", [Harm.RAISE, Harm.EXIT, Harm.VANISH])
def test_after_a_crash_it_goes_on_where_the_store_is(rig: Rig, how: Harm) -> None:
    rig.send(1, connected(0, rx=10), connected(0, "p2", rx=10))
    rig.system.harm("session_tracker", how)
    eventually(lambda: rig.system.tree().children[2].restarts == 1)
    assert rig.counts().opened == 2, "what was counted since the daemon started is still counted"
    rig.send(1, connected(0, rx=10), connected(0, "p2", rx=10))
    rig.send(2, disconnected(300, rx=60))
    assert rig.counts() == SessionCounts(active=1, opened=2, closed=1, events=3, duplicates=1)
    assert [(s.peer_key, s.rx_bytes, s.closed_at) for s in rig.list()] == [("p2", 0, None), ("p1", 50, T + 300)]


def test_a_new_run_of_the_daemon_carries_open_sessions_on(fresh_where: Callable[[], str]) -> None:
    where = fresh_where()
    for run in range(3):
        store = open_store(where)
        with running(store) as rig:
            rig.send(1, connected(run, rx=100 * run), epoch=f"run {run}")
            assert rig.counts().active == 1
        store.close()
    store = open_store(where)
    with running(store) as rig:
        [session] = rig.list()
    store.close()
    assert (session.opened_at, session.rx_bytes) == (T, 200)


def test_a_node_that_stays_away_loses_its_sessions(rig: Rig) -> None:
    rig.send(1, connected(0, rx=1), connected(0, "p2", node="nod_b"), StreamLost("nod_a", T))
    rig.system.tell("session_tracker", _Expire())
    [session] = eventually(lambda: rig.list(active=False))
    assert (session.node_id, session.reason, session.rx_bytes) == ("nod_a", "stream-lost", None)
    assert rig.counts().active == 1


def test_other_nodes_are_no_sessions_even_when_they_are_learned_of_later(store: Store, rig: Rig) -> None:
    rig.send(1, connected(0, "node-key", node="nod_b"))
    add_peer(store, "p1", node_key="node-key")
    rig.system.tell("session_tracker", ForgetPeers())
    rig.send(2, disconnected(10, "node-key", node="nod_b"), connected(20, "node-key", node="nod_b"))
    assert rig.counts().active == 0


def test_who_a_peer_belongs_to_is_forgotten_when_told(store: Store, rig: Rig) -> None:
    add_peer(store, "p1")
    rig.send(1, connected(0), disconnected(10))
    with store.write() as tx:
        rows.remove_peers(tx, [("nod_a", AWG, "p1")])
    rig.system.tell("session_tracker", ForgetPeers())
    rig.send(2, connected(20))
    assert [s.device_id for s in rig.list()] == [None, "dev_p1"]


def test_sessions_are_listed_by_what_was_asked_for(store: Store, rig: Rig) -> None:
    for key in ("p1", "p2"):
        add_peer(store, key)
        add_peer(store, key, node="nod_b")
    rig.send(1, *(connected(0, key, node=node) for key in ("p1", "p2") for node in ("nod_a", "nod_b")))
    rig.send(2, disconnected(30, "p1"))
    assert len(rig.list()) == 4
    assert {s.node_id for s in rig.list(node_id="nod_b")} == {"nod_b"}
    assert {s.peer_key for s in rig.list(device_id="dev_p2")} == {"p2"}
    assert {s.peer_key for s in rig.list(user_id="usr_p1")} == {"p1"}
    assert [s.peer_key for s in rig.list(user_id="usr_p1", active=False)] == ["p1"]
    newest = rig.list(limit=3)
    assert [s.id for s in newest] == sorted((s.id for s in newest), reverse=True)
    [oldest] = rig.list(limit=3, before=newest[-1].id)
    assert oldest.id < newest[-1].id
    assert rig.list(limit=0) == rig.list(limit=-5) == []


def test_a_flood_is_told_in_sum(rig: Rig) -> None:
    rig.send(1, *(connected(0, f"p{number}") for number in range(8000)))
    published = eventually(rig.published)
    [more] = [message for message in published if message.kind == "dropped"]
    assert (len(published) - 1, more.data["count"]) == (5000, 3000)
    assert rig.untold == [3000]


BERLIN = Location(52.52, 13.405, "Berlin", "Germany", "DE")
SYDNEY = Location(-33.87, 151.21, "Sydney", "Australia", "AU")


def test_each_stay_has_its_country_and_a_session_that_of_the_last(rig: Rig) -> None:
    rig.places |= {"198.51.100.7": BERLIN, "203.0.113.9": SYDNEY}
    rig.send(1, connected(0, rx=1))
    rig.send(2, replace(connected(60, rx=5), endpoint="203.0.113.9:1"))
    rig.send(3, disconnected(300, rx=9))
    records = rig.system.ask("session_archive", ListRecords(), deadline=10)
    assert [(r.reason, r.country) for r in records] == [
        *(("disconnect", "AU"), (None, "AU"), ("roamed", "DE"), (None, "DE")),
    ]
    assert [s.country for s in rig.list()] == ["AU"]
    assert rig.list(country="DE") == [] and len(rig.list(country="AU")) == 1


def test_a_session_that_goes_where_nobody_knows_is_nowhere(rig: Rig) -> None:
    rig.places["198.51.100.7"] = BERLIN
    rig.send(1, connected(0, rx=1))
    rig.send(2, replace(connected(60, rx=5), endpoint="10.0.0.1:1"))
    assert [s.country for s in rig.list()] == [""] and rig.list(country="DE") == []


def test_after_a_crash_a_session_still_is_where_it_was(rig: Rig) -> None:
    rig.places["198.51.100.7"] = BERLIN
    rig.send(1, connected(0, rx=1))
    rig.system.harm("session_tracker", Harm.RAISE)
    eventually(lambda: rig.system.tree().children[2].restarts == 1)
    rig.send(2, disconnected(300, rx=9))
    assert [s.country for s in rig.list(active=False)] == ["DE"]


@pytest.mark.parametrize("how", [Harm.HANG, Harm.EXIT])
def test_sessions_are_recorded_whatever_becomes_of_who_knows_places(rig: Rig, how: Harm) -> None:
    rig.places["198.51.100.7"] = BERLIN
    rig.system.harm("geo_locator", how)
    rig.send(1, connected(0, rx=1), connected(0, "p2"))
    rig.send(2, connected(1, "p3"))
    assert len(rig.list()) == 3


def test_while_the_database_is_away_a_batch_waits_and_is_not_counted_twice(own_postgres: PostgresServer) -> None:
    store = open_store(own_postgres.create_database())
    with running(store) as rig:
        rig.send(1, connected(0, rx=10))
        own_postgres.stop()
        batch = EventBatch("e", 2, (connected(5, "p2"), disconnected(300, rx=60)))
        for _ in range(50):  # as the funnel does while an outage lasts
            rig.system.tell("session_tracker", batch)
        # Each try waits for the database for 10 s; others must not wait for all of them.
        assert rig.system.ask("session_tracker", GetSessionCounts(), deadline=60).active == 1
        assert rig.acknowledged.empty()
        own_postgres.start()
        eventually(lambda: rig.system.tell("session_tracker", batch) and not rig.acknowledged.empty(), timeout=60, every=1)
        assert rig.counts().events == 3
        assert [(s.peer_key, s.rx_bytes, s.closed_at) for s in rig.list()] == [("p2", 0, None), ("p1", 50, T + 300)]
    store.close()


def test_what_is_older_than_it_is_to_be_kept_is_forgotten(store: Store, rig: Rig) -> None:
    now = SystemClock().now()

    def stay(key: str, days_ago: float) -> tuple[StreamItem, ...]:
        at = now - days_ago * 86_400
        begin = NodeEvent("nod_a", at, at, EventKind.PEER_CONNECTED, AWG, key, "", "198.51.100.7:4000", 1, 1)
        return begin, NodeEvent("nod_a", at + 60, at + 60, EventKind.PEER_DISCONNECTED, AWG, key, "", "", 5, 5)

    rig.send(1, *(item for number in range(1_300) for item in stay(f"old{number}", 9.0)), *stay("new", 5.0))
    rig.send(2, connected(0, "still open"))
    assert len(rig.list(limit=1000)) == 1000
    with store.write() as tx:
        for user_id, days_ago in (("usr_old", 9.0), ("usr_new", 5.0)):
            insert_user(tx, User(user_id, user_id, created_at=1.0))
            delete_user(tx, user_id, by="root", now=now - days_ago * 86_400)
    rig.keep_days = 7
    rig.system.tell("session_archive", _Purge())
    eventually(lambda: [s.peer_key for s in rig.list(limit=1000)] == ["still open", "new"], timeout=30)
    ask = ListRecords(limit=1000)
    eventually(lambda: len(rig.system.ask("session_archive", ask, deadline=10)) == 2, timeout=30)
    kept = ("usr_old", "usr_new")
    eventually(lambda: list(rig.system.ask("session_archive", NamesOf(kept), deadline=10)) == ["usr_new"], timeout=30)


def test_questions_are_answered_while_the_tracker_is_away(rig: Rig) -> None:
    rig.send(1, connected(0))
    rig.system.harm("session_tracker", Harm.HANG, 3.0)
    assert [s.peer_key for s in rig.list()] == ["p1"]
