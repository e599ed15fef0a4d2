"""From an invite to a tunnel's keys on a client, and away again: an existing client's calls against real nodes' agents."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from coxswain.accounts.container import read_container
from coxswain.accounts.identity import read_identity
from tests.caravel import Caravel, RelayLeg, relay_leg
from tests.fleet import LiveFleet, live_fleet
from tests.support import eventually

NODES = 2
RELAY = "relay.example:8443"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    config = f"posture: personal\nstate_dir: ./state\nrelay: {{public_endpoint: '{RELAY}'}}\n"
    with live_fleet(tmp_path_factory.mktemp("enrol"), NODES, 13_900, config=config) as running:
        for index in range(NODES):
            set_endpoint(running, index, f"198.51.100.{index + 1}")
        yield running


@pytest.fixture(scope="module")
def door(fleet: LiveFleet) -> Iterator[RelayLeg]:
    leg = relay_leg(fleet.controller)
    yield leg
    leg.close()


@pytest.fixture
def user(fleet: LiveFleet) -> dict[str, Any]:
    number = next(_numbers)
    return post(fleet, "/api/users", {"name": f"user {number}", "email": f"user{number}@example.org"})


def post(fleet: LiveFleet, path: str, body: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = fleet.controller.client.post(path, body or {})
    return made


def set_endpoint(fleet: LiveFleet, index: int, address: str) -> None:
    node = fleet.controller.node(f"n{index}")
    body = {"version": node["version"], "endpoint_ips": [address]}
    fleet.controller.client.call("PATCH", f"/api/nodes/n{index}", body)


def invite(fleet: LiveFleet, user: dict[str, Any], **body: Any) -> str:
    return str(post(fleet, f"/api/users/{user['id']}/invite", body)["url"])


def only_device(fleet: LiveFleet, user: dict[str, Any]) -> dict[str, Any]:
    (device,) = fleet.controller.client.get(f"/api/users/{user['id']}/devices")
    shown: dict[str, Any] = fleet.controller.client.get(f"/api/devices/{device['id']}")
    return shown


def keys_on(fleet: LiveFleet, index: int) -> set[str]:
    return {peer["public_key"] for peer in fleet.nodes.do("peers", node=index)["peers"]}


def tunnels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of every AmneziaWG entry."""
    return [
        protocol["params"]
        for profile in document["profiles"] or []
        for node in profile["nodes"]
        for protocol in node["protocols"]
        if protocol["type"] == "amneziawg"
    ]


def public_key(private: str) -> str:
    from coxswain.accounts.primitives import x25519_public_key  # noqa: PLC0415

    return base64.b64encode(x25519_public_key(base64.b64decode(private))).decode()


