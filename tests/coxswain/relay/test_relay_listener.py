"""How much of a relay strangers can hold: places of a listener, tunnels, sockets of peers that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from coxswain.relay import proxy as proxies
from coxswain.relay.backend import Backend
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.contexts import client_context, server_context
from coxswain.relay.ingress import _MAX_TUNNELS, Tunnels
from coxswain.relay.listener import Listener, _network_of
from coxswain.relay.proxy import DeviceProxy
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Session
from tests.coxswain.relay.pipes import until
from tests.relays import Pki, untrusting

LOG = logging.getLogger("relay")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(whole())


def test_many_who_come_in_the_same_moment_are_counted_as_well() -> None:
    async def scenario() -> None:
        served: list[SocketStream] = []

        async def keep(stream: SocketStream) -> None:
            served.append(stream)
            await stream.read()

        listener = Listener(keep, LOG, limit=50, per_host=3)
        host, _, port = (await listener.start("127.0.0.1:0")).rpartition(":")
        burst = [socket.create_connection((host, int(port))) for _ in range(30)]  # all before the loop turns again
        await until(lambda: len(served) >= 3)
        await asyncio.sleep(0.05)  # for more to be let in, which must not
        assert (len(served), listener.connections) == (3, 3)
        for one in burst:
            one.close()
        await until(lambda: not listener.connections)
        await listener.stop()

    run(scenario())


def test_whoever_is_let_in_while_the_listener_stops_is_closed() -> None:
    async def scenario() -> None:
        async def serve(_: SocketStream) -> None:
            raise AssertionError("it stopped before")

        listener = Listener(serve, LOG)
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=near)
        listener._accept(reader, writer)
        await listener.stop()
        far.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
        assert not listener.connections and not listener._hosts
        far.close()

    run(scenario())


def test_an_ipv6_network_counts_as_one() -> None:
    assert _network_of("[2001:db8::1]") == _network_of("2001:db8::ffff:2") != _network_of("2001:db8:0:1::1")
    assert _network_of("[fe80::1%eth0]") == _network_of("fe80::2")
    assert _network_of("[::ffff:192.0.2.7]") == _network_of("192.0.2.7") == "192.0.2.7"
    assert _network_of("") == ""


def test_a_peer_that_is_gone_without_a_word_is_noticed() -> None:
    async def scenario() -> None:
        async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(ignore, "127.0.0.1", 0)
        stream = SocketStream(*await asyncio.open_connection(*server.sockets[0].getsockname()))
        opened = stream._writer.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, times = (
            opened.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * times <= 120
        stream.close()
        server.close()

    run(scenario())


def test_a_stranger_does_not_hold_a_place_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_STRANGER_S", 0.2)
    pki = Pki.make()

    async def scenario() -> None:
        context = server_context(pki.relay(), client_must=False, alpn=("h2",))
        backend = Backend(list, client_context(pki.relay(), alpn=("h2",)))
        listener = Listener(DeviceProxy(context, backend, LOG).serve, LOG)
        host, _, port = (await listener.start("127.0.0.1:0")).rpartition(":")
        theirs = untrusting()
        theirs.set_alpn_protocols(["h2"])
        over = await tls_over(SocketStream(*await asyncio.open_connection(host, int(port))), theirs, server_name="x")
        await over.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        with contextlib.suppress(OSError):
            while await over.read():
                pass
        await until(lambda: not listener.connections)
        over.close()
        await listener.stop()

    run(scenario())


def test_whoever_opens_many_tunnels_does_not_displace_the_one_that_led_to_the_controller() -> None:
    pki = Pki.make()

    async def scenario() -> None:
        tunnels = Tunnels(server_context(pki.relay()), LOG)
        listener = Listener(tunnels.serve, LOG)
        host, _, port = (await listener.start("127.0.0.1:0")).rpartition(":")

        async def dial() -> Session:
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            session = Session(await tls_over(stream, client_context(pki.relay()), server_name=host), client=False)
            session.start()
            await session.ping()
            return session

        genuine = await dial()
        await until(lambda: tunnels.standing == 1)
        backend = Backend(tunnels.ways, client_context(pki.relay(), alpn=("h2",)))

        async def answer() -> None:  # as AccountSync: with the controller's certificate
            leaf, key = pki.grpc()
            credentials = type(pki.relay())(leaf.pem + pki.fleet.pem, key, pki.fleet.pem)
            over = await tls_over(await genuine.accept(), server_context(credentials, alpn=("h2",)), server_name=None)
            while await over.read():
                pass

        answering = asyncio.create_task(answer())
        await backend.call([(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x")])
        thieves = [await dial() for _ in range(_MAX_TUNNELS + 3)]
        await until(lambda: sum(thief.closed for thief in thieves) == 4)
        assert tunnels.standing == _MAX_TUNNELS
        assert not genuine.closed
        await backend.close()
        answering.cancel()
        for session in (genuine, *thieves):
            await session.close()
        await listener.stop()

    run(scenario())
