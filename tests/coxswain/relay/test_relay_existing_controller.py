"""``cox-relay`` under an existing controller: started with the arguments of its units and nothing else, spoken to by a peer
that is written from relay-contract.md alone.
"""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from coxswain.pki import Role
from tests.existing_controller import Circuit, Plain, Tls, Wire, Yamux, context, exactly
from tests.relays import Pki, relay_program
from tests.support import eventually, free_port

METHOD = "/pharos.account.v1.AccountSync/GetProfile"


@pytest.fixture(scope="module")
def files(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the controller: what it shows to hops, to tunnels and to relays that call it, and whom it trusts."""
    directory = tmp_path_factory.mktemp("controller")
    hop, service, (leaf, key) = pki.controller(), pki.relay(chain=False), pki.grpc()
    for name, content in {
        "hop.crt": hop.chain_pem, "hop.key": hop.key_pem, "relay.crt": service.chain_pem, "relay.key": service.key_pem,
        "grpc.crt": leaf.pem, "grpc.key": key, "fleet.crt": pki.fleet.pem, "root.crt": pki.authorities[Role.ROOT].pem,
    }.items():  # fmt: skip
        (directory / name).write_bytes(content)
    return directory


class _Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _GiveBack(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """What gives back what it is sent."""
    with _Echo(("127.0.0.1", 0), _GiveBack) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def session(wire: Wire, files: Path) -> Yamux:
    """With an egress relay: the controller's leaf with its intermediate, trust in the root alone, no ALPN (5.1)."""
    tls = Tls(wire, context(files, "hop.crt", "hop.key", "root.crt"), "127.0.0.1")
    assert tls.tls.version() == "TLSv1.3" and tls.tls.selected_alpn_protocol() is None
    mux = Yamux(tls, client=True)
    mux.ping(0)
    return mux


def egress(directory: Path, pki: Pki) -> tuple[list[str], str]:
    pki.write_relay(directory)
    port = free_port()
    return ["egress", "--tunnel-addr", f":{port}", "--config-dir", str(directory)], f"127.0.0.1:{port}"


def test_an_egress_chain_carries_a_megabyte_there_and_back(tmp_path: Path, pki: Pki, files: Path, target: str) -> None:
    first, first_at = egress(tmp_path / "first", pki)
    second, second_at = egress(tmp_path / "second", pki)
    with relay_program(*first) as (_, said), relay_program(*second):
        assert "there is no" in said() and "connects wherever it is asked to" in said()
        outer = session(Plain.to(first_at), files)
        inner = session(outer.open(second_at.encode() + b"\n"), files)
        stream = inner.open(target.encode() + b"\nhello node")
        assert exactly(stream, 10) == b"hello node"
        blob = bytes(range(256)) * 4096
        for start in range(0, len(blob), 65_536):
            stream.sendall(blob[start : start + 65_536])
            assert exactly(stream, 65_536) == blob[start : start + 65_536]
        assert stream.acknowledged and not stream.dropped
        stream.end()
        assert stream.recv() == b"" and stream.they_ended  # the first end of either side is the end of both


def test_whatever_an_egress_relay_cannot_reach_is_an_end_without_a_byte(tmp_path: Path, pki: Pki, files: Path) -> None:
    arguments, at = egress(tmp_path, pki)
    refused = free_port()
    with relay_program(*arguments):
        mux = session(Plain.to(at), files)
        for line in (
            f"127.0.0.1:{refused}\n", "127.0.0.1:0\n", "127.0.0.1\n", ":80\n", "127.0.0.1:80\r\n", "::1:80\n", "\n",
            "CONNECT 127.0.0.1:80\n", "x" * 251 + ":80\n", "no-such-host.invalid:80\n", "127.0.0.1:65536\n",
        ):  # fmt: skip
            stream = mux.open(line.encode())
            assert stream.recv() == b"" and stream.they_ended, line
            assert stream.acknowledged and not stream.dropped, line
            stream.end()
        mux.ping(1)  # the session stands


def test_an_onion_circuit_of_two_hops(tmp_path: Path, target: str) -> None:
    """Nothing is in their directories but what ``onion-key`` has put there."""
    hops, programs = [], []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "coxswain.relay.main", "onion-key", "--config-dir", str(tmp_path / name)]
        public = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        port = free_port()
        hops.append((f"127.0.0.1:{port}", base64.b64decode(public.strip(), validate=True)))
        programs.append(["onion", "--listen", f":{port}", "--config-dir", str(tmp_path / name)])
    with relay_program(*programs[0]), relay_program(*programs[1]):
        for way in (hops, hops[:1]):
            circuit = Circuit(way, target)
            for size in (1, 10, 63, 65, 200_000):
                circuit.sendall(bytes(size))
                assert exactly(circuit, size) == bytes(size)
            circuit.close()
        nowhere = Circuit(hops, f"127.0.0.1:{free_port()}")
        assert nowhere.recv() == b""


