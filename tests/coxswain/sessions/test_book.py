"""What nodes report, and the sessions that come of it."""

import pytest

from coxswain import sessions
from coxswain.messages.sessions import EventKind, NodeEvent, PeerCounters, PeersSnapshot, StreamLost
from coxswain.model import Protocol
from coxswain.sessions import OpenSession, SessionBook, source_ip
from coxswain.sessions.session import ENDPOINTS_KEPT

AWG = Protocol.AMNEZIAWG
NODE = "nod_a"
T = 1_800_000_000.0


def event(
    kind: EventKind,
    at: float,
    rx: int = 0,
    tx: int = 0,
    *,
    node: str = NODE,
    peer: str = "p",
    received: float | None = None,
    message: str = "",
    endpoint: str = "198.51.100.7:4000",
) -> NodeEvent:
    seen = T + at if received is None else T + received
    return NodeEvent(node, T + at, seen, kind, AWG, peer, message, endpoint, rx, tx)


def connected(at: float, rx: int = 0, tx: int = 0, **more: object) -> NodeEvent:
    return event(EventKind.PEER_CONNECTED, at, rx, tx, **more)  # type: ignore[arg-type]


def disconnected(at: float, rx: int = 0, tx: int = 0, **more: object) -> NodeEvent:
    return event(EventKind.PEER_DISCONNECTED, at, rx, tx, **more)  # type: ignore[arg-type]


def row(peer: str, handshake: float | None, rx: int, tx: int, endpoint: str = "198.51.100.7:4000") -> PeerCounters:
    return PeerCounters(AWG, peer, 0.0 if handshake is None else T + handshake, rx, tx, endpoint)


def snapshot(at: float, *rows: PeerCounters, node: str = NODE, node_now: float | None = None) -> PeersSnapshot:
    return PeersSnapshot(node, T + at, T + (at if node_now is None else node_now), rows)


def told(*items: object, book: SessionBook | None = None) -> SessionBook:
    book = book or SessionBook()
    for item in items:
        book.apply(item)  # type: ignore[arg-type]
    return book


def only(book: SessionBook) -> OpenSession:
    [session] = book.changes.dirty.values()
    return session


def test_a_node_that_goes_on_inventing_peers_does_not_fill_our_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.book, "_MOST_OF_NODE", 10)
    book = told(*(connected(0, peer=f"p{number}") for number in range(30)))
    assert (book.active, book.ignored) == (10, 20)
    told(connected(0, node="nod_b"), disconnected(1, 5, 5, peer="p3"), connected(2, peer="p29"), book=book)
    assert book.active_by_node() == {NODE: 10, "nod_b": 1}


def test_a_session_is_counted_from_its_connect_to_its_disconnect() -> None:
    book = told(connected(0, 100, 200), disconnected(300, 999, 1999))
    session = only(book)
    assert (session.rx_bytes, session.tx_bytes, session.reason) == (899, 1799, "disconnect")
    assert (session.opened_at, session.closed_at) == (T, T + 300)
    assert book.changes.opened == book.changes.closed == [session]
    assert book.active == 0


def test_a_roam_is_the_same_session_and_loses_no_byte() -> None:
    book = told(
        connected(0, 100, 200),
        connected(60, 500, 600, endpoint="203.0.113.9:1"),
        disconnected(300, 1100, 1200),
    )
    session = only(book)
    assert (session.rx_bytes, session.tx_bytes, session.endpoint) == (1000, 1000, "203.0.113.9:1")
    assert len(book.changes.opened) == 1


def test_one_key_on_two_nodes_is_two_sessions() -> None:
    book = told(connected(0, 1, 1), connected(1, 5, 5, node="nod_b"), disconnected(200, 11, 11))
    first, second = book.changes.opened
    assert (first.rx_bytes, first.closed_at, second.closed_at) == (10, T + 200, None)


