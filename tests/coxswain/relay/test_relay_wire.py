"""The small parts: gRPC's wire in passing, hostile HTTP/2, TLS over streams, and when a tunnel is dialled again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import random
import ssl
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coxswain.pki import Role
from coxswain.relay import proxy as proxy_module
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.contexts import client_context, server_context
from coxswain.relay.grpc_wire import (
    MAX_MESSAGE,
    Code,
    GrpcFailure,
    MessageGate,
    device_fingerprint,
    failure_headers,
    format_timeout,
    parse_timeout,
    request_headers,
    response_headers,
    trailers,
)
from coxswain.relay.http2 import GoAwaySieve
from coxswain.relay.stream_tls import TlsStream, tls_over
from coxswain.relay.tunnel import Redial, describe
from coxswain.relay.yamux import Session
from tests.coxswain.relay.pipes import pipe, until
from tests.coxswain.relay.test_relay_egress import exactly
from tests.coxswain.relay.test_relay_proxy import Relay, refused, run
from tests.relays import CLAIM, DEVICE_CERTIFICATE, DEVICE_FINGERPRINT, Pki, call, untrusting


def test_the_fingerprint_of_the_vector() -> None:
    der = ssl.PEM_cert_to_DER_cert(DEVICE_CERTIFICATE)
    assert device_fingerprint(der) == DEVICE_FINGERPRINT


def test_timeouts_travel_in_at_most_eight_digits() -> None:
    assert format_timeout(4.950021) == b"4950021u"
    assert format_timeout(0) == b"1u"
    assert format_timeout(3600) == b"3600000m"
    assert format_timeout(1e12) == b"99999999H"
    made = [parse_timeout(text) for text in (b"2H", b"3M", b"4S", b"5m", b"6u", b"7n")]
    assert made == pytest.approx([7200, 180, 4, 0.005, 6e-6, 7e-9])
    for wrong in (b"", b"S", b"1", b"1x", b"-1S", b"123456789S", "²S".encode()):
        with pytest.raises(GrpcFailure, match="malformed grpc-timeout"):
            parse_timeout(wrong)


@given(st.floats(1e-6, 1e9))
def test_a_timeout_never_grows_on_its_way(seconds: float) -> None:
    text = format_timeout(seconds)
    assert len(text) <= 9
    assert parse_timeout(text) <= max(seconds, 1e-6) * (1 + 1e-9)


def test_what_a_device_says_of_itself_is_dropped() -> None:
    sent = [
        (b"x-pharos-device-fp", b"a"),
        (b"X-Pharos-Else-bin", b"b"),
        (b"te", b"trailers"),
        (b"own", b"1"),
        (b"own", b"2"),
    ]
    for fingerprint in ("", "sha256:1"):
        made = request_headers(sent, b"/a/B", fingerprint=fingerprint, timeout_s=None, agent="x")
        assert [value for name, value in made if name == b"own"] == [b"1", b"2"]
        assert [pair for pair in made if pair[0].lower().startswith(b"x-pharos")] == (
            [(b"x-pharos-device-fp", b"sha256:1")] if fingerprint else []
        )
        assert dict(made)[b":authority"] == b"coxswain-grpc"
        assert [name for name, _ in made].count(b"te") == 1


def test_answers_that_are_none_or_compressed_are_a_status() -> None:
    for headers, code, text in (
        ([(b":status", b"503")], Code.UNAVAILABLE, "unexpected HTTP status code received from server: 503"),
        (
            [(b":status", b"200"), (b"grpc-encoding", b"gzip")],
            Code.INTERNAL,
            'grpc: Decompressor is not installed for grpc-encoding "gzip"',
        ),
    ):
        with pytest.raises(GrpcFailure) as caught:
            response_headers(headers)
        assert (caught.value.code, caught.value.text) == (code, text)
    with pytest.raises(GrpcFailure, match="without sending trailers"):
        trailers([(b"x", b"y")])


def test_messages_of_failures_are_escaped() -> None:
    made = dict(failure_headers(GrpcFailure(Code.UNAVAILABLE, 'a "b" 100%\né'), started=True))
    assert made == {b"grpc-status": b"14", b"grpc-message": b'a "b" 100%25%0A%C3%A9'}


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(1, 9), min_size=1))
def test_messages_pass_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"\0" + len(body).to_bytes(4) + body for body in bodies)
    gate, at, turn = MessageGate(b"identity", Code.UNIMPLEMENTED), 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        gate.look(data[at : at + size])
        at, turn = at + size, turn + 1
    for bad, text in (
        (b"\x01\0\0\0\0", "Decompressor is not installed"),
        (b"\x02\0\0\0\0", "unexpected payload format 2"),
        (b"\0" + (MAX_MESSAGE + 1).to_bytes(4), "16777217 vs. 16777216"),
    ):
        with pytest.raises(GrpcFailure, match=text):
            gate.look(bad)
        gate._prefix.clear()


@given(st.binary(max_size=400))
def test_no_bytes_harm_the_gate(data: bytes) -> None:
    with contextlib.suppress(GrpcFailure):
        MessageGate(b"identity", Code.UNIMPLEMENTED).look(data)


class RawDevice:
    """An HTTP/2 client that does what no decent one does."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    @classmethod
    async def dial(cls, relay: Relay) -> RawDevice:
        host, _, port = relay.devices.rpartition(":")
        context = untrusting()
        context.set_alpn_protocols(["h2"])
        stream = SocketStream(*await asyncio.open_connection(host, int(port)))
        return cls(await tls_over(stream, context, server_name="x"))

    def headers(self, path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
        usual = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "x")]
        return [*usual, ("content-type", "application/grpc"), ("te", "trailers"), *more]

    async def flush(self) -> None:
        await self.stream.write(self.h2.data_to_send())

    async def hear(self) -> bool:
        data = await self.stream.read()
        if data:
            self.events += self.h2.receive_data(data)
            await self.flush()
        return bool(data)


