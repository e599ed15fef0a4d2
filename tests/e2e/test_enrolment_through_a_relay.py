"""Everything between an existing client's socket and a node's peer, through the relay in the daemon; nothing is left out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from cryptography import x509

from coxswain.accounts.identity import read_identity
from coxswain.accounts.primitives import x25519_public_key
from coxswain.pki import Role
from coxswain.store import pki as pki_rows
from coxswain.wire.pharos.account.v1 import account_pb2 as pb
from tests.caravel import Caravel, PublicPort
from tests.fleet import LiveFleet, live_fleet
from tests.support import eventually, free_port

CONFIG = """
posture: personal
state_dir: ./state
relay: {{public_endpoint: '127.0.0.1:{port}', client_listen: '127.0.0.1:{port}'}}
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("relayed"), 1, 13_950, config=CONFIG.format(port=port)) as running:
        node = running.controller.node("n0")
        body = {"version": node["version"], "endpoint_ips": ["198.51.100.7"]}
        running.controller.client.call("PATCH", "/api/nodes/n0", body)
        yield running


@pytest.fixture(scope="module")
def door(fleet: LiveFleet, port: int) -> PublicPort:
    with fleet.controller.store.read() as tx:
        authorities = pki_rows.load_authorities(tx, fleet.controller.keyring)
    made = PublicPort(f"127.0.0.1:{port}", authorities[Role.FLEET].pem)
    eventually(lambda: _answers(made), every=0.1)
    return made


def _answers(door: PublicPort) -> bool:
    try:
        return bool(door.leaf())
    except OSError:
        return False


def invited(fleet: LiveFleet, name: str) -> tuple[str, str]:
    """``(user id, link)``."""
    user = fleet.controller.client.post("/api/users", {"name": name})["id"]
    return user, str(fleet.controller.client.post(f"/api/users/{user}/invite", {})["url"])


def refused(act: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    error: Any = caught.value
    return error.code(), str(error.details())


def test_invited_enrolled_synced_connected_and_revoked(fleet: LiveFleet, door: PublicPort) -> None:
    client = fleet.controller.client
    user, url = invited(fleet, "Ann")
    phone = Caravel("phone")
    document = phone.enroll(door, url)
    assert phone.identity is not None
    door.leaf().verify_directly_issued_by(x509.load_pem_x509_certificate(phone.identity.fleet_ca.encode()))
    (profile,) = document["profiles"]
    params = profile["nodes"][0]["protocols"][0]["params"]
    key = base64.b64encode(x25519_public_key(base64.b64decode(params["private_key"]))).decode()
    eventually(lambda: key in {peer["public_key"] for peer in fleet.nodes.do("peers", node=0)["peers"]})

    (device,) = client.get(f"/api/users/{user}/devices")
    assert client.get(f"/api/devices/{device['id']}")["identity"]["last_sync_relay"] == "embedded"
    phone.sync(door)

    client.post(f"/api/devices/{device['id']}/revoke", {})
    code, text = refused(lambda: phone.sync(door))
    assert code is grpc.StatusCode.PERMISSION_DENIED and "revoked" in text
    eventually(lambda: key not in {peer["public_key"] for peer in fleet.nodes.do("peers", node=0)["peers"]})


def test_who_has_no_certificate_may_claim_and_nothing_else(fleet: LiveFleet, door: PublicPort) -> None:
    """And a fingerprint that it makes up itself is not passed on."""
    _, url = invited(fleet, "Bob")
    code, text = refused(lambda: door.call("GetProfile", pb.GetProfileRequest()))
    assert code is grpc.StatusCode.UNAUTHENTICATED and "requires a device certificate" in text
    code, _ = refused(lambda: door.call("Authenticate", pb.AuthenticateRequest(email="a@b.example", password="x")))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    Caravel().enroll(door, url)
    code, text = refused(lambda: Caravel().claim(door, url))
    assert code is grpc.StatusCode.UNAUTHENTICATED and "ask for a new one" in text


def test_a_file_that_was_issued_syncs_as_well(fleet: LiveFleet, door: PublicPort) -> None:
    user, _ = invited(fleet, "Cem")
    made = fleet.controller.client.post(f"/api/users/{user}/devices/issue", {"name": "box"})
    identity = read_identity(made["text"])
    assert identity.relay_server_name == "127.0.0.1"
    assert Caravel().sync(door, identity)["profiles"]
