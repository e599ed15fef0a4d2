"""The controller's hops over relays that are written from relay-contract.md alone (5.1 to 5.5): strict about frames, credit
and ends, one session at a time, and nothing answered to the line.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coxswain.control_path.egress import EgressPool
from coxswain.control_path.model import Hop
from coxswain.pki import Role
from coxswain.relay.byte_stream import ByteStream
from coxswain.relay.contexts import Credentials, client_context
from tests.existing_controller import MuxStream, Plain, Tls, Yamux, context
from tests.relays import Pki

TARGET = "node.example:8444"


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.make()


class ExistingEgress(threading.Thread):
    """``relay egress``. Behind it is whatever the test makes of a stream; the next hop is one of these as well."""

    def __init__(self, directory: Path, pki: Pki, behind: Any) -> None:
        super().__init__(daemon=True)
        pki.write_relay(directory)
        self._context = context(directory, "relay.crt", "relay.key", "fleet-ca.crt", server=True)
        self._behind = behind
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.at = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.lines: list[bytes] = []
        self.streams: list[MuxStream] = []
        self.client: x509.Certificate | None = None
        self.ended: queue.Queue[BaseException | None] = queue.Queue()

    def run(self) -> None:
        connection, _ = self._listening.accept()
        connection.settimeout(30)
        try:
            self.serve(Plain(connection))
        except ConnectionError:
            self.ended.put(None)
        except BaseException as error:
            self.ended.put(error)
        finally:
            connection.close()

    def serve(self, wire: Any) -> None:
        tls = Tls(wire, self._context, None)
        assert tls.tls.version() == "TLSv1.3" and tls.tls.selected_alpn_protocol() is None
        self.client = x509.load_der_x509_certificate(tls.tls.getpeercert(binary_form=True) or b"")
        mux = Yamux(tls, client=False)
        while True:
            stream = mux.accept()
            self.streams.append(stream)
            line = b""
            while not line.endswith(b"\n"):
                while not stream.arrived:
                    mux.pump()
                line += bytes([stream.arrived.pop(0)])
                stream.consumed += 1
            self.lines.append(line)
            self._behind(stream)

    def close(self) -> None:
        self._listening.close()


def echo(stream: MuxStream) -> None:
    """Until the other side ends; then it ends as well (5.3)."""
    while data := stream.recv():
        stream.sendall(data)
    if not stream.dropped:
        stream.end()


def fail(stream: MuxStream) -> None:
    """All failures look alike: an end, and no byte."""
    stream.end()
    assert stream.recv() == b""


@pytest.fixture
def pool(pki: Pki) -> EgressPool:
    """Trusts the root alone, so that relays have to send their intermediate (1.3, L4)."""
    made = EgressPool()
    hop = pki.controller()
    made.use(_offering_policies(Credentials(hop.chain_pem, hop.key_pem, pki.authorities[Role.ROOT].pem)))
    return made


def _offering_policies(credentials: Credentials) -> ssl.SSLContext:
    from coxswain.relay.policy import TAKES_POLICIES  # noqa: PLC0415 - what the daemon offers as well

    return client_context(credentials, alpn=(TAKES_POLICIES,))


async def exactly(stream: ByteStream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await stream.read()
        assert part
        got += part
    return got


async def _through(pool: EgressPool, hops: list[Hop]) -> None:
    async with asyncio.timeout(60):
        for _ in range(2):  # the second over the same sessions
            stream = await pool.open(hops, TARGET, precedence=True)
            blob = bytes(range(256)) * 3000
            writing = asyncio.create_task(stream.write(blob))
            assert await exactly(stream, len(blob)) == blob
            await writing
            stream.close()
        assert pool.standing == len(hops)
        for session in sorted(pool._sessions.values(), key=lambda s: -len(s.hops)):
            assert await session.ping() < 10
            session.close()


def test_a_hop_is_asked_as_existing_relays_are(tmp_path: Path, pki: Pki, pool: EgressPool) -> None:
    relay = ExistingEgress(tmp_path, pki, echo)
    relay.start()
    pool_of_loop(pool, lambda: _through(pool, [Hop("rly_1", "one", relay.at)]))
    assert relay.ended.get(timeout=30) is None
    relay.close()
    assert relay.lines == [f"{TARGET}\n".encode()] * 2
    assert [stream.number for stream in relay.streams] == [1, 3]
    assert all(stream.they_ended or stream.dropped for stream in relay.streams)
    assert relay.client is not None
    subject = {attribute.oid: str(attribute.value) for attribute in relay.client.subject}
    assert subject[NameOID.ORGANIZATION_NAME] == "PharosVPN" and subject[NameOID.COMMON_NAME].endswith("-controller")
    usage = relay.client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_chain_is_tls_in_yamux_in_tls(tmp_path: Path, pki: Pki, pool: EgressPool) -> None:
    inner = ExistingEgress(tmp_path / "inner", pki, echo)
    outer = ExistingEgress(tmp_path / "outer", pki, inner.serve)
    outer.start()
    hops = [Hop("rly_1", "one", outer.at), Hop("rly_2", "two", inner.at)]
    pool_of_loop(pool, lambda: _through(pool, hops))
    assert outer.ended.get(timeout=30) is None
    assert outer.lines == [f"{inner.at}\n".encode()] and inner.lines == [f"{TARGET}\n".encode()] * 2
    for relay in (inner, outer):
        relay.close()


def test_an_end_without_a_byte_costs_no_session(tmp_path: Path, pki: Pki, pool: EgressPool) -> None:
    relay = ExistingEgress(tmp_path, pki, fail)
    relay.start()

    async def ask() -> None:
        async with asyncio.timeout(60):
            hops = [Hop("rly_1", "one", relay.at)]
            for _ in range(3):
                stream = await pool.open(hops, TARGET, precedence=True)
                assert await stream.read() == b""
                stream.close()
            session = await pool.session(tuple(hops), precedence=True)
            assert await session.ping() < 10
            session.close()

    pool_of_loop(pool, ask)
    assert relay.ended.get(timeout=30) is None
    relay.close()
    assert [stream.number for stream in relay.streams] == [1, 3, 5]


def pool_of_loop(pool: EgressPool, scenario: Any) -> None:
    async def whole() -> None:
        pool.reset()
        await scenario()

    asyncio.run(whole())
