"""A link's half on the loop: what it says of a node that is silent because we do not listen."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc

from actors import node_connection
from actors.event_funnel import EventFunnel
from actors.node_connection import Channel, Dialer, NodeConnection
from coxswain.clock import ManualClock, SystemClock
from coxswain.control_path.forward import Forwarders
from coxswain.control_path.routes import Routes
from coxswain.control_path.ways import Ways
from coxswain.wire.node_control import Deadlines
from coxswain.wire.pharos.node.v1 import control_pb2 as pb


class Stream:
    """Three events, and then nothing for ever."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[pb.Event]:
        for number in (1, 2, 3):
            event = pb.Event(type=pb.EVENT_TYPE_PEER_CONNECTED, protocol=pb.PROTOCOL_AMNEZIAWG)
            event.peer_id = base64.b64encode(bytes([number] * 32)).decode()
            event.at.FromSeconds(1_800_000_000)
            yield event
        await self.ended.wait()

    def cancel(self) -> None:
        self.ended.set()


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110 - what changes is an attribute of the code under test
            await asyncio.sleep(0.001)


class Odd(Stream):
    """One of a peer that has no key, one of a kind that nobody knows, one that is fine, and one that is no event at all."""

    async def __aiter__(self) -> AsyncIterator[pb.Event]:
        yield pb.Event(type=pb.EVENT_TYPE_PEER_CONNECTED, protocol=pb.PROTOCOL_AMNEZIAWG, peer_id="none")
        yield pb.Event(type=99, protocol=pb.PROTOCOL_AMNEZIAWG)  # type: ignore[arg-type]
        yield pb.Event(
            type=pb.EVENT_TYPE_PEER_CONNECTED,
            protocol=pb.PROTOCOL_AMNEZIAWG,
            peer_id=base64.b64encode(bytes(32)).decode(),
        )
        yield None  # type: ignore[misc]


def test_events_that_cannot_be_read_are_counted_with_their_node():
    async def reads() -> None:
        lost: list[str] = []
        ends: list[str] = []
        funnel = EventFunnel("epoch", lambda _batch: None, linger_s=60.0, on_lost=lost.append)
        channel = Channel(grpc.aio.insecure_channel("127.0.0.1:9"), 1, None)
        dialer = Dialer(Deadlines(), ManualClock(), Routes(), Forwarders(Path("never"), Ways()))
        await NodeConnection("nod_x", "name", channel, dialer)._read(Odd(), funnel, ends.append)
        assert lost == ["nod_x", "nod_x"] and "cannot be read" in ends[0]
        assert funnel.depth == 2, "the event that is fine, and the end of the stream"
        await channel.close()

    asyncio.run(reads())


