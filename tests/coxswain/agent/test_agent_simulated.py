"""The simulated data plane, the fleet and its switches (node-contract.md 9.3), in this process and as a process."""

import asyncio
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import DecodeError

from coxswain.agent.dataplane import DataPlane, PeerConfig
from coxswain.agent.fleet_sim import SimFleet
from coxswain.agent.knobs import ANY, Swapped, garbled, repeated, swallowed
from coxswain.agent.observer import CONNECTED, DISCONNECTED, transitions
from coxswain.agent.simulated import Behaviour, SimulatedPlane
from coxswain.clock import ManualClock
from coxswain.errors import NotFound, Refused
from coxswain.wire.pharos.node.v1 import control_pb2 as pb

AWG = pb.PROTOCOL_AMNEZIAWG
Code = grpc.StatusCode
TOOL = Path(__file__).parents[3] / "tools" / "fleet-sim"


def lively(t, clock, seed, peers=40):
    plane = SimulatedPlane(clock, seed=seed, behaviour=Behaviour())
    asyncio.run(plane.replace_peers([PeerConfig(t.key(n), (f"10.0.0.{n}/32",)) for n in range(peers)]))
    return plane


def watched(plane, clock, seconds, step=5):
    """What an observer would tell in that time."""
    memory, told = None, []
    for _ in range(seconds // step):
        dump = asyncio.run(plane.dump())
        if memory is None:
            memory = {}
        memory, happened = transitions(memory, dump, clock.now())
        told += happened
        clock.advance(step)
    return told


def test_it_is_a_data_plane():
    assert isinstance(SimulatedPlane(ManualClock()), DataPlane)


def test_lively_clients_come_roam_and_go_and_move_bytes(t):
    clock = ManualClock()
    plane = lively(t, clock, seed=1)
    told = watched(plane, clock, 3600)
    connects, disconnects = (Counter(h.public_key for h in told if h.type == kind) for kind in (CONNECTED, DISCONNECTED))
    assert 20 <= len(connects) <= 40
    assert sum(disconnects.values()) >= 20
    assert len({h.endpoint for h in told if h.type == CONNECTED}) > len(connects)  # another place at another time
    assert all(h.rx_bytes < h.tx_bytes for h in told if h.type == DISCONNECTED)
    dump = asyncio.run(plane.dump())
    assert {key for key, peer in plane.peers.items() if peer.connected} <= {
        key for key, live in dump.items() if clock.now() - live.last_handshake < 180
    }


def test_counters_and_handshakes_never_step_back(t):
    clock = ManualClock()
    plane = lively(t, clock, seed=2)
    before = asyncio.run(plane.dump())
    for step in (1, 7, 119, 120, 121, 600, 3600, 86_400):
        clock.advance(step)
        after = asyncio.run(plane.dump())
        for key, live in after.items():
            assert live.last_handshake >= before[key].last_handshake
            assert live.rx_bytes >= before[key].rx_bytes
            assert live.tx_bytes >= before[key].tx_bytes
            assert live.last_handshake <= clock.now()
        before = after


def test_same_seed_same_lives(t):
    def life(seed):
        clock = ManualClock()
        return watched(lively(t, clock, seed), clock, 1200)

    assert life(7) == life(7) != life(8)


def test_a_tick_that_waits_for_the_next_change_misses_nothing(t):
    """The shared tick skips nodes until ``next_change``; what it tells is what a look every 5 s would have told."""

    def lived(lazy):
        clock = ManualClock()
        plane = lively(t, clock, seed=3)
        memory, told = {}, []
        for _ in range(400):
            if not lazy or plane.next_change() <= clock.now():
                memory, happened = transitions(memory, asyncio.run(plane.dump()), clock.now())
                plane.looked()
                told += [(clock.now(), h.type, h.public_key) for h in happened]
            clock.advance(2)
            asyncio.run(plane.dump())  # somebody else looks in between
            clock.advance(3)
        return told

    assert lived(lazy=True) == lived(lazy=False) != []


def test_an_idle_plane_has_nothing_to_tell(t):
    clock = ManualClock()
    plane = SimulatedPlane(clock)
    asyncio.run(plane.replace_peers([PeerConfig(t.key(1))]))
    plane.looked()
    assert plane.next_change() == math.inf
    plane.connect(t.key(1))
    assert plane.next_change() <= clock.now()
    plane.looked()
    assert 0 < plane.next_change() - clock.now() <= 120
    plane.leave(t.key(1))
    plane.looked()
    assert plane.next_change() - clock.now() == pytest.approx(181, abs=1)


# -- switches


async def test_switches(authority, t):
    async with t.one_node(authority, record=True) as lab:
        control, knobs = lab.control, lab.node.knobs
        knobs.fail_next("GetStatus", Code.RESOURCE_EXHAUSTED, times=2, text="not now")
        for _ in range(2):
            assert await t.refused(control.get_status()) == (Code.RESOURCE_EXHAUSTED, "GetStatus: not now")
        await control.get_status()
        knobs.fail_next("PushConfig", Code.UNAVAILABLE, after=True)
        assert (await t.refused(control.push_config(t.awg_push(1, [t.peer(1)]))))[0] == Code.UNAVAILABLE
        assert lab.node.peers == [t.key(1)]  # it was done; only the answer was lost
        knobs.future_revision = 99
        assert (await control.get_status()).applied_revision == 99
        knobs.garbage("ListPeers")
        raw = control._channel.unary_unary("/pharos.node.v1.NodeControl/ListPeers")
        with pytest.raises(DecodeError):
            pb.ListPeersResponse.FromString(await raw(b""))
        knobs.stall()
        call = asyncio.create_task(control.list_peers(AWG))
        await t.eventually(lambda: lab.node.knobs.calls[-1].method == "ListPeers")
        assert not call.done()
        knobs.clear()
        assert len((await call).peers) == 1
        assert (await control.get_status()).applied_revision == 1
        assert [p.revision for p in knobs.pushes] == [1]
        recorded = [c.method for c in knobs.calls]
        assert recorded[:4] == ["GetStatus"] * 3 + ["PushConfig"]
        assert pb.PushConfigRequest.FromString(knobs.calls[3].request).revision == 1
        knobs.delay(ANY, 0.01)
        await control.get_status()


async def test_events_can_be_repeated_swapped_swallowed_and_garbled(authority, t):
    async with t.one_node(authority) as lab:
        await lab.control.push_config(t.awg_push(1, [t.peer(n) for n in range(5)]))
        stream = lab.control._channel.unary_stream("/pharos.node.v1.NodeControl/WatchEvents")(b"")
        await stream.initial_metadata()
        lab.node.hub.mangle = repeated
        lab.node.connect([t.key(0)], handshakes=False)
        lab.node.hub.mangle = swallowed
        lab.node.connect([t.key(1)], handshakes=False)
        lab.node.hub.mangle = Swapped()
        lab.node.connect([t.key(2), t.key(3)], handshakes=False)
        lab.node.hub.mangle = garbled
        lab.node.connect([t.key(4)], handshakes=False)
        *events, last = await t.read_events(stream, 5)
        assert [pb.Event.FromString(e).peer_id for e in events] == [t.key(n) for n in (0, 0, 3, 2)]
        with pytest.raises(DecodeError):
            pb.Event.FromString(last)


async def test_injected_clients(authority, t):
    async with t.one_node(authority) as lab:
        node = lab.node
        await lab.control.push_config(t.awg_push(1, [t.peer(n) for n in range(3)]))
        stream = await lab.subscribe()
        assert node.connect(2) == [t.key(0), t.key(1)]
        assert node.connect(5) == [t.key(2)]
        assert node.disconnect(1) == [t.key(0)]
        assert node.sessions == {t.key(1), t.key(2)}
        node.roam(t.key(1), "192.0.2.99:5")
        with pytest.raises(NotFound):
            node.connect(["nobody"])
        events = await t.read_events(stream, 9)
        sessions = [(e.type, e.peer_id) for e in events if e.type in (CONNECTED, DISCONNECTED)]
        assert sessions == [
            *((CONNECTED, t.key(n)) for n in range(3)), (DISCONNECTED, t.key(0)), (CONNECTED, t.key(1))
        ]  # fmt: skip
        assert events[-1].source_endpoint == "192.0.2.99:5"
        await lab.fleet.poll()  # a look in turn finds nothing that was not told
        assert node.hub.published == 9
        lab.clock.advance(1000)
        await lab.fleet.poll()  # connected clients go on shaking hands
        listed = {p.peer.public_key: p for p in (await lab.control.list_peers(AWG)).peers}
        assert lab.clock.now() - listed[t.key(1)].last_handshake.seconds < 120
        assert lab.clock.now() - listed[t.key(0)].last_handshake.seconds > 180
        assert listed[t.key(1)].tx_bytes == 10_000_000


async def test_the_generator_tells_the_truth(authority, t):
    """What subscribers were told adds up to the simulator's own count of open sessions, at any rate."""
    async with SimFleet(4, sign=authority.for_fleet, observe=False, buffer=10_000) as fleet:
        assert await fleet.generator.run(1000, 0.01) == 0  # nobody is configured, and it does not spin
        opened, tasks = [set() for _ in fleet], []

        async def follow(index, control):
            stream = control.watch_events()
            await stream.initial_metadata()
            while True:
                event = await stream.read()
                (opened[index].add if event.type == CONNECTED else opened[index].remove)(event.peer_id)

        for node in fleet:
            control = authority.control(node.address)
            await control.push_config(t.awg_push(1, [t.peer(n) for n in range(node.index * 3)]))
            tasks.append(asyncio.create_task(follow(node.index, control)))
        await t.eventually(lambda: all(node.hub.subscribers for node in fleet))
        assert await fleet.generator.run(2000, 0.5) == 1000
        await t.eventually(lambda: fleet.stats()["sent"] == 1000)
        await t.eventually(lambda: opened == [node.sessions for node in fleet])
        stats = fleet.stats()
        assert stats["connected_total"] - stats["disconnected_total"] == stats["sessions"]
        assert (stats["published"], stats["dropped"], stats["peers"]) == (1000, 0, 18)
        await fleet.generator.rate(500)
        await t.eventually(lambda: fleet.generator.emitted > 1050)
        await fleet.generator.rate(0)
        left_alone, fleet.generator.spared = set(fleet.nodes[1].sessions), frozenset({1})
        assert await fleet.generator.run(1000, 0.1) == 100
        assert set(fleet.nodes[1].sessions) == left_alone
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()


async def test_the_shared_tick_looks_at_every_node(authority, t):
    clock = ManualClock()
    async with SimFleet(3, sign=authority.for_fleet, clock=clock, poll_s=0.1) as fleet:
        for node in fleet:
            await node.plane.replace_peers([PeerConfig(t.key(1))])
        await t.eventually(lambda: all(node.observer._memory for node in fleet), 20)
        for node in fleet:
            node.plane.set_live(t.key(1), handshake=int(clock.now()))
        await t.eventually(lambda: all(node.observer.connected_total for node in fleet), 20)


async def test_sessions_spread_over_the_fleet(authority, t):
    async with SimFleet(3, sign=authority.for_fleet, observe=False) as fleet:
        for node in fleet:
            await node.plane.replace_peers([PeerConfig(t.key(n)) for n in range(node.index + 1)])
        assert fleet.connect(4) == 4
        assert [len(node.sessions) for node in fleet] == [1, 2, 1]
        assert fleet.connect(100) == 2


async def test_nodes_have_identities_of_their_own_and_keep_them(authority):
    async with SimFleet(3, sign=authority.for_fleet, seed=5, observe=False) as fleet:
        keys = [(await authority.control(node.address).get_status()).amneziawg.public_key for node in fleet]
        assert len(set(keys)) == 3
        port = fleet[1].port
        await fleet[1].restart()
        assert fleet[1].port == port
        assert (await authority.control(fleet[1].address).get_status()).amneziawg.public_key == keys[1]
    async with SimFleet(2, sign=authority.for_fleet, seed=5, observe=False) as again:
        assert (await authority.control(again[1].address).get_status()).amneziawg.public_key == keys[1]


async def test_a_node_without_a_certificate_does_not_start():
    fleet = SimFleet(1)
    with pytest.raises(Refused, match="no certificate"):
        await fleet.start()
    await fleet.close()


# -- as a process


async def test_the_process_takes_orders(authority, t, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parents[1])}
    made = [sys.executable, str(TOOL), "csr", "--nodes", "3", "--dir", str(tmp_path), "--shared-key"]
    await asyncio.to_thread(subprocess.run, made, check=True, env=environment, timeout=60)
    (tmp_path / "ca.crt").write_bytes(authority.anchor)
    for directory in sorted(tmp_path.glob("node-*")):
        (directory / "node.crt").write_bytes(authority.sign_node((directory / "node.csr").read_bytes()))
    port = 20_000 + os.getpid() % 20_000
    arguments = [str(TOOL), "run", "--dir", str(tmp_path), "--base-port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
    )

    async def answer():
        return json.loads(await asyncio.wait_for(process.stdout.readline(), 30))

    async def order(cmd, **command):
        process.stdin.write(json.dumps({"cmd": cmd, "id": 7, **command}).encode() + b"\n")
        found = await answer()
        assert (found["ok"], found["id"]) == (True, 7), found
        return found

    try:
        ready = await answer()
        assert (ready["event"], ready["nodes"]) == ("ready", 3)
        controls = [authority.control(f"127.0.0.1:{port + n}") for n in range(3)]
        for control in controls:
            await control.push_config(t.awg_push(1, [t.peer(n) for n in range(4)]))
        stream = controls[1].watch_events()
        await stream.initial_metadata()
        assert len((await order("inject", node=1, connect=2))["keys"]) == 2
        assert [e.type for e in await t.read_events(stream, 4)][1::2] == [CONNECTED, CONNECTED]
        assert (await order("burst", events_per_s=1000, seconds=0.05))["events"] == 50
        stats = (await order("stats"))["stats"]
        assert (stats["nodes"], stats["running"], stats["peers"], stats["published"]) == (3, 3, 12, 54)
        assert stats["rss_mb"] > 1
        assert (await order("pushes", node=2))["pushes"][0]["revision"] == 1
        assert set((await order("sessions", node="all"))["sessions"]) == {"0", "1", "2"}
        await order("future", node=0, revision=77)
        assert (await controls[0].get_status()).applied_revision == 77
        await order("fail", node=0, method="GetStatus", code="INTERNAL")
        assert (await t.refused(controls[0].get_status()))[0] == Code.INTERNAL
        await order("stall", node=[0], method="GetStatus")
        call = asyncio.create_task(controls[0].get_status())
        await order("clear", node=0)
        assert (await call).applied_revision == 1
        await order("kill", node=2)
        assert (await t.refused(controls[2].get_status()))[0] == Code.UNAVAILABLE
        await order("start", node=2)
        assert (await authority.control(f"127.0.0.1:{port + 2}").get_status()).applied_revision == 1
        for bad in (b"nonsense\n", b"[]\n", b'{"cmd": "fly"}\n', b'{"cmd": "kill", "node": 3}\n', b'{"cmd": "kill"}\n'):
            process.stdin.write(bad)
            assert (await answer())["ok"] is False
        process.stdin.write(b'{"cmd": "quit"}\n')
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