class _Account(threading.Thread):
    """The controller's end of a tunnel: dials the relay, takes its streams, and serves HTTP/2 over TLS on each (3.1)."""

    def __init__(self, at: str, files: Path) -> None:
        super().__init__(daemon=True)
        tls = Tls(Plain.to(at), context(files, "relay.crt", "relay.key", "fleet.crt"), "127.0.0.1")
        assert tls.tls.selected_alpn_protocol() is None
        self.mux = Yamux(tls, client=False)
        self.mux.ping(7)
        self._files = files
        self.seen: list[list[tuple[str, str]]] = []
        self.streams: list[int] = []
        self.peer: dict[str, Any] = {}
        self.why: BaseException | None = None

    def run(self) -> None:
        try:
            self._serve()
        except (ConnectionError, OSError):
            return
        except BaseException as error:
            self.why = error
            raise

    def _serve(self) -> None:
        stream = self.mux.accept()
        self.streams.append(stream.number)
        tls = Tls(stream, context(self._files, "grpc.crt", "grpc.key", "fleet.crt", server=True, alpn=("h2",)), None)
        assert tls.tls.version() == "TLSv1.3" and tls.tls.selected_alpn_protocol() == "h2"
        self.peer = tls.tls.getpeercert() or {}
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        tls.sendall(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        while data := tls.recv():
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.seen.append([(str(name), str(value)) for name, value in event.headers or ()])
                if isinstance(event, h2.events.DataReceived):
                    number = event.stream_id or 0
                    bodies[number] = bodies.get(number, b"") + (event.data or b"")
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, number)
                if isinstance(event, h2.events.StreamEnded):
                    number = event.stream_id or 0
                    connection.send_headers(
                        number, [(":status", "200"), ("content-type", "application/grpc"), ("early", "1")]
                    )
                    connection.send_data(number, bodies.pop(number, b""))
                    connection.send_headers(number, [("grpc-status", "0"), ("after", "2")], end_stream=True)
            tls.sendall(connection.data_to_send())


def test_a_device_reaches_an_existing_controller_through_its_tunnel(tmp_path: Path, pki: Pki, files: Path) -> None:
    certificate = pki.write_relay(tmp_path)
    device, tunnel = free_port(), free_port()
    arguments = ("--client-addr", f":{device}", "--tunnel-addr", f":{tunnel}", "--config-dir", str(tmp_path))
    leaf, key = pki.device()
    credentials = grpc.ssl_channel_credentials(pki.fleet.pem, key, leaf)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    with relay_program("run", *arguments), grpc.secure_channel(f"127.0.0.1:{device}", credentials, options) as channel:
        call = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20)
        assert caught.value.details() == (
            'connection error: desc = "transport: Error while dialing: relay: no coxswain tunnel connected"'
        )
        account = _Account(f"127.0.0.1:{tunnel}", files)
        account.start()
        metadata = (("pharos-session", "a"), ("x-pharos-device-fp", "sha256:spoofed"), ("x-pharos-role-bin", b"\x00"))
        eventually(lambda: _answers(call))
        account.seen.clear()
        for count in range(3):
            answer, info = call.with_call(b"m" * count, timeout=20, metadata=metadata)
            assert answer == b"m" * count
            assert ("early", "1") in info.initial_metadata() and ("after", "2") in info.trailing_metadata()
        assert account.why is None
        heads = [head.hex() for head in account.mux.heads if head[4:8] != bytes(4)]
        assert heads[0] == "000100010000000100000000"  # an opening, before any data
        assert account.streams == [1]  # one for all calls of all devices
        _check_headers(account.seen[-1], leaf)
        subject = {name: value for ((name, value),) in account.peer["subject"]}
        assert subject["organizationName"] == "PharosVPN Relay"
        assert int(account.peer["serialNumber"], 16) == certificate.serial_number


def _answers(call: Any) -> bool:
    try:
        return bool(call(b"x", timeout=20) == b"x")
    except grpc.RpcError:
        return False


def _check_headers(found: list[tuple[str, str]], leaf: bytes) -> None:
    import hashlib  # noqa: PLC0415

    headers = dict(found)
    assert len(headers) == len(found)
    assert headers[":authority"] == "coxswain-grpc" and headers[":path"] == METHOD
    assert headers["content-type"] == "application/grpc+proto" and headers["te"] == "trailers"
    assert headers["pharos-session"] == "a"
    assert headers["grpc-timeout"].endswith("u") and 0 < int(headers["grpc-timeout"][:-1]) <= 21_000_000
    assert "grpc-encoding" not in headers
    named = [(name, value) for name, value in found if name.startswith("x-pharos-")]
    assert named == [("x-pharos-device-fp", f"sha256:{hashlib.sha256(leaf).hexdigest()}")]


@pytest.mark.parametrize(("chain", "key"), [("grpc.crt", "grpc.key"), ("device.crt", "device.key")])
def test_who_may_not_drive_a_tunnel_is_told_in_tls(tmp_path: Path, pki: Pki, files: Path, chain: str, key: str) -> None:
    """For servers only, or of another authority (1.3)."""
    pki.write_relay(tmp_path)
    leaf, secret = pki.device()
    (files / "device.crt").write_bytes(leaf)
    (files / "device.key").write_bytes(secret)
    tunnel = free_port()
    arguments = ("--client-addr", ":0", "--tunnel-addr", f":{tunnel}", "--config-dir", str(tmp_path))
    with relay_program("run", *arguments):
        tls = Tls(Plain.to(f"127.0.0.1:{tunnel}"), context(files, chain, key, "fleet.crt"), "127.0.0.1")
        with pytest.raises(ssl.SSLError, match="ALERT"):
            tls.recv()
        with socket.create_connection(("127.0.0.1", tunnel), timeout=20) as old:
            made = context(files, "relay.crt", "relay.key", "fleet.crt")
            made.minimum_version, made.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                made.wrap_socket(old, server_hostname="127.0.0.1")