def test_a_disconnect_of_a_removed_idle_peer_is_no_session() -> None:
    book = told(disconnected(5, 0, 0, endpoint=""))
    assert not book.changes.dirty
    assert book.ignored == 1


def test_a_disconnect_without_bytes_keeps_the_last_known_ones() -> None:
    book = told(connected(0, 100, 100), snapshot(40, row("p", 30, 300, 400)), disconnected(60, 0, 0))
    assert (only(book).rx_bytes, only(book).tx_bytes) == (200, 300)


def test_a_clean_stop_of_the_agent_is_named() -> None:
    assert only(told(connected(0), disconnected(9, 1, 1, message="node-shutdown"))).reason == "node-shutdown"


def test_repeats_and_late_comers_are_ignored_and_counted() -> None:
    book = told(connected(0, 0, 0), disconnected(200, 70, 70), connected(0, 0, 0), disconnected(200, 70, 70))
    assert (len(book.changes.opened), book.ignored, book.active) == (1, 2, 0)
    told(connected(300, 70, 70), connected(250, 60, 60), disconnected(260, 65, 65), book=book)
    assert (book.active, book.ignored) == (1, 4)


def test_counters_that_were_begun_anew_come_on_top() -> None:
    book = told(connected(0, 1000, 1000), connected(100, 1500, 1600), disconnected(300, 40, 50))
    assert (only(book).rx_bytes, only(book).tx_bytes) == (540, 650)


def test_a_shutdown_tells_counters_of_the_last_poll_which_a_snapshot_overtook() -> None:
    book = told(
        connected(0, 0, 0),
        snapshot(50, row("p", 45, 10_000, 20_000)),
        disconnected(51, 9_000, 18_000, message="node-shutdown"),
    )
    assert (only(book).rx_bytes, only(book).tx_bytes) == (10_000, 20_000)


def test_the_future_is_not_believed_but_kept() -> None:
    session = only(told(connected(4000, received=0)))
    assert session.opened_at == T
    assert session.event_at == T + 4000
    assert session.opened_seen_at == T


def test_a_node_whose_clock_is_an_hour_behind_has_sessions_like_any_other() -> None:
    behind = -3600.0
    book = told(
        snapshot(0, row("p", behind - 20, 100, 100), node_now=behind),
        connected(behind + 30, 200, 200, received=30, endpoint="203.0.113.9:1"),
        disconnected(behind + 400, 300, 300, received=400),
    )
    session = only(book)
    assert (session.rx_bytes, session.endpoint, session.reason) == (200, "203.0.113.9:1", "disconnect")
    assert session.closed_at is not None
    assert session.closed_at >= session.opened_at
    # A snapshot closed the next one by our clock; the node's next event still counts.
    told(
        connected(behind + 500, 300, 300, received=500),
        snapshot(600, node_now=behind + 600),
        connected(behind + 610, 0, 0, received=610),
        book=book,
    )
    assert book.active == 1


def test_the_first_snapshot_finds_who_was_there_before_us() -> None:
    book = told(snapshot(0, row("p", -10, 500, 600), row("q", -200, 1, 1), row("r", None, 0, 0)))
    session = only(book)
    assert (session.key, session.rx_bytes, book.active) == ((NODE, AWG, "p"), 0, 1)
    told(snapshot(45, row("p", 40, 800, 600)), book=book)
    assert (session.rx_bytes, session.tx_bytes) == (300, 0)


def test_a_snapshot_closes_who_fell_silent_unnoticed() -> None:
    book = told(connected(0, 0, 0), snapshot(45, row("p", 0, 50, 60)), snapshot(225, row("p", 0, 70, 60)))
    session = only(book)
    assert (session.reason, session.rx_bytes, session.closed_at) == ("idle", 70, T + 180)


def test_the_agents_own_word_is_waited_for_a_little() -> None:
    """The agent notices silence up to 5 s late (node-contract.md 5.5); the snapshot must not steal its event."""
    book = told(connected(0, 0, 0), snapshot(184, row("p", 0, 70, 60)), disconnected(185, 70, 60))
    assert only(book).reason == "disconnect"