def test_a_device_that_resets_in_a_flood_is_let_go(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        device = await RawDevice.dial(relay)
        await device.flush()
        with contextlib.suppress(OSError):
            for _ in range(2_000):
                number = device.h2.get_next_available_stream_id()
                device.h2.send_headers(number, device.headers(CLAIM))
                device.h2.reset_stream(number)
                await device.flush()
            while await device.hear():
                pass
        ended = [event for event in device.events if isinstance(event, h2.events.ConnectionTerminated)]
        assert not ended or int(ended[0].error_code or 0) == 11
        device.stream.close()

    run(pki, tmp_path, scenario, carried=False)


def test_a_device_that_has_us_reset_in_a_flood_is_let_go_as_well(pki: Pki, tmp_path: Path) -> None:
    """The same flood, but each call is dropped by a mistake that we answer with a reset (CVE-2025-8671)."""

    async def scenario(relay: Relay) -> None:
        device = await RawDevice.dial(relay)
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                number = device.h2.get_next_available_stream_id()
                device.h2.send_headers(number, device.headers(CLAIM))
                too_much = b"\x00\x00\x04\x08\x00" + number.to_bytes(4) + (2**31 - 1).to_bytes(4)
                await device.stream.write(device.h2.data_to_send() + too_much)
                device.h2.streams.pop(number)  # it knows of no end of it
            while await device.stream.read():
                pass
        device.stream.close()
        await until(lambda: not relay.proxy._calls)

    run(pki, tmp_path, scenario, carried=False)


def test_what_is_no_grpc_is_refused(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        device = await RawDevice.dial(relay)
        headers = [(name, "text/html" if name == "content-type" else value) for name, value in device.headers(CLAIM)]
        device.h2.send_headers(1, headers, end_stream=True)
        await device.flush()
        while not any(isinstance(event, h2.events.ResponseReceived) for event in device.events):
            assert await device.hear()
        answer = next(event for event in device.events if isinstance(event, h2.events.ResponseReceived))
        assert (b":status", b"415") in [(bytes(name), bytes(value)) for name, value in answer.headers]
        device.stream.close()

    run(pki, tmp_path, scenario, carried=False)


def test_a_malformed_timeout_is_a_status(pki: Pki, tmp_path: Path) -> None:
    async def scenario(relay: Relay) -> None:
        device = await RawDevice.dial(relay)
        device.h2.send_headers(1, device.headers(CLAIM, ("grpc-timeout", "soon")), end_stream=True)
        await device.flush()
        while not device.events or not any(isinstance(event, h2.events.StreamEnded) for event in device.events):
            assert await device.hear()
        answer = next(event for event in device.events if isinstance(event, h2.events.ResponseReceived))
        assert (b"grpc-status", b"13") in [(bytes(name), bytes(value)) for name, value in answer.headers]
        device.stream.close()

    run(pki, tmp_path, scenario, carried=False)


def test_strangers_are_bounded_and_keep_no_device_away(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "_CLAIMS_AT_ONCE", 3)

    async def scenario(relay: Relay) -> None:
        stranger = relay.device()
        held = [stranger.stream_stream(CLAIM)(timeout=30) for _ in range(3)]
        for each in held:
            await each.write(b"x")
            assert await each.read() == b"x"
        said = await refused(stranger, CLAIM)
        assert said == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "relay: too many devices are joining at once; try again",
        )
        assert await call(relay.device(pki.device())) == b"hello"
        for each in held:
            each.cancel()
        await until(lambda: relay.proxy._claims == 0)
        assert await call(stranger, CLAIM) == b"hello"

    run(pki, tmp_path, scenario)


def test_a_claim_ends_however_patient_the_device_is(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "_CLAIM_S", 0.1)

    async def scenario(relay: Relay) -> None:
        endless = relay.device().stream_stream(CLAIM)()
        await endless.write(b"x")
        assert await endless.read() == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await endless.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run(pki, tmp_path, scenario)


def bounded(scenario: object) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await scenario()  # type: ignore[operator]

    asyncio.run(whole())


def test_tls_inside_yamux_inside_tls(pki: Pki) -> None:
    async def scenario() -> None:
        near, far = await pipe()
        server, client = server_context(pki.relay()), client_context(pki.relay())
        outer, outer_end = await asyncio.gather(
            tls_over(near, client, server_name="127.0.0.1"), tls_over(far, server, server_name=None)
        )
        assert outer.peer_certificate and outer_end.peer_certificate and outer.alpn is None
        async with Session(outer, client=True) as one, Session(outer_end, client=False) as two:
            stream = await one.open_stream()
            inner, inner_end = await asyncio.gather(
                tls_over(stream, client, server_name="127.0.0.1"), tls_over(await two.accept(), server, server_name=None)
            )
            body = bytes(range(256)) * 4096
            writing = asyncio.create_task(inner.write(body))
            assert await exactly(inner_end, len(body)) == body
            await writing
            await inner_end.write(b"back")
            await inner_end.write_eof()
            assert await inner.read() == b"back"
            assert await inner.read() == b""
            inner.abort()

    bounded(scenario)


def test_a_handshake_that_hangs_is_given_up(pki: Pki) -> None:
    async def scenario() -> None:
        near, far = await pipe()
        with pytest.raises(TimeoutError, match=r"no TLS handshake within 0\.05 s"):
            await tls_over(near, client_context(pki.relay()), server_name="x", within_s=0.05)
        far.close()

    bounded(scenario)


def test_a_connection_that_ends_in_the_handshake_is_an_error(pki: Pki) -> None:
    async def scenario() -> None:
        near, far = await pipe()
        dialling = asyncio.create_task(tls_over(near, client_context(pki.relay()), server_name="x"))
        await far.read()
        far.close()
        with pytest.raises(ConnectionResetError, match="during the TLS handshake"):
            await dialling

    bounded(scenario)


def test_keys_that_do_not_fit_are_refused_and_never_shown(pki: Pki) -> None:
    one, other = pki.relay(), pki.relay(anchor=Role.DEVICE)
    mixed = type(one)(one.chain_pem, other.key_pem, one.anchor_pem)
    with pytest.raises(ssl.SSLError):
        server_context(mixed)
    assert "PRIVATE" not in repr(one)


def test_when_a_relay_is_dialled_again() -> None:
    redial = Redial(random.Random(7))
    waits = [redial.after(0) for _ in range(9)]
    for wait, limit in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert limit / 2 <= wait <= limit
    assert redial.after(4.9) > 20
    assert redial.after(5.0) <= 1
    assert redial.after(0) <= 1


def test_what_an_operator_reads_of_a_failed_dial() -> None:
    assert describe(ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 1)")) == "Connection refused"
    assert describe(TimeoutError()) == "no answer in time"
    assert describe(TimeoutError("no TLS handshake within 10 s")) == "no TLS handshake within 10 s"
    assert describe(ValueError()) == "ValueError"


FRAMES = st.lists(st.tuples(st.sampled_from([0, 1, 4, 6, 7, 8]), st.binary(min_size=8, max_size=40)), max_size=12)


@given(FRAMES, st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_farewells_are_taken_out_of_frames_however_they_come_in(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    whole = [len(body).to_bytes(3) + bytes([kind]) + bytes(5) + body for kind, body in frames]
    stream, sieve, passed, farewells = b"".join(whole), GoAwaySieve(), b"", []
    cuts = itertools.cycle(sizes)
    while stream:
        size = next(cuts)
        through, found = sieve.feed(stream[:size])
        stream, passed = stream[size:], passed + through
        farewells += found
    assert passed == b"".join(raw for raw, (kind, _) in zip(whole, frames, strict=True) if kind != 7)
    assert farewells == [
        (int.from_bytes(body[:4]) & 0x7FFF_FFFF, int.from_bytes(body[4:8])) for kind, body in frames if kind == 7
    ]


@pytest.mark.parametrize("length", [0, 7, 16_385, 2**24 - 1])
def test_a_farewell_that_is_none_ends_the_connection(length: int) -> None:
    with pytest.raises(ConnectionResetError):
        GoAwaySieve().feed(length.to_bytes(3) + b"\x07" + bytes(5))
