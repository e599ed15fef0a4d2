"""The egress hop: the line, its failures, many sessions at once, chains (relay-contract.md 5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.errors import InvalidInput
from coxswain.relay.byte_stream import ByteStream, SocketStream
from coxswain.relay.contexts import client_context, server_context
from coxswain.relay.egress import EgressRelay
from coxswain.relay.listener import Listener, listen_address
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.targets import AllowList, parse_target
from coxswain.relay.yamux import Session
from tests.coxswain.relay.pipes import until
from tests.relays import Pki
from tests.support import free_port

LOG = logging.getLogger("relay")


@dataclass
class Place:
    """One relay and one target that gives back what it is sent, behind a greeting."""

    pki: Pki
    relay: str
    target: str
    listener: Listener

    async def session(self, over: ByteStream | None = None) -> Session:
        host, _, port = self.relay.rpartition(":")
        stream = over or SocketStream(*await asyncio.open_connection(host, int(port)))
        session = Session(await tls_over(stream, client_context(self.pki.controller()), server_name=host), client=True)
        session.start()
        await session.ping()
        return session


@contextlib.asynccontextmanager
async def place_of(pki: Pki, allow: Sequence[str] = ("127.0.0.0/8",), **options: Any) -> AsyncIterator[Place]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi ")
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    relay = EgressRelay(server_context(pki.relay()), LOG, allowed=AllowList(allow), **options)
    listener = Listener(relay.serve, LOG)
    at = await listener.start("127.0.0.1:0")
    try:
        yield Place(pki, at, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", listener)
    finally:
        await listener.stop()
        server.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


async def exactly(stream: ByteStream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await stream.read(count - len(got))
        assert part
        got += part
    return got


def test_bytes_behind_the_line_reach_the_target_and_its_answer_comes_back(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki) as place:
            session = await place.session()
            stream = await session.open_stream()
            await stream.write(f"{place.target}\npayload in the same frame".encode())
            assert await exactly(stream, 28) == b"hi payload in the same frame"
            stream.close()
            await until(lambda: session.open_streams == 0)
            await session.close()

    run(scenario)


def test_many_sessions_at_once_none_waits_for_another(pki: Pki) -> None:
    """Trap 3: the existing relay serves one at a time; later ones hang in the TLS handshake."""

    async def scenario() -> None:
        async with place_of(pki) as place:
            idle = await asyncio.open_connection(*place.relay.split(":"))
            sessions = [await place.session() for _ in range(8)]
            streams = [await session.open_stream() for session in sessions for _ in range(10)]
            for stream in streams:
                await stream.write(f"{place.target}\nx".encode())
            assert await asyncio.gather(*(exactly(stream, 4) for stream in streams)) == [b"hi x"] * 80
            for session in sessions:
                await session.close()
            idle[1].close()
            await until(lambda: place.listener.connections == 0)

    run(scenario)


def test_every_failure_is_the_end_of_the_stream_with_nothing_sent(pki: Pki) -> None:
    closed = free_port()
    wrong = [
        b"127.0.0.1:%d\n" % closed,
        b"no-such-host.invalid:80\n",
        b"CONNECT 127.0.0.1:80\n",
        b"127.0.0.1:80\r\n",
        b"127.0.0.1\n",
        b":80\n",
        b"127.0.0.1:0\n",
        b"127.0.0.1:65536\n",
        b"::1:80\n",
        b"\n",
        b"\xff\xfe:80\n",
        b"a" * 300 + b":80\n",
    ]

    async def scenario() -> None:
        async with place_of(pki) as place:
            session = await place.session()
            for line in wrong:
                stream = await session.open_stream()
                await stream.write(line)
                assert await stream.read() == b"", line
                stream.close()
            cut = await session.open_stream()
            await cut.write(b"127.0.0.1:8")
            await cut.write_eof()
            assert await cut.read() == b""
            cut.close()
            await session.ping()
            await session.close()

    run(scenario)


def test_a_stream_that_names_no_target_does_not_stay(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki, line_s=0.05) as place:
            session = await place.session()
            silent = await session.open_stream()
            assert await silent.read() == b""
            await session.close()

    run(scenario)


def test_only_allowed_targets_are_dialled(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki, ["127.0.0.0/8:1", "node.example"]) as place:
            session = await place.session()
            stream = await session.open_stream()
            await stream.write(f"{place.target}\n".encode())
            assert await stream.read() == b""
            await session.close()

    run(scenario)


def test_a_chain_of_three_hops(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki) as one, place_of(pki) as two, place_of(pki) as three:
            sessions = [await one.session()]
            for following in (two, three):
                stream = await sessions[-1].open_stream()
                await stream.write(f"{following.relay}\n".encode())
                sessions.append(await following.session(stream))
            last = await sessions[-1].open_stream()
            body = bytes(range(256)) * 2000
            await last.write(f"{three.target}\n".encode())
            writing = asyncio.create_task(last.write(body))
            assert await exactly(last, 3 + len(body)) == b"hi " + body
            await writing
            for session in reversed(sessions):
                await session.close()

    run(scenario)


def test_who_is_not_of_the_fleet_gets_in_nowhere(pki: Pki) -> None:
    stranger = Pki.make().relay()
    stranger = type(stranger)(stranger.chain_pem, stranger.key_pem, pki.fleet.pem)

    async def scenario() -> None:
        async with place_of(pki) as place:
            host, _, port = place.relay.rpartition(":")
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            over = await tls_over(stream, client_context(stranger), server_name=host)
            with pytest.raises(ssl.SSLError, match="alert"):
                await over.read()

    run(scenario)


def test_a_relay_s_certificate_opens_no_egress(pki: Pki) -> None:
    """Every relay has one that the Fleet CA issued for clients, too: a stolen one would be a proxy into the fleet."""

    async def scenario() -> None:
        async with place_of(pki) as place:
            host, _, port = place.relay.rpartition(":")
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            over = await tls_over(stream, client_context(pki.relay()), server_name=host)
            async with Session(over, client=True) as session:
                with pytest.raises(OSError, match=r"ended|reset|closed"):
                    await session.ping(5)

    run(scenario)


def test_a_relay_that_is_somebody_else_is_not_spoken_to(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki) as place:
            host, _, port = place.relay.rpartition(":")
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            with pytest.raises(ssl.SSLError, match=r"not valid for 'relay\.example'"):
                await tls_over(stream, client_context(pki.relay()), server_name="relay.example")

    run(scenario)


def test_connections_beyond_what_one_host_may_have_are_closed(pki: Pki) -> None:
    async def scenario() -> None:
        async with place_of(pki) as place:
            narrow = Listener(EgressRelay(server_context(pki.relay()), LOG).serve, LOG, per_host=2)
            host, _, port = (await narrow.start("127.0.0.1:0")).rpartition(":")
            kept = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
            await until(lambda: narrow.connections == 2)
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            for _, each in kept:
                each.close()
            writer.close()
            await until(lambda: narrow.connections == 0)
            await narrow.stop()
            assert place.listener.connections == 0

    run(scenario)


def test_targets_are_parsed_exactly() -> None:
    assert parse_target("node.example:8444") == ("node.example", 8444)
    assert parse_target("[2001:db8::1]:22") == ("2001:db8::1", 22)
    for wrong in ("", "a", "a:", ":1", "a:b", "a:70000", "a:0", "2001:db8::1:22", "a b:1", "a:1\r", "a:²", "[::1:1"):
        with pytest.raises(InvalidInput):
            parse_target(wrong)


@given(st.text(max_size=60))
def test_no_target_text_does_harm(text: str) -> None:
    try:
        host, port = parse_target(text)
    except InvalidInput:
        return
    assert host and 1 <= port <= 65535


def test_what_allow_lists_permit() -> None:
    rules = AllowList(["10.0.0.0/8", "192.0.2.7:22", "node.example:8444", "[2001:db8::]:1", "*:443"])
    assert rules.permits("x", "10.1.2.3", 9)
    assert rules.permits("192.0.2.7", "192.0.2.7", 22) and not rules.permits("192.0.2.7", "192.0.2.7", 23)
    assert rules.permits("Node.Example.", "198.51.100.1", 8444) and not rules.permits("node.example", "198.51.100.1", 1)
    assert rules.permits("x", "2001:db8::", 1) and rules.permits("x", "2001:db8::9", 443)
    assert not rules.permits("10.0.0.1.evil.example", "198.51.100.1", 22)
    assert not AllowList([]).permits("anything", "198.51.100.1", 1)
    assert AllowList([], anywhere=True).permits("anything", "198.51.100.1", 1)
    for wrong in ("", "a:b", "a:0", "http://a", "a b"):
        with pytest.raises(InvalidInput, match="allow"):
            AllowList([wrong])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "100.100.100.200", "168.63.129.16", "::1", "::",
                "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "255.255.255.255", "ff02::1"],
)  # fmt: skip
def test_what_only_the_host_reaches_is_allowed_only_where_an_entry_is_it(address: str) -> None:
    """Whoever holds a node's name must not lead a relay to itself, or to the metadata of its cloud."""
    wide = AllowList(["*:80", "0.0.0.0/0", "::/0", "node.example", "node.example:80"], anywhere=True)
    assert not wide.permits("node.example", address, 80) and not wide.permits(address, address, 80)
    bracketed = f"[{address}]:80" if ":" in address else f"{address}:80"
    for entry in (address, bracketed):
        named = AllowList([entry])
        assert named.permits(address, address, 80)
        assert named.permits(address, address, 81) is (entry is address)


def test_localhost_is_loopback_for_who_says_it() -> None:
    assert AllowList(["localhost:1"]).permits("localhost", "127.0.0.1", 1)
    assert not AllowList(["localhost:1"]).permits("localhost", "169.254.169.254", 1)
    assert not AllowList(["*"]).permits("localhost", "127.0.0.1", 1)


def test_addresses_to_listen_on() -> None:
    assert listen_address(":8443") == (None, 8443)
    assert listen_address("[::1]:1") == ("::1", 1)
    for wrong in ("8443", "a:b", "a:70000"):
        with pytest.raises(InvalidInput, match="address"):
            listen_address(wrong)