def test_a_snapshot_that_was_overtaken_by_a_connect_closes_nothing() -> None:
    book = told(connected(0, 10, 10), snapshot(2), snapshot(3, row("p", None, 5, 5)))
    session = only(book)
    assert (book.active, session.rx_bytes) == (1, 0)


def test_a_snapshot_that_was_overtaken_by_a_disconnect_opens_nothing() -> None:
    book = told(connected(0, 1, 1), disconnected(20, 9, 9), snapshot(20.1, row("p", 0, 9, 9)))
    assert (book.active, len(book.changes.opened)) == (0, 1)
    told(snapshot(65, row("p", 60, 15, 15)), book=book)
    assert (book.active, len(book.changes.opened)) == (1, 2), "the next look sees that it is back"


def test_an_agent_that_was_restarted_has_its_sessions_again_at_the_first_look() -> None:
    stop = disconnected(20, 9, 9, message="node-shutdown")
    book = told(connected(0, 1, 1), stop, StreamLost(NODE, T + 20), snapshot(23, row("p", 0, 9, 9)))
    assert (book.active, len(book.changes.opened)) == (1, 2)


def test_a_peer_that_is_gone_from_the_node_is_closed() -> None:
    book = told(connected(0, 10, 10), snapshot(45, row("p", 40, 90, 90)), snapshot(90))
    assert (only(book).reason, only(book).rx_bytes) == ("peer-removed", 80)


def test_a_snapshot_says_nothing_of_other_protocols() -> None:
    xray = NodeEvent(NODE, T, T, EventKind.PEER_CONNECTED, Protocol.XRAY_REALITY, "u")
    assert told(xray, snapshot(60)).active == 1


def test_an_interface_that_was_made_anew_closes_and_reopens() -> None:
    book = told(connected(0, 1000, 1000), snapshot(45, row("p", 40, 5000, 6000)), snapshot(90, row("p", 80, 30, 40)))
    before, after = book.changes.opened
    assert (before.reason, before.rx_bytes, before.tx_bytes) == ("counter-reset", 4000, 5000)
    assert (after.closed_at, after.rx_bytes, after.tx_bytes) == (None, 30, 40)


def test_a_reset_with_only_one_direction_behind_is_one() -> None:
    book = told(connected(0, 0, 0), snapshot(45, row("p", 40, 5000, 0)), snapshot(90, row("p", 80, 30, 0)))
    assert [s.reason for s in book.changes.closed] == ["counter-reset"]


def test_a_peer_that_went_silent_after_a_reset_is_idle_with_all_its_bytes() -> None:
    reset = row("p", None, 0, 0)
    book = told(connected(0, 0, 0), snapshot(45, row("p", 40, 500, 600)), snapshot(300, reset), snapshot(345, reset))
    session = only(book)
    assert (session.reason, session.rx_bytes, session.tx_bytes) == ("idle", 500, 600)
    assert session.closed_at == T + 40


def test_a_look_at_which_the_agent_could_not_read_its_peers_closes_nothing() -> None:
    """Its list then has every peer, with zeros (node-contract.md 4.9)."""
    book = told(
        connected(0, 0, 0),
        snapshot(45, row("p", 40, 500, 600)),
        snapshot(90, row("p", None, 0, 0)),
        snapshot(135, row("p", 130, 700, 800)),
        snapshot(180, row("p", None, 0, 0)),
    )
    assert (only(book).rx_bytes, only(book).tx_bytes, book.active) == (700, 800, 1)


def test_a_snapshot_sees_a_roam() -> None:
    book = told(connected(0, 1, 1), snapshot(45, row("p", 40, 1, 1, endpoint="203.0.113.9:2")))
    assert only(book).endpoint == "203.0.113.9:2"