class Refused(Stream):
    """``code``: what the agent answers in place of events."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    async def __aiter__(self) -> AsyncIterator[pb.Event]:
        raise grpc.aio.AioRpcError(self._code, grpc.aio.Metadata(), grpc.aio.Metadata(), "unknown method WatchEvents")
        yield


def test_an_agent_without_events_keeps_its_link():
    """What its looks show is then all that is known of its sessions; a stream that breaks costs the link."""

    async def reads() -> None:
        funnel = EventFunnel("epoch", lambda _batch: None, linger_s=60.0)
        channel = Channel(grpc.aio.insecure_channel("127.0.0.1:9"), 1, None)
        dialer = Dialer(Deadlines(), ManualClock(), Routes(), Forwarders(Path("never"), Ways()))
        ends: list[str] = []
        connection = NodeConnection("nod_x", "name", channel, dialer)
        await connection._read(Refused(grpc.StatusCode.UNIMPLEMENTED), funnel, ends.append)
        assert (funnel.depth, ends) == (1, []), "that there are no events is known"
        await connection._read(Refused(grpc.StatusCode.UNAVAILABLE), funnel, ends.append)
        assert len(ends) == 1
        await channel.close()

    asyncio.run(reads())


def test_an_agent_that_lists_no_peers_is_looked_at_by_its_status():
    """The earliest method of all, but a method that an agent lacks: what it acknowledges is then what it has."""

    async def status(_request: bytes, _context: object) -> bytes:
        return pb.GetStatusResponse(applied_revision=3).SerializeToString()

    async def looks() -> None:
        handlers = {"GetStatus": grpc.unary_unary_rpc_method_handler(status)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pharos.node.v1.NodeControl", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        funnel = EventFunnel("epoch", lambda _batch: None, linger_s=60.0)
        channel = Channel(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), 1, None)
        dialer = Dialer(Deadlines(), SystemClock(), Routes(), Forwarders(Path("never"), Ways()))
        connection = NodeConnection("nod_x", "name", channel, dialer)
        ends: list[str] = []
        assert await connection.subscribe(await connection.first_status(), funnel, ends.append) == (None, None)
        look = await connection.look(funnel)
        assert (look.status.applied_revision, look.peers, look.rows) == (3, None, None)
        assert ends == []
        await connection.close()
        await server.stop(None)

    asyncio.run(looks())


class Flood(Stream):
    """More than anybody has to say."""

    count = 1_000

    async def __aiter__(self) -> AsyncIterator[pb.Event]:
        for number in range(self.count):
            event = pb.Event(type=pb.EVENT_TYPE_PEER_CONNECTED, protocol=pb.PROTOCOL_AMNEZIAWG)
            event.peer_id = base64.b64encode(number.to_bytes(32)).decode()
            yield event


def test_a_node_that_floods_is_listened_to_no_faster_than_any_can_mean_it(monkeypatch):
    monkeypatch.setattr(node_connection, "_BURST", 300)

    async def reads() -> float:
        funnel = EventFunnel("epoch", lambda _batch: None, linger_s=60.0)
        channel = Channel(grpc.aio.insecure_channel("127.0.0.1:9"), 1, None)
        dialer = Dialer(Deadlines(), SystemClock(), Routes(), Forwarders(Path("never"), Ways()))
        began = time.monotonic()
        await NodeConnection("nod_x", "name", channel, dialer)._read(Flood(), funnel, lambda _reason: None)
        took = time.monotonic() - began
        assert funnel.depth == 1_001, "none is lost"
        await channel.close()
        return took

    assert 0.5 < asyncio.run(reads()) < 10


class Few(Flood):
    """Less than is taken in at once; twice that is more."""

    count = 280


class Counting(NodeConnection):
    """Counts how often it does not read on."""

    rests = 0

    async def _rest(self) -> None:
        self.rests += 1


def test_a_node_that_floods_gains_nothing_by_connecting_anew(monkeypatch):
    """Each of its connections had a burst of its own."""
    monkeypatch.setattr(node_connection, "_BURST", 300)

    async def reads() -> None:
        clock = ManualClock()
        funnel = EventFunnel("epoch", lambda _batch: None, linger_s=60.0)
        channel = Channel(grpc.aio.insecure_channel("127.0.0.1:9"), 1, None)
        dialer = Dialer(Deadlines(), clock, Routes(), Forwarders(Path("never"), Ways()))

        async def rests(node_id: str) -> int:
            connection = Counting(node_id, "name", channel, dialer)
            await connection._read(Few(), funnel, lambda _reason: None)
            return connection.rests

        assert await rests("nod_x") == 0
        assert await rests("nod_x") == 261, "the 300th is the first that waits"
        assert await rests("nod_y") == 0, "nor does that cost any other node"
        clock.advance(1.0)
        assert await rests("nod_x") == 0, "with time it may say as much again"
        await channel.close()

    asyncio.run(reads())


def test_a_node_whose_events_are_held_back_here_counts_as_heard():
    asyncio.run(_held_back())


async def _held_back() -> None:
    clock = ManualClock()
    funnel = EventFunnel("epoch", lambda _batch: None, capacity=1, batch_size=1, linger_s=60.0)
    channel = Channel(grpc.aio.insecure_channel("127.0.0.1:9"), 1, None)
    connection = NodeConnection(
        "nod_x", "name", channel, Dialer(Deadlines(), clock, Routes(), Forwarders(Path("never"), Ways()))
    )
    reader = asyncio.create_task(connection._read(Stream(), funnel, lambda _reason: None))
    # The first event is on its way, the second waits, and there is no room for the third.
    await until(lambda: funnel.depth == 2 and connection._held_back)
    clock.advance(100.0)
    asked_at = clock.monotonic()
    assert connection.heard_since(asked_at)  # there is an event that we do not take
    clock.advance(1.0)
    funnel.acknowledge("epoch", 1)  # room for it
    await until(lambda: not connection._held_back)
    assert connection.heard_since(asked_at)
    clock.advance(100.0)
    assert not connection.heard_since(clock.monotonic())  # now it is the node that says nothing
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await channel.close()
