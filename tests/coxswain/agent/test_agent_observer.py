"""Events out of two looks (node-contract.md 5), as a pure function and over the wire."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.agent.dataplane import LivePeer
from coxswain.agent.events import BUFFER, EventHub
from coxswain.agent.observer import (
    CONNECTED,
    DISCONNECTED,
    DOWN,
    ERROR,
    UP,
    Happening,
    baseline,
    encode,
    shutdown,
    transitions,
)
from coxswain.clock import ManualClock
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

NOW = 1_000_000
HOME, AWAY = "198.51.100.1:1000", "198.51.100.2:2000"


def dump(*peers):
    return {p.public_key: p for p in peers}


def live(handshake, endpoint=HOME, rx=0, tx=0, key="k"):
    return LivePeer(key, endpoint, handshake, rx, tx)


def look(memory, *peers, now=NOW):
    memory, happened = transitions(memory, dump(*peers), now)
    return memory, [(h.type, h.endpoint, h.rx_bytes, h.tx_bytes) for h in happened]


def test_the_measured_trace():
    """The trace of section 5.4: one look after the other."""
    memory = baseline(dump(live(0, "")))
    memory, seen = look(memory, live(NOW, rx=100, tx=200))
    assert seen == [(UP, HOME, 0, 0), (CONNECTED, HOME, 100, 200)]
    memory, seen = look(memory, live(NOW + 120, rx=150), now=NOW + 120)
    assert seen == [(UP, HOME, 0, 0)]
    memory, seen = look(memory, live(NOW + 120, AWAY, 160, 260), now=NOW + 130)
    assert seen == [(CONNECTED, AWAY, 160, 260)]
    memory, seen = look(memory, live(NOW + 240, HOME, 170, 270), now=NOW + 240)
    assert seen == [(UP, HOME, 0, 0), (CONNECTED, HOME, 170, 270)]
    memory, seen = look(memory, live(NOW + 240, HOME, 999, 1999), now=NOW + 420)
    assert seen == []  # exactly 180 s is not older than 180 s
    memory, seen = look(memory, live(NOW + 240, HOME, 999, 1999), now=NOW + 421)
    assert seen == [(DOWN, HOME, 0, 0), (DISCONNECTED, HOME, 999, 1999)]
    memory, seen = look(memory, live(NOW + 240, HOME, 999, 1999), now=NOW + 430)
    assert seen == []


def test_added_and_shaken_hands_between_two_looks():
    _, seen = look({}, live(NOW, rx=1, tx=2))
    assert seen == [(UP, HOME, 0, 0), (CONNECTED, HOME, 1, 2)]
    assert look({}, live(0, ""))[1] == []


def test_removal_of_a_live_and_of_an_idle_peer():
    memory = baseline(dump(live(0, "", key="idle"), live(0, "", key="busy")))
    memory, _ = look(memory, live(0, "", key="idle"), live(NOW, rx=5, tx=6, key="busy"))
    memory, seen = look(memory)
    assert sorted(seen) == [(DISCONNECTED, "", 0, 0), (DISCONNECTED, HOME, 5, 6)]
    assert memory == {}


def test_the_baseline_is_silent_until_the_next_handshake():
    memory = baseline(dump(live(NOW - 10)))
    memory, seen = look(memory, live(NOW - 10, rx=9))
    assert seen == []
    _, seen = look(memory, live(NOW - 10), now=NOW + 500)
    assert seen == []  # went quiet: no disconnect ever comes
    memory, seen = look(memory, live(NOW + 100, rx=9, tx=9), now=NOW + 100)
    assert seen == [(UP, HOME, 0, 0), (CONNECTED, HOME, 9, 9)]


def test_a_lost_handshake_leaves_the_session_open():
    memory, _ = look({}, live(NOW))
    memory, seen = look(memory, live(0, ""), now=NOW + 1000)
    assert seen == []
    memory, seen = look(memory, live(NOW + 1001), now=NOW + 1001)
    assert seen == [(UP, HOME, 0, 0)]


def test_shutdown_tells_of_open_sessions_only():
    memory, _ = look(baseline(dump(live(NOW - 5, key="silent"))), live(NOW - 5, key="silent"), live(NOW, rx=3, tx=4))
    assert shutdown(memory) == [Happening(DISCONNECTED, "k", HOME, 3, 4, "node-shutdown")]


def test_the_wire_form():
    event = pb.Event.FromString(encode(Happening(CONNECTED, "k", HOME, 1, 2), 12.5))
    assert (event.at.seconds, event.at.nanos, event.protocol) == (12, 500_000_000, pb.PROTOCOL_AMNEZIAWG)
    assert (event.type, event.peer_id, event.source_endpoint) == (CONNECTED, "k", HOME)
    assert (event.rx_bytes, event.tx_bytes, event.message) == (1, 2, "")


peers = st.builds(
    LivePeer,
    st.just(""),
    st.sampled_from(["", HOME, AWAY]),
    st.one_of(st.just(0), st.integers(NOW - 400, NOW + 1000)),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)
dumps = st.dictionaries(st.sampled_from("abcde"), peers).map(
    lambda found: {k: LivePeer(k, p.endpoint, p.last_handshake, p.rx_bytes, p.tx_bytes) for k, p in found.items()}
)


@given(st.lists(st.tuples(dumps, st.integers(0, 300)), max_size=12))
def test_connects_and_disconnects_pair_whatever_is_seen(looks):
    """Per peer: a disconnect closes what a connect opened, or tells of a removal; memory holds exactly who is there."""
    memory, now, open_sessions = {}, NOW, set()
    for seen, passed in looks:
        now += passed
        before = dict(memory)
        memory, happened = transitions(memory, seen, now)
        assert set(memory) == set(seen)
        connected_now = [h.public_key for h in happened if h.type == CONNECTED]
        assert len(connected_now) == len(set(connected_now))  # at most one per look
        for h in happened:
            if h.type == CONNECTED:
                open_sessions.add(h.public_key)
            elif h.type == DISCONNECTED:
                assert h.public_key in open_sessions or h.public_key not in seen
                open_sessions.discard(h.public_key)
            elif h.type == UP:
                known = before.get(h.public_key)
                assert seen[h.public_key].last_handshake > (known.last_handshake if known else 0)
            elif h.type == DOWN:
                assert now - seen[h.public_key].last_handshake > 180
        assert open_sessions == {key for key, s in memory.items() if s.up}
        # A handshake that was old when first seen opens a session for one look; after that there is nothing to tell.
        settled, ended = transitions(memory, seen, now)
        assert {h.type for h in ended} <= {DOWN, DISCONNECTED}
        assert transitions(settled, seen, now) == (settled, [])


# -- over the wire


async def test_events_reach_every_subscriber_in_order(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        await lab.fleet.poll()
        first, second = await lab.subscribe(), await lab.subscribe()
        lab.node.plane.set_live(t.key(1), handshake=int(lab.clock.now()), endpoint=HOME, rx=100, tx=200)
        await lab.fleet.poll()
        lab.clock.advance(181)
        await lab.fleet.poll()
        await lab.control.push_config(t.awg_push(2, []))
        await lab.fleet.poll()
        for stream in (first, second):
            events = await t.read_events(stream, 5)
            assert [e.type for e in events] == [UP, CONNECTED, DOWN, DISCONNECTED, DISCONNECTED]
            assert {e.peer_id for e in events} == {t.key(1)}
            assert [(e.rx_bytes, e.tx_bytes) for e in events] == [(0, 0), (100, 200), (0, 0), (100, 200), (0, 0)]
            assert events[2].at.seconds == int(lab.clock.now())


async def test_headers_come_at_once(authority, t):
    async with t.one_node(authority) as lab:
        stream = lab.control.watch_events()
        await stream.initial_metadata()
        assert lab.node.hub.subscribers == 1  # so they may be taken for an acknowledgement


async def test_a_failing_look_is_an_error_event_only_while_the_interface_is_up(authority, t):
    async with t.one_node(authority) as lab:
        stream = await lab.subscribe()
        await lab.fleet.poll()  # no interface yet: silence
        await lab.control.push_config(t.awg_push(1, [t.peer(1)]))
        lab.node.plane.fail_next("dump", "awg show awg0 dump: exit status 1", times=2)
        await lab.fleet.poll()
        await lab.fleet.poll()
        for event in await t.read_events(stream, 2):
            assert (event.type, event.peer_id, event.message) == (ERROR, "", "awg show awg0 dump: exit status 1")
        lab.node.plane.interface_down()
        await lab.fleet.poll()
        assert lab.node.hub.published == 2


async def test_a_clean_stop_ends_streams_ok_after_the_shutdown_events(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(1), t.peer(2)]))
        stream = await lab.subscribe()
        lab.node.connect([t.key(2)])
        await t.read_events(stream, 2)
        await lab.node.stop()
        last, end = await t.read_events(stream, 2)
        assert (last.type, last.peer_id, last.message) == (DISCONNECTED, t.key(2), "node-shutdown")
        assert end is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK


async def test_a_kill_ends_streams_unavailable(authority, t):
    async with t.one_node(authority) as lab:
        stream = await lab.subscribe()
        await lab.node.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await t.read_events(stream, 1)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        await lab.node.start()
        stream = await lab.subscribe()
        assert lab.node.cut_streams() == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await t.read_events(stream, 1)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert (await lab.control.get_status()).agent_version  # only the stream broke


async def test_a_cancelled_stream_frees_its_slot(authority, t):
    async with t.one_node(authority) as lab:
        stream = await lab.subscribe()
        stream.cancel()
        await t.eventually(lambda: lab.node.hub.subscribers == 0)


async def test_a_burst_beyond_the_buffer_loses_the_newest_for_that_subscriber_only(authority, t):
    """Section 5.8: 300 peers that change in one look are 600 events; the first 256 survive, and no more than a few."""
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(n) for n in range(300)]))
        await lab.fleet.poll()
        stream = await lab.subscribe()
        for number in range(300):
            lab.node.plane.set_live(t.key(number), handshake=int(lab.clock.now()))
        await lab.fleet.poll()
        assert lab.node.hub.published == 600
        assert lab.node.hub.dropped == 600 - BUFFER
        events = await t.read_events(stream, BUFFER)
        assert [e.peer_id for e in events] == [t.key(n // 2) for n in range(BUFFER)]


def test_a_full_buffer_is_told_once_a_minute(caplog):
    clock = ManualClock()
    hub = EventHub(clock, capacity=1)
    slow = hub.subscribe()
    for _ in range(5):
        hub.publish(b"x")
    assert (slow.dropped, hub.dropped, len(caplog.records)) == (4, 4, 1)
    clock.advance(59)
    hub.publish(b"x")
    assert len(caplog.records) == 1
    clock.advance(1)
    hub.publish(b"x")
    assert len(caplog.records) == 2