def test_a_quiet_snapshot_writes_nothing() -> None:
    book = told(connected(0, 1, 1), snapshot(45, row("p", 40, 9, 9)))
    book.saved()
    told(snapshot(90, row("p", 40, 9, 9)), book=book)
    assert not book.changes.dirty


def test_other_nodes_are_not_sessions() -> None:
    book = SessionBook()
    book.not_devices = frozenset({"p"})
    told(connected(0), snapshot(20, row("p", 10, 1, 1)), book=book)
    assert (book.active, book.ignored) == (0, 1)


def test_a_lost_stream_closes_nothing_until_the_node_was_gone_for_long() -> None:
    book = told(connected(0, 10, 10), snapshot(45, row("p", 40, 110, 210)), StreamLost(NODE, T + 60))
    book.expire(T + 60 + 899)
    assert book.active == 1
    book.expire(T + 60 + 900)
    session = only(book)
    assert (session.reason, session.rx_bytes, session.tx_bytes) == ("stream-lost", 100, 200)
    assert (session.closed_at, session.closed_seen_at) == (T + 60, T + 960)


def test_a_node_that_came_back_carries_its_sessions_on() -> None:
    book = told(
        connected(0, 10, 10),
        StreamLost(NODE, T + 60),
        StreamLost(NODE, T + 70),
        snapshot(500, row("p", 480, 910, 10)),
    )
    book.expire(T + 5000)
    session = only(book)
    assert (book.active, session.rx_bytes, len(book.changes.opened)) == (1, 900, 1)


def test_after_a_restart_of_the_controller_the_next_snapshot_decides() -> None:
    before = told(connected(0, 10, 10), connected(0, 20, 20, peer="q"), connected(0, 30, 30, peer="r"))
    book = SessionBook(before.changes.opened, next_id=4, now=T + 100)
    told(snapshot(400, row("p", 390, 60, 70), row("q", 5, 25, 25)), book=book)
    p, q, r = before.changes.opened
    assert (p.rx_bytes, p.closed_at) == (50, None)
    assert (q.rx_bytes, q.reason, q.closed_at) == (5, "idle", T + 185)
    assert r.reason == "peer-removed"
    told(connected(500, 0, 0, peer="s"), book=book)
    assert [s.id for s in book.changes.opened] == [4]


def test_a_node_that_never_comes_back_after_a_restart_has_its_sessions_closed() -> None:
    before = told(connected(0, 10, 10))
    book = SessionBook(before.changes.opened, next_id=2, now=T + 100)
    book.expire(T + 100 + 900)
    session = only(book)
    assert (book.active, session.reason) == (0, "controller-restart")
    assert (session.closed_at, session.closed_seen_at) == (T, T + 1000), "closed at its last sign of life"


def test_a_node_that_is_lost_after_it_came_back_is_not_the_restarts_fault() -> None:
    before = told(connected(0, 10, 10))
    book = SessionBook(before.changes.opened, next_id=2, now=T + 100)
    told(snapshot(130, row("p", 120, 60, 70)), StreamLost(NODE, T + 200), book=book)
    book.expire(T + 200 + 900)
    assert (only(book).reason, only(book).rx_bytes) == ("stream-lost", 50)


def test_bytes_that_were_never_seen_to_move_are_unknown_when_nobody_saw_the_end() -> None:
    """It shook hands, so it moved something: 0 would be false."""
    lost = told(connected(0, 10, 10), StreamLost(NODE, T + 20))
    lost.expire(T + 20 + 900)
    removed = told(connected(0, 10, 10), snapshot(60))
    blank = told(connected(0, 10, 10), disconnected(30, 0, 0))
    for book in (lost, removed, blank):
        session = only(book)
        assert (session.rx_bytes, session.tx_bytes) == (None, None)
        end = book.changes.boundaries[-1]
        assert (end.reason, end.rx_bytes, end.tx_bytes) == (session.reason, None, None)
    told_so = told(connected(0, 10, 10), disconnected(200, 10, 10))
    assert (only(told_so).rx_bytes, only(told_so).tx_bytes) == (0, 0), "its end was counted"