def refused(code: grpc.StatusCode, act: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    error: Any = caught.value
    assert error.code() is code, error.details()
    return str(error.details())


def test_from_an_invite_to_a_peer_on_every_node_at_once(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    phone = Caravel("Ann's phone")
    document = phone.enroll(door, invite(fleet, user))
    params = tunnels(document)
    assert len(params) == NODES
    key = public_key(params[0]["private_key"])
    for index in range(NODES):  # the sweep comes every 45 s; this does not wait for it
        eventually(lambda index=index: key in keys_on(fleet, index))
    device = only_device(fleet, user)
    assert (device["name"], device["platform"], device["status"]) == ("Ann's phone", "caravel", "active")
    assert device["identity"]["own_key"]
    # Of a new device it is 1 at first; what its nodes report from then on counts.
    assert device["identity"]["last_sync_revision"] == phone.revision >= 1
    assert phone.identity is not None and phone.identity.relay_addr == RELAY
    assert phone.identity.relay_server_name == "relay.example"
    assert phone.identity.signing_public_key == phone.signer


def test_a_sync_that_changes_nothing_gives_the_same_bundle(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    phone = Caravel()
    first = phone.enroll(door, invite(fleet, user))
    assert phone.sync(door) == first


def test_what_changes_is_in_the_next_sync_and_keys_are_kept(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    phone = Caravel()
    before = tunnels(phone.enroll(door, invite(fleet, user)))[0]
    device = only_device(fleet, user)

    body = {"device_id": device["id"], "name": "home", "node_id": "n0"}
    post(fleet, "/api/profiles", body)
    document = phone.sync(door)
    assert [profile["name"] for profile in document["profiles"]] == ["home"]
    now = tunnels(document)[0]
    assert phone.revision > 1
    assert {k: now[k] for k in ("private_key", "address")} == {k: before[k] for k in ("private_key", "address")}

    def stale() -> bool:
        return bool(fleet.controller.client.get(f"/api/devices/{device['id']}")["identity"]["stale"])

    seen = phone.revision
    assert not stale()
    set_endpoint(fleet, 0, "203.0.113.77")
    assert stale(), "and who looks at the device is told"
    moved = tunnels(phone.sync(door))[0]
    assert phone.revision > seen, "what a node changes, its devices learn at the next sync"
    assert moved["endpoints"][0]["ip"] == "203.0.113.77"
    assert not stale()
    assert moved["private_key"] == now["private_key"]
    set_endpoint(fleet, 0, "198.51.100.1")


def test_old_bundles_are_forgotten_and_the_rest_is_ciphertext(
    fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]
) -> None:
    phone, url = Caravel(), invite(fleet, user)
    private = tunnels(phone.enroll(door, url))[0]["private_key"]
    device = only_device(fleet, user)
    for number in range(8):
        post(fleet, "/api/profiles", {"device_id": device["id"], "name": f"p{number}", "node_id": "n0"})
        phone.sync(door)
    with fleet.controller.store.read() as tx:
        rows = tx.execute("SELECT revision FROM profile_bundles WHERE device_id = ? ORDER BY revision", (device["id"],))
    revisions = [row[0] for row in rows]
    assert len(revisions) == 5 and revisions[-1] == phone.revision
    files = [path for path in fleet.controller.home.iterdir() if path.name.startswith("app.db")]
    stolen = b"".join(path.read_bytes() for path in files)
    for secret in (private.encode(), base64.b64decode(private), url.rpartition("token=")[2].encode(), phone.encryption_key):
        assert secret not in stolen


def test_a_revoked_device_has_no_sync_and_no_peer(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    phone = Caravel()
    key = public_key(tunnels(phone.enroll(door, invite(fleet, user)))[0]["private_key"])
    device = only_device(fleet, user)
    eventually(lambda: key in keys_on(fleet, 0))
    post(fleet, f"/api/devices/{device['id']}/revoke")
    assert "revoked" in refused(grpc.StatusCode.PERMISSION_DENIED, lambda: phone.sync(door))
    for index in range(NODES):
        eventually(lambda index=index: key not in keys_on(fleet, index))
    with fleet.controller.store.read() as tx:
        assert tx.execute("SELECT 1 FROM profile_bundles WHERE device_id = ?", (device["id"],)) == []
    fleet.controller.client.call("DELETE", f"/api/devices/{device['id']}")
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: phone.sync(door))


def test_nobody_of_a_suspended_user_gets_anything(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    phone, waiting = Caravel(), invite(fleet, user)
    phone.enroll(door, invite(fleet, user))
    post(fleet, f"/api/users/{user['id']}/suspend")
    assert "suspended" in refused(grpc.StatusCode.PERMISSION_DENIED, lambda: phone.sync(door))
    refused(grpc.StatusCode.PERMISSION_DENIED, lambda: Caravel().claim(door, waiting))
    post(fleet, f"/api/users/{user['id']}/resume")
    phone.sync(door)
    Caravel().enroll(door, waiting)  # the refusal burnt nothing
    device = fleet.controller.client.get(f"/api/users/{user['id']}/devices")[0]
    post(fleet, f"/api/devices/{device['id']}/suspend")
    refused(grpc.StatusCode.PERMISSION_DENIED, lambda: phone.sync(door))


def test_a_device_enrols_anew_in_its_own_place(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    """A certificate lasts a year; a phone is lost. The profiles stay, what the old one knew is worthless."""
    old = Caravel("old")
    old.enroll(door, invite(fleet, user))
    device = only_device(fleet, user)
    post(fleet, "/api/profiles", {"device_id": device["id"], "name": "home", "node_id": "n1"})
    before = tunnels(old.sync(door))[0]

    new = Caravel("new")
    document = new.enroll(door, invite(fleet, user, device_id=device["id"]))
    assert [profile["name"] for profile in document["profiles"]] == ["home"]
    after = tunnels(document)[0]
    assert after["address"] == before["address"]
    assert after["private_key"] != before["private_key"], "whoever has the old phone has the old keys"
    assert only_device(fleet, user)["id"] == device["id"]
    assert "invited again" in refused(grpc.StatusCode.UNAUTHENTICATED, lambda: old.sync(door))
    gone, come = public_key(before["private_key"]), public_key(after["private_key"])
    eventually(lambda: come in keys_on(fleet, 1) and gone not in keys_on(fleet, 1))


def test_a_device_that_the_api_made_can_join(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    device = post(fleet, f"/api/users/{user['id']}/devices", {"name": "laptop"})
    laptop = Caravel("whatever")
    assert tunnels(laptop.enroll(door, invite(fleet, user, device_id=device["id"])))
    shown = only_device(fleet, user)
    assert (shown["id"], shown["name"]) == (device["id"], "laptop")


def test_who_lost_the_first_sync_may_claim_once_more(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    """An existing client keeps nothing before its first sync, and makes fresh keys when it is run again."""
    url = invite(fleet, user)
    first, second = Caravel(), Caravel()
    lost = first.claim(door, url)
    second.enroll(door, url)
    assert len(fleet.controller.client.get(f"/api/users/{user['id']}/devices")) == 1, "it took the place of the first"
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: first.sync(door, lost))
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: Caravel().claim(door, url))
    third = Caravel()
    third.enroll(door, url := invite(fleet, user))
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: Caravel().claim(door, url))


def test_an_identity_as_a_file(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    made = post(fleet, f"/api/users/{user['email']}/devices/issue", {"name": "box"})
    assert made["pushed_nodes"] or made["pending_nodes"]
    identity = read_identity(made["text"])
    assert (identity.user, identity.relay_addr) == (user["id"], RELAY)
    box = Caravel()
    document = box.sync(door, identity)
    assert tunnels(document)[0]["address"] == f"{made['tunnel_ip']}/32"
    assert identity.signing_public_key == box.signer
    exported = post(fleet, f"/api/devices/{made['device_id']}/export", {"format": "sealed"})
    plain = read_container(exported["text"]).open_account(identity.encryption_key, box.signer)
    assert json.loads(plain) == document
    assert exported["revision"] == box.revision


def test_a_file_over_a_path(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    path = post(fleet, "/api/paths", {"name": "way", "node_ids": ["n0", "n1"]})
    made = post(fleet, f"/api/users/{user['id']}/devices/issue", {"name": "box", "path_id": path["id"]})
    document = Caravel().sync(door, read_identity(made["text"]))
    (profile,) = document["profiles"]
    assert [hop["role"] for hop in profile["path"]["hops"]] == ["entry", "exit"]
    assert profile["mtu"] < 1420
    fleet.controller.client.call("DELETE", f"/api/devices/{made['device_id']}")
    fleet.controller.client.call("DELETE", "/api/paths/way")


def test_the_record_of_a_claim(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any]) -> None:
    url = invite(fleet, user)
    Caravel("Ann").enroll(door, url)
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: Caravel().claim(door, url))

    def records() -> list[dict[str, Any]]:
        found = fleet.controller.client.get("/api/audit?action=enroll.claim&limit=2")
        return found if found[0]["result"] == "error" else []

    failed, done = eventually(records)
    device = only_device(fleet, user)
    assert (done["actor"], done["actor_kind"], done["result"]) == (user["id"], "token", "ok")
    assert (done["target_type"], done["target_id"]) == ("device", device["id"])
    assert done["detail"]["serial"] == device["identity"]["serial"]
    assert failed["actor"] == user["id"]
    token = url.rpartition("token=")[2]
    assert token not in json.dumps([failed, done])


def test_no_key_and_no_ticket_is_in_the_log(fleet: LiveFleet, door: RelayLeg, user: dict[str, Any], caplog: Any) -> None:
    with caplog.at_level("DEBUG"):
        url = invite(fleet, user)
        phone = Caravel()
        private = tunnels(phone.enroll(door, url))[0]["private_key"]
    for secret in (private, url.rpartition("token=")[2]):
        assert secret not in caplog.text


def test_the_socket_is_private(fleet: LiveFleet) -> None:
    path = Path(fleet.controller.home / "run" / "account-sync.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
