"""Devices through a relay: a gRPC client, the proxy, a yamux tunnel, a gRPC server (relay-contract.md 1.4 to 3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from coxswain.pki import Role, device_fingerprint
from coxswain.relay.backend import Backend
from coxswain.relay.byte_stream import SocketStream, splice
from coxswain.relay.contexts import client_context, server_context
from coxswain.relay.http2 import Body, Http2Connection, Http2Stream
from coxswain.relay.ingress import Tunnels
from coxswain.relay.listener import Listener
from coxswain.relay.proxy import DeviceProxy
from coxswain.relay.stream_tls import tls_over
from coxswain.relay.yamux import Session, Timing
from tests.coxswain.relay.pipes import pipe, until
from tests.relays import CLAIM, FETCH, Account, Pki, account_sync, call, device_channel, untrusting

LOG = logging.getLogger("relay")
MIB = 1024 * 1024


@dataclass
class Relay:
    """A relay in this process, with its two ports."""

    pki: Pki
    devices: str
    tunnel: str
    tunnels: Tunnels
    account: Account
    proxy: DeviceProxy
    socket: Path
    server: Any = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def device(self, identity: tuple[bytes, bytes] | None = None) -> grpc.aio.Channel:
        channel = device_channel(self.pki, self.devices, identity)
        self.channels.append(channel)
        return channel

    async def dial(self, credentials: Any = None) -> SocketStream:
        host, _, port = self.tunnel.rpartition(":")
        stream = SocketStream(*await asyncio.open_connection(host, int(port)))
        return await tls_over(stream, client_context(credentials or self.pki.relay(chain=False)), server_name=host)

    async def carry(self) -> Controller:
        session = Session(await self.dial(), client=False)
        session.start()
        await session.ping()
        controller = Controller(session, self.socket)
        controller.task = asyncio.create_task(controller.run())
        return controller


@dataclass
class Controller:
    """The other end of a tunnel: each stream is joined with the socket of AccountSync."""

    session: Session
    socket: Path
    task: asyncio.Task[None] | None = None
    streams: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            with contextlib.suppress(ConnectionError):
                while True:
                    stream = await self.session.accept()
                    self.streams += 1
                    near = SocketStream(*await asyncio.open_unix_connection(self.socket))
                    group.create_task(splice(stream, near))

    async def end(self) -> None:
        await self.session.close()
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay_of(pki: Pki, socket: Path, timing: Timing | None = None) -> AsyncIterator[Relay]:
    fleet, devices = pki.relay(), pki.relay(anchor=Role.DEVICE)
    tunnels = Tunnels(server_context(fleet), LOG, timing=timing)
    backend = Backend(tunnels.ways, client_context(fleet, alpn=("h2",)))
    proxy = DeviceProxy(server_context(devices, client_must=False, tls12=True, alpn=("h2",)), backend, LOG)
    front, back = Listener(proxy.serve, LOG), Listener(tunnels.serve, LOG)
    account = Account()
    at = (await front.start("127.0.0.1:0"), await back.start("127.0.0.1:0"))
    relay = Relay(pki, *at, tunnels, account, proxy, socket)
    async with account_sync(pki, socket, account) as relay.server:
        try:
            yield relay
        finally:
            for channel in relay.channels:
                await channel.close()
            await front.stop()
            await backend.close()
            await back.stop()


def run(pki: Pki, tmp_path: Path, scenario: Callable[[Relay], Coroutine[Any, Any, None]], *, carried: bool = True) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            controller = await relay.carry() if carried else None
            try:
                await scenario(relay)
            finally:
                if controller is not None:
                    await controller.end()

    asyncio.run(whole())


async def refused(channel: grpc.aio.Channel, path: str = FETCH, request: bytes = b"", **more: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, path, request, **more)
    return caught.value.code(), caught.value.details() or ""


def test_a_device_with_certificate_is_named_to_the_controller(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        identity = pki.device()
        sent = (
            ("pharos-session", "token"),
            ("x-pharos-device-fp", "sha256:somebody-else"),
            ("x-pharos-anything-bin", b"\x01"),
            ("own", "one"),
            ("own", "two"),
            ("own-bin", b"\x00\x01\xff"),
        )
        assert await call(relay.device(identity), metadata=sent) == b"hello"
        path, seen = relay.account.seen[-1]
        assert path == FETCH
        assert seen["x-pharos-device-fp"] == [device_fingerprint(identity[0])]
        assert (seen["pharos-session"], seen["own"], seen["own-bin"]) == (["token"], ["one", "two"], [b"\x00\x01\xff"])
        assert not [key for key in seen if key.startswith("x-pharos-") and key != "x-pharos-device-fp"]
        assert seen["peer"]["x509_common_name"] == [b"PharosVPN Relay"]
        assert 15 < seen["left"] <= 20

    run(pki, tmp_path, scenario)


def test_a_device_without_certificate_may_claim_and_nothing_else(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        channel = relay.device()
        assert await call(channel, CLAIM, metadata=(("x-pharos-device-fp", "sha256:spoofed"),)) == b"hello"
        assert "x-pharos-device-fp" not in relay.account.seen[-1][1]
        for path in (FETCH, CLAIM.lower(), CLAIM + "/", "/pharos.account.v1.AccountSync/Authenticate"):
            said = await refused(channel, path)
            assert said == (grpc.StatusCode.UNAUTHENTICATED, f"relay: {path} requires a device certificate")
        assert len(relay.account.seen) == 1

    run(pki, tmp_path, scenario)


def test_that_refusal_needs_no_tunnel(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        assert (await refused(relay.device()))[0] is grpc.StatusCode.UNAUTHENTICATED
        code, text = await refused(relay.device(pki.device()))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert text == 'connection error: desc = "transport: Error while dialing: relay: no coxswain tunnel connected"'

    run(pki, tmp_path, scenario, carried=False)


def test_a_wrong_certificate_opens_nothing_not_even_the_claim(pki: Pki, tmp_path: Path) -> None:
    other = Pki.make()
    relay_leaf = pki.relay()

    async def scenario(relay: Relay) -> None:
        for identity in (other.device(), (relay_leaf.chain_pem, relay_leaf.key_pem)):
            assert (await refused(relay.device(identity), CLAIM))[0] is grpc.StatusCode.UNAVAILABLE
        assert not relay.account.seen

    run(pki, tmp_path, scenario)


def test_metadata_and_trailers_of_an_answer_arrive(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        started = relay.device(pki.device()).unary_unary(FETCH)(b"x", timeout=20)
        assert ("x-early", "yes") in tuple(await started.initial_metadata())
        assert await started == b"x"
        trailing = tuple(await started.trailing_metadata())
        assert ("x-after", "done") in trailing and ("x-raw-bin", b"\x00\xff") in trailing

    run(pki, tmp_path, scenario)


def test_a_refusal_of_the_controller_arrives_as_it_is(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        said = await refused(relay.device(pki.device()), "/some.Service/Refuse")
        assert said == (grpc.StatusCode.PERMISSION_DENIED, "no — não")

    run(pki, tmp_path, scenario)


def test_large_messages_pass_and_too_large_ones_are_refused(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        channel = relay.device(pki.device())
        assert len(await call(channel, request=bytes(15 * MIB))) == 15 * MIB
        code, text = await refused(channel, request=bytes(16 * MIB + 1))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == "grpc: received message larger than max (16777217 vs. 16777216)"
        assert await call(channel) == b"hello"

    run(pki, tmp_path, scenario)


def test_what_nobody_reads_any_more_keeps_no_room_on_a_devices_connection(pki: Pki, tmp_path: Path) -> None:
    """Of a refused message much has arrived; it counts in flow control until the relay gives it back."""

    async def scenario(relay: Relay) -> None:
        channel = relay.device(pki.device())
        answers = await asyncio.gather(*(refused(channel, request=bytes(17 * MIB)) for _ in range(12)))
        assert {code for code, _ in answers} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await call(channel, timeout=10) == b"hello"

    run(pki, tmp_path, scenario)


def test_nor_on_the_connection_that_all_devices_share() -> None:
    """Devices go away before they read their answers, of which much has arrived; later ones have theirs."""

    async def whole() -> None:
        near, far = await pipe()
        asked: asyncio.Queue[Http2Stream] = asyncio.Queue()
        server = Http2Connection(far, client=False, on_request=lambda stream, _: asked.put_nowait(stream))
        client = Http2Connection(near, client=True)
        for end in (client, server):
            await end.start()
        running = [asyncio.create_task(end.run()) for end in (client, server)]
        head = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/x"), (b":authority", b"x")]
        for over in [False] * 6 + [True] * 6:
            stream = await client.open(head)
            await stream.send(b"", last=over)
            answering = await asked.get()
            await answering.send_headers([(b":status", b"200")])
            await answering.send(bytes(MIB - 1), last=over)
            await stream.receive()
            first = await stream.receive()
            await until(lambda stream=stream, over=over: stream.they_ended or not over)  # type: ignore[misc]
            await stream.leave()
            assert isinstance(first, Body)
            await stream.taken(first)  # late, and not counted twice
        last = await client.open(head)
        answering = await asked.get()
        await answering.send_headers([(b":status", b"200")])
        sending = asyncio.create_task(answering.send(bytes(8 * MIB), last=True))
        got = 0
        while True:
            part = await last.receive()
            if isinstance(part, Body):
                got += len(part.data)
                await last.taken(part)
            if part.last:
                break
        await sending
        assert got == 8 * MIB
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def in_time() -> None:
        async with asyncio.timeout(30):
            await whole()

    asyncio.run(in_time())


def test_compressed_requests_are_refused(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        code, text = await refused(relay.device(pki.device()), request=bytes(10_000), compression=grpc.Compression.Gzip)
        assert (code, text) == (
            grpc.StatusCode.UNIMPLEMENTED,
            'grpc: Decompressor is not installed for grpc-encoding "gzip"',
        )

    run(pki, tmp_path, scenario)


def test_a_deadline_ends_the_call_on_both_sides(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        said = await refused(relay.device(pki.device()), "/some.Service/Hang", timeout=0.5)
        assert said[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(60):
            await until(lambda: ("cancelled", {}) in relay.account.seen)

    run(pki, tmp_path, scenario)


def test_a_device_that_cancels_cancels_at_the_controller(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        hanging = relay.device(pki.device()).unary_unary("/some.Service/Hang")(b"")
        async with asyncio.timeout(60):
            await until(lambda: bool(relay.account.seen))
            hanging.cancel()
            await until(lambda: ("cancelled", {}) in relay.account.seen)

    run(pki, tmp_path, scenario)


def test_streams_flow_both_ways_at_once(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        both = relay.device(pki.device()).stream_stream("/some.Service/Echo")(timeout=30)
        for number in range(20):
            await both.write(bytes([number]) * 1000)
            assert await both.read() == bytes([number]) * 1000
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF

    run(pki, tmp_path, scenario)


def test_all_devices_share_one_connection_to_the_controller(pki: Pki, tmp_path: Path) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            controller = await relay.carry()
            channels = [relay.device(pki.device()) for _ in range(5)]
            answers = await asyncio.gather(*(call(channel) for channel in channels for _ in range(20)))
            assert answers == [b"hello"] * 100
            assert controller.streams == 1
            await controller.end()

    asyncio.run(whole())


def test_calls_work_as_soon_as_a_lost_tunnel_is_back(pki: Pki, tmp_path: Path) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            device = relay.device(pki.device())
            for _ in range(2):
                controller = await relay.carry()
                assert await call(device) == b"hello"
                await controller.end()
                await until(lambda: not relay.tunnels.standing)
                assert (await refused(device))[0] is grpc.StatusCode.UNAVAILABLE

    asyncio.run(whole())


def test_a_call_that_is_under_way_when_the_tunnel_falls_fails_at_once(pki: Pki, tmp_path: Path) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            controller = await relay.carry()
            hanging = asyncio.create_task(refused(relay.device(pki.device()), "/some.Service/Hang"))
            await until(lambda: bool(relay.account.seen))
            await controller.end()
            code, text = await hanging
            assert code is grpc.StatusCode.UNAVAILABLE
            assert text in ("error reading from server: EOF", "error reading from server: unexpected EOF")

    asyncio.run(whole())


def test_nobody_who_merely_connects_keeps_the_controller_out(pki: Pki, tmp_path: Path) -> None:
    """Traps 3 to 5: idle connections, half a handshake, and a second controller beside the first."""

    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            host, _, port = relay.tunnel.rpartition(":")
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            idle[0][1].write(b"\x16\x03\x01")
            first, second = await relay.carry(), await relay.carry()
            await until(lambda: relay.tunnels.standing == 2)
            device = relay.device(pki.device())
            assert await call(device) == b"hello"
            assert (first.streams, second.streams) == (0, 1)
            await second.end()
            await until(lambda: relay.tunnels.standing <= 1)
            assert await call(device) == b"hello"
            assert first.streams == 1
            await first.end()
            for _, writer in idle:
                writer.close()

    asyncio.run(whole())


def test_who_may_not_be_the_controller_is_refused(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        device_pem, device_key = pki.device()
        grpc_leaf, grpc_key = pki.grpc()
        strangers = [Pki.make().relay(), pki.relay()]
        strangers[0] = type(strangers[0])(strangers[0].chain_pem, strangers[0].key_pem, pki.fleet.pem)
        strangers[1] = type(strangers[0])(device_pem, device_key, pki.fleet.pem)
        strangers.append(type(strangers[0])(grpc_leaf.pem, grpc_key, pki.fleet.pem))
        for stranger in strangers:
            stream = await relay.dial(stranger)
            with pytest.raises(ssl.SSLError, match="alert"):
                await stream.read()
        assert not relay.tunnels.standing

    run(pki, tmp_path, scenario, carried=False)


def test_the_tunnel_speaks_tls_1_3_only_and_devices_may_1_2(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        for address, fine in ((relay.tunnel, False), (relay.devices, True)):
            context = untrusting()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2"])
            host, _, port = address.rpartition(":")
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            if fine:
                assert (await tls_over(stream, context, server_name="x")).alpn == "h2"
            else:
                with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
                    await tls_over(stream, context, server_name="x")
            stream.close()

    run(pki, tmp_path, scenario, carried=False)


def test_whoever_claims_to_be_the_controller_without_its_leaf_learns_nothing(pki: Pki, tmp_path: Path) -> None:
    """A stolen relay certificate may hold a tunnel; calls go past it to the one that is the controller."""

    async def whole() -> None:
        async with asyncio.timeout(100), relay_of(pki, tmp_path / "a.sock") as relay:
            genuine = await relay.carry()
            thief = Session(await relay.dial(pki.relay()), client=False)
            thief.start()
            await thief.ping()
            stolen: list[bytes] = []

            async def pretend() -> None:
                with contextlib.suppress(OSError):
                    await tls_over(await thief.accept(), server_context(pki.relay()), server_name=None)
                    stolen.append(b"")

            pretending = asyncio.create_task(pretend())
            await until(lambda: relay.tunnels.standing >= 2)
            assert await call(relay.device(pki.device())) == b"hello"
            await pretending
            assert not stolen
            assert genuine.streams == 1
            await thief.close()
            await genuine.end()

    asyncio.run(whole())


def test_calls_under_way_are_waited_for_at_the_end_and_new_ones_refused(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        device = relay.device(pki.device())
        both = device.stream_stream("/some.Service/Echo")(timeout=30)
        await both.write(b"begun")
        assert await both.read() == b"begun"
        draining = asyncio.create_task(relay.proxy.drain(20))
        await asyncio.sleep(0)
        assert (await refused(device, timeout=2))[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert not draining.done()
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF
        await draining

    run(pki, tmp_path, scenario)


def test_whoever_speaks_no_http2_is_let_go(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        host, _, port = relay.devices.rpartition(":")
        for alpn, said in ((None, b"GET / HTTP/1.1\r\n\r\n"), ("h2", b"GET / HTTP/1.1\r\n\r\n" * 10)):
            context = untrusting()
            if alpn:
                context.set_alpn_protocols([alpn])
            stream = SocketStream(*await asyncio.open_connection(host, int(port)))
            over = await tls_over(stream, context, server_name="x")
            with contextlib.suppress(OSError):
                await over.write(said)
                while await over.read():
                    pass
            stream.close()

    run(pki, tmp_path, scenario, carried=False)


def test_a_backend_that_goes_away_finishes_what_it_has_begun_and_new_calls_find_the_next_one(
    pki: Pki, tmp_path: Path
) -> None:
    """GOAWAY, as a server that stops with grace sends it: the calls under way are not cut off."""

    async def scenario(relay: Relay) -> None:
        channel = relay.device(pki.device())
        begun = channel.stream_stream(FETCH)(timeout=40)
        await begun.write(b"before")
        assert await begun.read() == b"before"
        stopping = asyncio.create_task(relay.server.stop(30))
        await until(lambda: not relay.socket.exists())
        await begun.write(b"after")
        assert await begun.read() == b"after"
        async with account_sync(pki, relay.socket, relay.account):
            assert await call(channel) == b"hello"  # by a connection of its own
            await begun.write(b"and still")
            assert await begun.read() == b"and still"
            await begun.done_writing()
            assert await begun.code() is grpc.StatusCode.OK
            await stopping

    run(pki, tmp_path, scenario)