def test_a_look_that_is_older_than_an_event_moves_nobody_back() -> None:
    new, old = "203.0.113.9:1", "198.51.100.7:4000"
    book = told(connected(0, 10, 10), connected(60, 20, 20, endpoint=new), snapshot(61, row("p", 55, 20, 20, old)))
    assert (only(book).endpoint, only(book).roams) == (new, 1)
    told(snapshot(105, row("p", 100, 20, 20, old)), book=book)
    assert (only(book).endpoint, only(book).roams) == (old, 2), "later it is news"


def test_where_a_session_was_is_kept_with_the_times_and_bounded() -> None:
    book = told(connected(0, endpoint="192.0.2.1:1"))
    for number in range(1, 101):
        told(connected(number * 20, endpoint=f"198.51.100.{number}:1"), book=book)
    session = only(book)
    assert (session.roams, len(session.endpoints)) == (100, ENDPOINTS_KEPT)
    assert session.endpoints[0] == (T, "192.0.2.1:1"), "where it began"
    assert session.endpoints[-1] == (T + 2000, "198.51.100.100:1")
    assert [at for at, _ in session.endpoints] == sorted(at for at, _ in session.endpoints)


def boundaries(book: SessionBook) -> list[tuple[float, str | None, str, int | None, int | None]]:
    return [(b.at - T, b.reason, b.endpoint.partition(":")[0], b.rx_bytes, b.tx_bytes) for b in book.changes.boundaries]


def test_a_roam_ends_one_segment_and_begins_the_next() -> None:
    book = told(
        connected(0, 100, 200),
        connected(60, 500, 600, endpoint="203.0.113.9:1"),
        snapshot(120, row("p", 110, 700, 600, "203.0.113.10:1")),
        disconnected(300, 1100, 1200, endpoint="203.0.113.10:1"),
    )
    assert boundaries(book) == [
        (0, None, "198.51.100.7", 0, 0),
        (60, "roamed", "198.51.100.7", 400, 400),
        (60, None, "203.0.113.9", 0, 0),
        (120, "roamed", "203.0.113.9", 200, 0),
        (120, None, "203.0.113.10", 0, 0),
        (300, "disconnect", "203.0.113.10", 400, 600),
    ]
    assert {b.session for b in book.changes.boundaries} == {only(book)}


def test_the_agent_tells_a_roam_that_a_look_has_seen_already_and_it_is_one() -> None:
    new = "203.0.113.9:1"
    book = told(connected(0, 1, 1), snapshot(45, row("p", 40, 5, 5, new)), connected(46, 5, 5, endpoint=new))
    assert [b.reason for b in book.changes.boundaries] == [None, "roamed", None]


def test_a_stamp_from_another_decade_is_not_believed_in_either_direction() -> None:
    for skew in (-1e8, -1000.0, 301.0, 1e8):
        session = only(told(connected(skew, received=0)))
        assert (session.opened_at, session.event_at) == (T, T + skew)
    assert only(told(connected(-600, received=0))).opened_at == T - 600, "held back while a database was away"


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("198.51.100.7:4000", "198.51.100.7"),
        ("198.51.100.7", "198.51.100.7"),
        ("[2001:DB8::0:1]:4000", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("198.51.100.07:4000", "198.51.100.07"),
        ("198.51.100.256", "198.51.100.256"),
        ("1.2.3.4:port", "1.2.3.4"),
        ("(none)", "(none)"),
        ("", ""),
        ("[", ""),
    ],
)
def test_the_address_of_an_endpoint(endpoint: str, address: str) -> None:
    assert source_ip(endpoint) == address


def test_what_is_unknown_is_not_zero() -> None:
    session = OpenSession(1, (NODE, AWG, "p"), T, T)
    assert (session.rx_bytes, session.tx_bytes) == (None, None)
    session.count(50, 60)
    assert (session.rx_bytes, session.tx_bytes) == (0, 0)
