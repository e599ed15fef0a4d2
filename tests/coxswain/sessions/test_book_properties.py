"""A node with peers that come, move bytes and go, seen through an observer as node-contract.md 5.4 has it: whatever is lost
or crosses on the way, nothing is counted twice, and a snapshot puts right who is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from coxswain.messages.sessions import EventKind, NodeEvent, PeerCounters, PeersSnapshot, StreamItem, StreamLost
from coxswain.model import Protocol
from coxswain.sessions import SessionBook

AWG = Protocol.AMNEZIAWG
PEERS = ("p", "q", "r")
T = 1_800_000_000.0


@dataclass
class LivePeer:
    handshake: float = 0.0
    rx: int = 0
    endpoint: int = 1
    moved: int = 0


@dataclass
class PollState:
    handshake: float = 0.0
    endpoint: int = 0
    rx: int = 0
    up: bool = False


@dataclass
class SimulatedNode:
    """The truth, and the observer that looks at it every 5 s; ``skew`` is how far its clock is ahead."""

    skew: float
    now: float = T
    peers: dict[str, LivePeer] = field(default_factory=lambda: {p: LivePeer() for p in PEERS})
    polled: dict[str, PollState] | None = None

    def poll(self) -> list[NodeEvent]:
        clock = self.now + self.skew
        before, self.polled = self.polled, {}
        events: list[NodeEvent] = []

        def emit(kind: EventKind, peer: str, rx: int, endpoint: int) -> None:
            events.append(NodeEvent("nod_a", clock, self.now, kind, AWG, peer, "", f"198.51.100.1:{endpoint}", rx, 0))

        for name, live in self.peers.items():
            state = (before or {}).get(name, PollState())
            fresh = before is not None and live.handshake > state.handshake
            up = state.up
            if fresh and not up:
                emit(EventKind.PEER_CONNECTED, name, live.rx, live.endpoint)
                up = True
            elif up and live.endpoint != state.endpoint:
                emit(EventKind.PEER_CONNECTED, name, live.rx, live.endpoint)
            elif up and not fresh and clock - live.handshake > 180:
                emit(EventKind.PEER_DISCONNECTED, name, live.rx, live.endpoint)
                up = False
            self.polled[name] = PollState(live.handshake, live.endpoint, live.rx, up)
        for name, state in (before or {}).items():
            if name not in self.peers:
                emit(EventKind.PEER_DISCONNECTED, name, state.rx if state.up else 0, state.endpoint)
        return events

    def snapshot(self) -> PeersSnapshot:
        rows = tuple(
            PeerCounters(AWG, name, live.handshake, live.rx, 0, f"198.51.100.1:{live.endpoint}")
            for name, live in self.peers.items()
        )
        return PeersSnapshot("nod_a", self.now, self.now + self.skew, rows)


@dataclass(frozen=True)
class Act:
    what: str
    peer: str
    amount: int
    lost: bool


acts = st.lists(
    st.builds(
        Act,
        st.sampled_from(
            [
                *("handshake", "traffic", "roam", "wait", "wait", "poll", "poll"),
                *("snapshot", "remove", "reset", "restart", "gone"),
            ]
        ),
        st.sampled_from(PEERS),
        st.integers(1, 200),
        st.booleans(),
    ),
    max_size=60,
)


def play(node: SimulatedNode, act: Act) -> list[StreamItem]:
    """Changes the node; returns what it sends."""
    match act.what:
        case "wait":
            node.now += act.amount
        case "poll":
            node.now += 5
            return [] if act.lost else [*node.poll()]
        case "snapshot":
            return [node.snapshot()]
        case "handshake":
            node.peers.setdefault(act.peer, LivePeer()).handshake = node.now + node.skew
        case "traffic" if act.peer in node.peers:
            node.peers[act.peer].rx += act.amount
            node.peers[act.peer].moved += act.amount
        case "roam" if act.peer in node.peers:
            node.peers[act.peer].endpoint = act.amount
        case "remove":
            node.peers.pop(act.peer, None)
        case "reset":
            node.peers = {name: LivePeer(0.0, 0, live.endpoint, live.moved) for name, live in node.peers.items()}
        case "restart":
            node.polled = None
            return [StreamLost("nod_a", node.now), node.snapshot()]
        case "gone":
            return [StreamLost("nod_a", node.now)]
        case _:
            pass
    return []


def segments_add_up(book: SessionBook) -> None:
    """Each session is told as connect, disconnect, connect, …, and the bytes of its segments are its bytes."""
    for session in book.changes.dirty.values():
        mine = [b for b in book.changes.boundaries if b.session is session]
        assert [b.reason is None for b in mine] == [i % 2 == 0 for i in range(len(mine))]
        assert (len(mine) % 2 == 0) == (session.closed_at is not None)
        assert all(earlier.at <= later.at for earlier, later in pairwise(mine))
        assert all(b.reason == "roamed" for b in mine[1:-1] if b.reason is not None)
        if session.closed_at is not None:
            told = [b.rx_bytes for b in mine if b.reason is not None]
            assert session.rx_bytes == (None if told[-1] is None else sum(told))


@settings(max_examples=400)
@given(acts, st.sampled_from([0.0, -3600.0, 100.0]))
def test_nothing_is_counted_twice_and_a_snapshot_puts_right_who_is_there(acts: list[Act], skew: float) -> None:
    node = SimulatedNode(skew)
    book = SessionBook()
    moved = 0
    for act in acts:
        present = {name: live.moved for name, live in node.peers.items()}
        for item in play(node, act):
            book.apply(item)
        moved += sum(live.moved - present.get(name, live.moved) for name, live in node.peers.items())
        book.expire(node.now)

    for _ in range(2):
        node.now += 30  # nothing crosses any more
        book.apply(node.snapshot())
    sessions = book.changes.dirty.values()
    assert sum(s.rx_bytes or 0 for s in sessions) <= moved
    assert all(s.rx_bytes is None or s.rx_bytes >= 0 for s in sessions)
    assert all(s.rx_bytes is not None for s in sessions if s.closed_at is None), "what is open is counted"
    segments_add_up(book)
    assert all(s.closed_at is None or s.closed_at >= s.opened_at for s in sessions)
    open_now = {s.key[2] for s in sessions if s.closed_at is None}
    assert len(open_now) == book.active
    ages = {name: node.now + skew - live.handshake for name, live in node.peers.items() if live.handshake}
    surely_online = {name for name, age in ages.items() if age < 180}
    maybe_online = {name for name, age in ages.items() if age < 190}
    assert surely_online <= open_now <= maybe_online


@settings(max_examples=200)
@given(acts)
def test_a_restart_of_the_controller_in_the_middle_changes_no_count(acts: list[Act]) -> None:
    half = len(acts) // 2
    node, one, two = SimulatedNode(0.0), SessionBook(), SessionBook()
    rows: dict[int, tuple[object, ...]] = {}

    def write(book: SessionBook) -> None:
        for s in book.changes.dirty.values():
            rows[s.id] = (s.key, s.opened_at, s.closed_at, s.rx_bytes, s.reason)
        book.saved()

    expected: dict[int, tuple[object, ...]] = {}
    for number, act in enumerate(acts):
        if number == half:
            carried = {s.id: s for s in two.changes.dirty.values()}
            write(two)
            still_open = [s for s in carried.values() if s.closed_at is None]
            two = SessionBook(still_open, next_id=len(rows) + 1, now=node.now)
            one.apply(StreamLost("nod_a", node.now))
        for item in play(node, act):
            one.apply(item)
            two.apply(item)
    write(two)
    expected = {s.id: (s.key, s.opened_at, s.closed_at, s.rx_bytes, s.reason) for s in one.changes.dirty.values()}
    assert rows == expected
