"""Devices reach AccountSync through real ``cox-relay`` processes and through the embedded relay, whatever is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from actors.relays.supervisor import tunnel_name
from actors.supervision import Harm
from coxswain.doctor.daemon import check_daemon
from coxswain.errors import NotFound
from coxswain.messages.audit import Caller
from coxswain.messages.ca import GetRelayCredentials
from coxswain.messages.relays import RelayCredentialsRenewed, RelaySetChanged
from coxswain.messages.servers import AddRelay, EditRelay, RemoveRelay
from coxswain.pki import Leaf
from coxswain.servers import Relay
from coxswain.store import pki as pki_rows
from coxswain.store.servers import insert_relay_cert
from coxswain.wire.pharos.account.v1 import account_pb2 as pb
from tests.caravel import RESPONSES, SERVICE, Caravel, pem_of
from tests.fleet import Controller
from tests.relays import Pki, relay_program
from tests.support import eventually, free_port

CALLER = Caller("tester", "local")
FAST = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
]


class Place:
    """A controller with an embedded relay, and its authorities."""

    def __init__(self, home: Path) -> None:
        state = home / "state"
        state.mkdir(mode=0o700)
        self.embedded = f"127.0.0.1:{free_port()}"
        (home / "cox.yaml").write_text(
            "posture: personal\nstate_dir: ./state\n"
            f"relay: {{public_endpoint: 'relay.example:8443', client_listen: '{self.embedded}'}}\n"
        )
        self.controller = Controller(state)
        self.controller.start()
        with self.controller.store.read() as tx:
            self.pki = Pki(pki_rows.load_authorities(tx, self.controller.keyring))

    @property
    def system(self) -> Any:
        return self.controller.system

    def add(self, name: str, endpoint: str) -> Relay:
        relay = Relay("", name, endpoint=endpoint, hostname="127.0.0.1", status="active")
        added: Relay = self.system.ask("servers", AddRelay(CALLER, relay), deadline=10).value
        return added

    def know(self, relay: Relay, certificate: x509.Certificate) -> None:
        """It is one that the authority has issued to the relay."""
        with self.controller.store.write() as tx:
            insert_relay_cert(tx, relay.id, Leaf(certificate), time.time())
        self.system.tell("relays", RelaySetChanged())

    def remove(self, relay: Relay) -> None:
        with contextlib.suppress(NotFound):
            self.system.ask("servers", RemoveRelay(CALLER, relay.id), deadline=10)

    def relay(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.controller.client.get(f"/api/relays/{key}")
        return found

    def until(self, key: str, state: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            found = self.relay(key)
            return found if found["tunnel"] == state else None

        return eventually(there, timeout=60) or {}

    def invite(self) -> str:
        user = self.controller.client.post("/api/users", {"name": "Ann", "email": f"a{time.monotonic_ns()}@example.org"})
        url: str = self.controller.client.post(f"/api/users/{user['id']}/invite", {})["url"]
        return url


@dataclasses.dataclass
class Door:
    """A device's way in: the relay's port, TLS that pins the Fleet CA, a certificate when it has one."""

    pki: Pki
    address: str
    device: Caravel

    def call(self, method: str, request: Any, *, certificate: bytes = b"", session: str = "") -> Any:
        key = pem_of(self.device.key) if certificate else None
        credentials = grpc.ssl_channel_credentials(self.pki.fleet.pem, key, certificate or None)
        with grpc.secure_channel(self.address, credentials, FAST) as channel:
            ask = channel.unary_unary(
                f"{SERVICE}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=RESPONSES[method].FromString,
            )
            return ask(request, timeout=20, metadata=(("pharos-session", session),) if session else ())


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="cox-") as home:  # short: there are sockets in it
        place = Place(Path(home))
        try:
            yield place
        finally:
            place.controller.stop()


@dataclasses.dataclass
class Remote:
    """A ``cox-relay run`` of its own, known to the controller."""

    relay: Relay
    devices: str
    arguments: tuple[str, ...]


@pytest.fixture
def remote(place: Place, tmp_path: Path) -> Iterator[Remote]:
    devices, tunnel = (f"127.0.0.1:{free_port()}" for _ in range(2))
    relay = place.add(f"remote-{time.monotonic_ns()}", tunnel)
    place.know(relay, place.pki.write_relay(tmp_path))
    yield Remote(relay, devices, ("run", "--client-addr", devices, "--tunnel-addr", tunnel, "--config-dir", str(tmp_path)))
    place.remove(relay)
    eventually(lambda: _actor(place, tunnel_name(relay.id)) is None)


def _actor(place: Place, name: str) -> Any:
    def find(node: Any) -> Any:
        return node if node.id == name else next(filter(None, map(find, node.children)), None)

    return find(place.system.tree())


def joins(place: Place, address: str) -> Caravel:
    """A device claims, without certificate; then it is itself, with one."""
    device = Caravel("phone")
    door = Door(place.pki, address, device)
    identity = device.claim(door, place.invite())
    device.identity = identity
    with pytest.raises(grpc.RpcError) as refused:
        door.call("Authenticate", pb.AuthenticateRequest())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == f"relay: {SERVICE}/Authenticate requires a device certificate"
    assert is_known(place, address, device)
    return device


def is_known(place: Place, address: str, device: Caravel) -> bool:
    assert device.identity is not None
    door = Door(place.pki, address, device)
    answer = door.call("Authenticate", pb.AuthenticateRequest(), certificate=device.identity.device_cert.encode())
    return bool(answer.session_token)


def test_a_device_joins_through_a_remote_relay(place: Place, remote: Remote) -> None:
    before = place.until(remote.relay.id, "waiting")
    assert before["tunnel_error"] == "Connection refused"
    with relay_program(*remote.arguments):
        found = place.until(remote.relay.id, "connected")
        assert found["tunnel_error"] == "" and found["tunnel_since"]
        joins(place, remote.devices)
    place.until(remote.relay.id, "waiting")


def test_a_device_joins_through_the_embedded_relay(place: Place) -> None:
    found = place.until("embedded", "listening")
    assert (found["kind"], found["endpoint"]) == ("embedded", place.embedded)
    assert place.controller.client.get("/api/relays")[-1]["id"] == "embedded"
    joins(place, place.embedded)


def test_a_renewed_certificate_is_shown_to_devices(place: Place) -> None:
    """At once, and nobody who is connected is cut off: the port is open all the time."""
    device = joins(place, place.embedded)
    host, _, port = place.embedded.rpartition(":")
    stands = place.until("embedded", "listening")["tunnel_since"]
    before = ssl.get_server_certificate((host, int(port)), timeout=20)
    place.system.ask("certificate_authority", GetRelayCredentials("other.example"), deadline=10)
    place.system.tell("relays", RelayCredentialsRenewed())

    def renewed() -> bool:
        with contextlib.suppress(OSError):
            return ssl.get_server_certificate((host, int(port)), timeout=20) != before
        return False

    assert eventually(renewed, timeout=30)
    assert is_known(place, place.embedded, device)
    assert place.until("embedded", "listening")["tunnel_since"] == stands, "it listens as before"


def test_what_is_killed_comes_back_and_devices_get_through(place: Place, remote: Remote) -> None:
    with relay_program(*remote.arguments) as (process, _):
        place.until(remote.relay.id, "connected")
        device = joins(place, remote.devices)
        for how in (Harm.RAISE, Harm.VANISH):
            before = _actor(place, tunnel_name(remote.relay.id)).incarnation
            assert place.system.harm(tunnel_name(remote.relay.id), how)
            eventually(lambda: getattr(_actor(place, tunnel_name(remote.relay.id)), "incarnation", before) > before)  # noqa: B023
            place.until(remote.relay.id, "connected")
            assert eventually(lambda: _try(place, remote.devices, device))
        process.kill()
        place.until(remote.relay.id, "waiting")
    with relay_program(*remote.arguments):
        place.until(remote.relay.id, "connected")
        assert is_known(place, remote.devices, device)
        for name in ("relays", "io_loop", "accounts"):
            assert place.system.harm(name, Harm.RAISE)
            assert eventually(lambda: _try(place, remote.devices, device), timeout=30)
            assert eventually(lambda: _try(place, place.embedded, device), timeout=30)


def _try(place: Place, address: str, device: Caravel) -> bool:
    try:
        return is_known(place, address, device)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise


def test_the_set_of_tunnels_follows_the_inventory(place: Place, remote: Remote) -> None:
    def edit(**changes: Any) -> None:
        place.system.ask("servers", EditRelay(CALLER, remote.relay.id, changes), deadline=10)

    name = tunnel_name(remote.relay.id)
    with relay_program(*remote.arguments) as (_, log):
        place.until(remote.relay.id, "connected")
        edit(status="error")
        eventually(lambda: _actor(place, name) is None and "awaiting reconnect" in log())
        assert place.relay(remote.relay.id)["tunnel"] == ""
        edit(status="active")
        place.until(remote.relay.id, "connected")
        edit(endpoint="127.0.0.1:1")
        place.until(remote.relay.id, "waiting")
        edit(endpoint=remote.relay.endpoint)
        place.until(remote.relay.id, "connected")


def test_a_relay_with_a_foreign_certificate_is_never_called_connected(place: Place, remote: Remote, tmp_path: Path) -> None:
    Pki.make().write_relay(tmp_path)
    with relay_program(*remote.arguments):
        found = place.until(remote.relay.id, "waiting")
        eventually(lambda: "TLS: " in place.relay(remote.relay.id)["tunnel_error"], timeout=30)
        assert found["status"] == "active"


def test_a_relay_with_a_certificate_that_nobody_knows_of_is_let_in_once_it_is_known(
    place: Place, remote: Remote, tmp_path: Path
) -> None:
    """A restore of an older backup may have forgotten it, and with it whether it was taken back since."""
    certificate = place.pki.write_relay(tmp_path)
    with relay_program(*remote.arguments):
        place.until(remote.relay.id, "waiting")
        eventually(lambda: "not known here" in place.relay(remote.relay.id)["tunnel_error"], timeout=30)
        told = place.relay(remote.relay.id)["tunnel_error"]
        assert str(certificate.serial_number) in told and told.endswith("cox relays renew")
        found = [
            finding for finding in check_daemon(place.controller.client.get, may_be_stopped=False) if told in finding.text
        ]
        assert [(finding.check, finding.level.value) for finding in found] == [("relays", "warn")]
        place.know(remote.relay, certificate)
        place.until(remote.relay.id, "connected")


def test_a_relay_that_refuses_our_certificate_is_never_called_connected(
    place: Place, remote: Remote, tmp_path: Path
) -> None:
    (tmp_path / "fleet-ca.crt").write_bytes(Pki.make().fleet.pem)
    with relay_program(*remote.arguments):
        eventually(lambda: "did not take our certificate" in place.relay(remote.relay.id)["tunnel_error"], timeout=30)
        assert place.relay(remote.relay.id)["tunnel"] == "waiting"


def test_the_ca_shows_the_leaf_that_it_is_a_relay_with(place: Place) -> None:
    place.until("embedded", "listening")
    leaves = {leaf["holder"]: leaf for leaf in place.controller.client.get("/api/ca")["leaves"]}
    assert leaves["relay"]["server_name"].startswith("localhost, ")
