"""Relays as hops, and agents that know who connects to them, for tests of control paths."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from coxswain.control_path.onion import build, veil
from coxswain.control_path.ways import Ways
from coxswain.messages.audit import Caller
from coxswain.messages.ca import IssuedRelayCertificate, IssueRelayCertificate, SignTargetPolicy
from coxswain.messages.servers import AddRelay, EditRelay
from coxswain.relay.byte_stream import SocketStream
from coxswain.relay.policy import read_policy
from coxswain.servers import Relay
from tests.fleet import ROOT, Controller, LiveFleet
from tests.relays import untrusting
from tests.support import eventually, free_port

ME = Caller("test", "local")
OURS = (sys.executable, "-c", "from coxswain.relay.main import main; main()")
_addresses = itertools.count(10)


class Hop:
    """A relay in the inventory, and its programs. ``command``: what runs a role; see ``existing`` and ``ours``."""

    def __init__(
        self, controller: Controller, directory: Path, name: str, *, onion: bool, ours: bool, address: str = ""
    ) -> None:
        self.name = name
        self.address = address or f"127.0.5.{next(_addresses)}"
        self.directory = directory
        self.ours = ours
        self.log = directory / "relay.log"
        self.ports = {"egress": free_port(), "onion": free_port()} if onion else {"egress": free_port()}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir()
        self.id = self._enroll(controller, onion)

    def start(self) -> Hop:
        for role, port in self.ports.items():
            listen = f"{self.address}:{port}"
            with self.log.open("ab") as log:
                self._programs[role] = subprocess.Popen(self._command(role, listen), cwd=ROOT, stdout=log, stderr=log)
        for port in self.ports.values():
            eventually(lambda p=port: _answers(self.address, p), timeout=30, every=0.05)
        return self

    def kill(self) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait()
        self._programs.clear()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What an existing relay wrote down; ours writes other lines."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    @property
    def allowed(self) -> set[str]:
        """Where its controller lets it connect, as its file says."""
        document = (self.directory / "targets.policy").read_bytes()
        return set(read_policy(document, (self.directory / "fleet-ca.crt").read_bytes(), now=None).targets)

    def leads_to(self, target: str) -> bool:
        """Whether a stranger who knows its onion key gets through to a TLS server there."""
        raw = (self.directory / "onion.key").read_text().strip()
        public = X25519PrivateKey.from_private_bytes(base64.b64decode(raw)).public_key().public_bytes_raw()
        setup, keys = build([(self.address, public)], target)

        async def ask() -> bool:
            stream = SocketStream(*await asyncio.open_connection(self.address, self.ports["onion"]))
            far = veil(stream, keys)
            try:
                await stream.write(setup)
                await far.write(_client_hello())
                return bool(await far.read())
            except OSError:
                return False
            finally:
                stream.close()

        return asyncio.run(asyncio.wait_for(ask(), 30))

    def _command(self, role: str, listen: str) -> list[str]:
        if self.ours:
            option = "--tunnel-addr" if role == "egress" else "--listen"
            return [*OURS, role, option, listen, "--config-dir", str(self.directory)]
        more = ["--listen", listen, "--config-dir", str(self.directory), "--log", str(self.log)]
        return [sys.executable, "-m", "tests.existing_relay", role, *more]

    def _enroll(self, controller: Controller, onion: bool) -> str:
        ask = controller.system.ask
        pubkey = ""
        if onion:
            private = X25519PrivateKey.generate()
            (self.directory / "onion.key").write_text(base64.b64encode(private.private_bytes_raw()).decode() + "\n")
            (self.directory / "onion.key").chmod(0o600)
            pubkey = base64.b64encode(private.public_key().public_bytes_raw()).decode()
        relay = Relay(
            id="",
            name=self.name,
            hostname=self.address,
            egress_endpoint=f"{self.address}:{self.ports['egress']}",
            onion_endpoint=f"{self.address}:{self.ports['onion']}" if onion else "",
            onion_pubkey=pubkey,
            status="active",
        )
        relay_id: str = ask("servers", AddRelay(ME, relay), deadline=10).value.id
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
        pem = request.public_bytes(serialization.Encoding.PEM)
        issued: IssuedRelayCertificate = ask(
            "certificate_authority", IssueRelayCertificate(ME, relay_id, pem), deadline=10
        ).value
        (self.directory / "relay.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        (self.directory / "relay.key").chmod(0o600)
        (self.directory / "relay.crt").write_bytes(issued.relay_crt)
        (self.directory / "fleet-ca.crt").write_bytes(issued.fleet_ca_crt)
        (self.directory / "device-ca.crt").write_bytes(issued.device_ca_crt)
        policy = ask("certificate_authority", SignTargetPolicy(self.address, ()), deadline=10)  # as onboarding does
        (self.directory / "targets.policy").write_bytes(policy)
        return relay_id


def hang_up(ways: Ways) -> None:
    """Its sessions with relays end."""
    for session in list(ways.egress._sessions.values()):
        session.close()


def _client_hello() -> bytes:
    """To which every TLS server says something."""
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        untrusting().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


class Front:
    """Stands before an agent, and writes down from where each connection comes."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sources: list[str] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                near, peer = self._listener.accept()
            except OSError:
                return
            self.sources.append(peer[0])
            try:
                far = socket.create_connection(self._to, 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Sea:
    """A fleet whose agents know who connects, and hops beside it."""

    def __init__(self, fleet: LiveFleet, home: Path, stack: ExitStack) -> None:
        self.fleet = fleet
        self.client = fleet.controller.client
        self._home = home
        self._stack = stack
        self.fronts: list[Front] = []
        for index in range(len(fleet.ids)):
            front = Front(("127.0.0.1", fleet.base_port + index))
            stack.callback(front.close)
            self.fronts.append(front)
            version = self.client.get(f"/api/nodes/n{index}")["version"]
            self.client.call(
                "PATCH", f"/api/nodes/n{index}", {"version": version, "control_addr": f"127.0.0.1:{front.port}"}
            )
        eventually(lambda: all(front.sources for front in self.fronts), timeout=30)
        fleet.controller.all_in_sync(len(fleet.ids))

    def hop(self, name: str, *, onion: bool = False, ours: bool = False) -> Hop:
        made = Hop(self.fleet.controller, self._home / f"relay-{name}", name, onion=onion, ours=ours)
        self._stack.callback(made.kill)
        return made.start()

    def path(self, name: str, hops: Sequence[Hop]) -> dict[str, Any]:
        made: dict[str, Any] = self.client.post("/api/control-paths", {"name": name, "hops": [hop.id for hop in hops]})
        return made

    def activate(self, name: str, **body: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.client.post(f"/api/control-paths/{name}/activate", body)
        return found

    def set_status(self, hop: Hop, status: str) -> None:
        system = self.fleet.controller.system
        system.ask("servers", EditRelay(ME, hop.id, {"status": status}), deadline=10)

    def forget_sources(self) -> None:
        for front in self.fronts:
            front.sources.clear()

    @property
    def sources(self) -> set[str]:
        return {source for front in self.fronts for source in front.sources}

    def all_come_from(self, hop: Hop | None) -> None:
        """Waits until every node has a connection from there, and is in sync."""
        wanted = hop.address if hop is not None else "127.0.0.1"
        eventually(lambda: all(wanted in front.sources for front in self.fronts), timeout=60, every=0.05)
        self.fleet.controller.all_in_sync(len(self.fleet.ids))


@contextmanager
def sea(fleet: LiveFleet, home: Path) -> Iterator[Sea]:
    with ExitStack() as stack:
        yield Sea(fleet, home, stack)
