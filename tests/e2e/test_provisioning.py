"""Users, devices and profiles, from the API to simulated nodes: given, kept, taken away at once, and brought back."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.accounts.container import open_password, read_container
from coxswain.cli.client import RemoteError
from coxswain.errors import InvalidInput
from tests.fleet import LiveFleet, database, live_fleet
from tests.support import eventually

NODES = 3
BASE_PORT = 13_500
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path_factory.mktemp("provisioning"), NODES, BASE_PORT) as running:
        for index in range(NODES):
            node = running.controller.node(f"n{index}")
            body = {"version": node["version"], "endpoint_ips": [f"198.51.100.{index + 1}", f"203.0.113.{index + 1}"]}
            running.controller.client.call("PATCH", f"/api/nodes/n{index}", body)
        yield running


@pytest.fixture
def user(fleet: LiveFleet) -> dict[str, Any]:
    found: dict[str, Any] = post(fleet, "/api/users", {"name": f"user {next(_numbers)}"})
    return found


@pytest.fixture
def device(fleet: LiveFleet, user: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = post(fleet, f"/api/users/{user['id']}/devices", {"name": "phone"})
    return found


def post(fleet: LiveFleet, path: str, body: Any = None) -> Any:
    return fleet.controller.client.post(path, body or {})


def get(fleet: LiveFleet, path: str) -> Any:
    return fleet.controller.client.get(path)


def delete(fleet: LiveFleet, path: str) -> None:
    fleet.controller.client.call("DELETE", path)


def refused(fleet: LiveFleet, method: str, path: str, body: Any = None) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        fleet.controller.client.call(method, path, body)
    return caught.value


def on_node(fleet: LiveFleet, index: int) -> dict[str, dict[str, Any]]:
    """What the node really has, by public key."""
    return {p["public_key"]: p for p in fleet.nodes.do("peers", node=index)["peers"]}


def rows(fleet: LiveFleet, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with database(fleet.controller.home) as db:
        return list(db.execute(sql, params))


def keys(fleet: LiveFleet, device_id: str) -> set[tuple[str, str, str]]:
    """(node, public key, preshared key) of all its peers."""
    return set(rows(fleet, "SELECT node_id, public_key, preshared_key FROM peers WHERE device_id = ?", device_id))


# -- what a device is given


def test_a_device_without_profiles_is_given_every_node_that_is_ready(fleet: LiveFleet, device: dict[str, Any]) -> None:
    result = post(fleet, f"/api/devices/{device['id']}/provision")
    assert set(result["pushed_nodes"]) == set(fleet.ids)
    assert (result["pending_nodes"], result["skipped"]) == ([], [])
    assert (result["device_id"], result["peer_count"]) == (device["id"], NODES)
    detail = get(fleet, f"/api/devices/{device['id']}")
    (credential,) = detail["credentials"]
    assert credential["tunnel_ip"] == result["tunnel_ip"]
    for index in range(NODES):
        peer = on_node(fleet, index)[credential["wg_public_key"]]
        assert peer["allowed_ips"] == [f"{result['tunnel_ip']}/32"]
    assert len({psk for _, _, psk in keys(fleet, device["id"])}) == NODES  # one for each


def test_provisioning_again_changes_nothing(fleet: LiveFleet, device: dict[str, Any]) -> None:
    first = post(fleet, f"/api/devices/{device['id']}/provision")
    before = keys(fleet, device["id"])
    again = post(fleet, f"/api/devices/{device['id']}/provision")
    assert again["pushed_nodes"] == []
    assert again["profile_revision"] == first["profile_revision"]
    assert keys(fleet, device["id"]) == before


def test_a_device_with_every_node_that_is_bound_to_a_path_is_shown_the_entry_alone(
    fleet: LiveFleet, device: dict[str, Any]
) -> None:
    """On the others its traffic would leave there, or not get through. Its keys are all there still."""
    post(fleet, f"/api/devices/{device['id']}/provision")
    before, place = keys(fleet, device["id"]), f"/api/devices/{device['id']}"

    def shown(**more: str) -> Any:
        return json.loads(post(fleet, f"{place}/export", {"format": "pharos", **more})["text"])["payload"]

    everything = shown()
    (every,) = everything["profiles"]
    assert ([node["name"] for node in every["nodes"]], "path" in every) == (["n0", "n1", "n2"], False)
    path = post(fleet, "/api/paths", {"name": "bound", "node_ids": ["n1", "n2"]})
    post(fleet, f"{place}/bind", {"path_id": "bound"})
    bound = shown()
    (only,) = bound["profiles"]
    assert (only["id"], [node["name"] for node in only["nodes"]]) == ("auto-amneziawg", ["n1"])
    assert (only["path"]["name"], [hop["role"] for hop in only["path"]["hops"]]) == ("bound", ["entry", "exit"])
    assert bound["revision"] > everything["revision"]
    assert post(fleet, f"{place}/export", {"format": "conf"})["name"] == "phone-n1.conf"
    assert "path" not in shown(node="n0")["profiles"][0], "who asks for a node is given it"
    delete(fleet, f"{place}/bind")
    assert shown()["profiles"] == everything["profiles"]
    assert keys(fleet, device["id"]) == before
    delete(fleet, f"/api/paths/{path['id']}")


def test_profiles_lead_to_their_nodes_only(fleet: LiveFleet, device: dict[str, Any]) -> None:
    one = profile(fleet, device, "one", "n0")
    two = profile(fleet, device, "two", "n1", entry_ips=["203.0.113.2"])
    assert (one["pushed_nodes"], two["pushed_nodes"]) == ([fleet.ids[0]], [fleet.ids[1]])
    assert (two["entry_ips"], two["node_id"], "path_id" in two) == (["203.0.113.2"], fleet.ids[1], False)
    detail = get(fleet, f"/api/devices/{device['id']}")
    by_profile = {c["profile_id"]: c for c in detail["credentials"]}
    assert by_profile.keys() == {one["id"], two["id"]}
    assert len({c["tunnel_ip"] for c in by_profile.values()}) == 2
    assert len({c["wg_public_key"] for c in by_profile.values()}) == 2
    assert by_profile[one["id"]]["wg_public_key"] in on_node(fleet, 0)
    assert by_profile[one["id"]]["wg_public_key"] not in on_node(fleet, 1)
    assert [p["name"] for p in get(fleet, f"/api/profiles?device={device['id']}")] == ["one", "two"]
    assert len(get(fleet, f"/api/profiles?user={device['user_id']}")) == 2


def test_adding_a_profile_cuts_no_live_tunnel(fleet: LiveFleet, device: dict[str, Any]) -> None:
    """accounts-profiles.md 10.1, 3; fleet-model.md 12 B 16. Not even when the first profile takes the place of all nodes."""
    post(fleet, f"/api/devices/{device['id']}/provision")
    (auto,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    key = auto["wg_public_key"]
    fleet.nodes.do("inject", node=0, connect=[key])
    eventually(lambda: active(fleet, device["id"]) == 1)
    before = {k for k in keys(fleet, device["id"]) if k[0] == fleet.ids[0]}

    profile(fleet, device, "home", "n0")
    profile(fleet, device, "other", "n1")
    post(fleet, f"/api/devices/{device['id']}/provision")
    assert before <= keys(fleet, device["id"])
    assert on_node(fleet, 0)[key]["connected"]
    assert active(fleet, device["id"]) == 1
    credentials = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    assert (key, auto["tunnel_ip"]) in {(c["wg_public_key"], c["tunnel_ip"]) for c in credentials}


def test_removing_a_profile_takes_its_peers_and_no_others(fleet: LiveFleet, device: dict[str, Any]) -> None:
    stays = profile(fleet, device, "stays", "n0")
    goes = profile(fleet, device, "goes", "n0")
    by_profile = {c["profile_id"]: c for c in get(fleet, f"/api/devices/{device['id']}")["credentials"]}
    fleet.nodes.do("inject", node=0, connect=[by_profile[stays["id"]]["wg_public_key"]])
    delete(fleet, f"/api/profiles/{goes['id']}?version={goes['version']}")
    there = on_node(fleet, 0)
    assert by_profile[goes["id"]]["wg_public_key"] not in there
    assert there[by_profile[stays["id"]]["wg_public_key"]]["connected"]


def test_a_profile_moved_to_another_node_keeps_its_keys(fleet: LiveFleet, device: dict[str, Any]) -> None:
    made = profile(fleet, device, "travels", "n0")
    (before,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    body = {"version": made["version"], "node_id": fleet.ids[2]}
    moved = fleet.controller.client.call("PATCH", f"/api/profiles/{made['id']}", body)
    assert set(moved["pushed_nodes"]) == {fleet.ids[0], fleet.ids[2]}
    assert get(fleet, f"/api/devices/{device['id']}")["credentials"] == [before]
    assert before["wg_public_key"] in on_node(fleet, 2)
    assert before["wg_public_key"] not in on_node(fleet, 0)


def test_endpoints_that_went_are_in_no_edits_way(fleet: LiveFleet, device: dict[str, Any]) -> None:
    made = profile(fleet, device, "one", "n1", entry_ips=["203.0.113.2"])

    def edit(**given: Any) -> dict[str, Any]:
        version = get(fleet, f"/api/profiles/{made['id']}")["version"]
        found: dict[str, Any] = fleet.controller.client.call(
            "PATCH", f"/api/profiles/{made['id']}", {"version": version, **given}
        )
        return found

    def pool(*addresses: str) -> None:
        body = {"version": fleet.controller.node("n1")["version"], "endpoint_ips": list(addresses)}
        fleet.controller.client.call("PATCH", "/api/nodes/n1", body)

    pool("198.51.100.2")
    try:
        assert edit(name="other")["entry_ips"] == ["203.0.113.2"]  # it may come back
        with pytest.raises(RemoteError, match="entry_ips"):
            edit(entry_ips=["203.0.113.2"])
        assert "entry_ips" not in edit(node_id="n2")
    finally:
        pool("198.51.100.2", "203.0.113.2")


def test_rotation_is_on_request_and_keeps_addresses(fleet: LiveFleet, device: dict[str, Any]) -> None:
    profile(fleet, device, "one", "n0")
    (before,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    result = post(fleet, f"/api/devices/{device['id']}/provision", {"rotate": True})
    (after,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    assert after["tunnel_ip"] == before["tunnel_ip"] == result["tunnel_ip"]
    assert after["wg_public_key"] != before["wg_public_key"]
    there = on_node(fleet, 0)
    assert after["wg_public_key"] in there
    assert before["wg_public_key"] not in there
    assert result["pushed_nodes"] == [fleet.ids[0]]


# -- what is taken away


def test_a_suspended_device_is_off_at_once_and_comes_back_with_its_keys(fleet: LiveFleet, device: dict[str, Any]) -> None:
    post(fleet, f"/api/devices/{device['id']}/provision")
    (credential,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    before = keys(fleet, device["id"])
    suspended = post(fleet, f"/api/devices/{device['id']}/suspend", {"version": device["version"]})
    assert suspended["status"] == "suspended"
    assert set(suspended["pushed_nodes"]) == set(fleet.ids)
    for index in range(NODES):
        assert credential["wg_public_key"] not in on_node(fleet, index)
    post(fleet, f"/api/devices/{device['id']}/provision")  # which must not switch it on
    profile(fleet, device, "meanwhile", "n0")
    assert credential["wg_public_key"] not in on_node(fleet, 0)
    post(fleet, f"/api/devices/{device['id']}/resume")
    assert credential["wg_public_key"] in on_node(fleet, 0)
    assert keys(fleet, device["id"]) < before  # of all nodes, the one of its profile


def test_a_suspended_user_takes_all_devices_along_but_not_what_was_off_before(
    fleet: LiveFleet, user: dict[str, Any]
) -> None:
    ids = []
    for name in ("laptop", "phone"):
        ids.append(post(fleet, f"/api/users/{user['id']}/devices", {"name": name})["id"])
        post(fleet, f"/api/devices/{ids[-1]}/provision")
    laptop, phone = (get(fleet, f"/api/devices/{i}")["credentials"][0]["wg_public_key"] for i in ids)
    post(fleet, f"/api/devices/{ids[1]}/suspend")
    post(fleet, f"/api/users/{user['id']}/suspend")
    assert laptop not in on_node(fleet, 0)
    late = post(fleet, f"/api/users/{user['id']}/devices", {"name": "late"})["id"]
    assert post(fleet, f"/api/devices/{late}/provision")["peer_count"] == NODES
    added = get(fleet, f"/api/devices/{late}")["credentials"][0]["wg_public_key"]
    assert added not in on_node(fleet, 0)  # made, and off
    post(fleet, f"/api/users/{user['id']}/resume")
    assert {laptop, added} <= on_node(fleet, 0).keys()
    assert phone not in on_node(fleet, 0)
    body = {"version": get(fleet, f"/api/users/{user['id']}")["version"], "status": "disabled"}
    fleet.controller.client.call("PATCH", f"/api/users/{user['id']}", body)
    assert laptop not in on_node(fleet, 0)


def test_a_revoked_device_loses_its_keys_for_good(fleet: LiveFleet, device: dict[str, Any]) -> None:
    post(fleet, f"/api/devices/{device['id']}/provision")
    (credential,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    revoked = post(fleet, f"/api/devices/{device['id']}/revoke")
    assert set(revoked["pushed_nodes"]) == set(fleet.ids)
    assert credential["wg_public_key"] not in on_node(fleet, 0)
    assert get(fleet, f"/api/devices/{device['id']}")["credentials"] == []
    for action in ("resume", "provision", "export"):
        assert refused(fleet, "POST", f"/api/devices/{device['id']}/{action}", {}).status == 409
    body = {"device_id": device["id"], "name": "x", "node_id": fleet.ids[0]}
    assert refused(fleet, "POST", "/api/profiles", body).status == 409


@pytest.mark.parametrize("how", ["device", "user"])
def test_deleting_takes_peers_from_the_nodes_at_once(fleet: LiveFleet, device: dict[str, Any], how: str) -> None:
    """fleet-model.md 12 B 9; accounts-profiles.md 10.1, 5: no foreign key in the way, and no peer left behind."""
    post(fleet, f"/api/devices/{device['id']}/provision")
    profile(fleet, device, "one", "n1")
    (credential,) = get(fleet, f"/api/devices/{device['id']}")["credentials"]
    revision = fleet.controller.node("n1")["config_revision"]
    delete(fleet, f"/api/devices/{device['id']}" if how == "device" else f"/api/users/{device['user_id']}")
    assert fleet.controller.node("n1")["config_revision"] == revision + 1
    assert fleet.controller.node("n1")["applied_revision"] == revision + 1  # it was waited for
    assert credential["wg_public_key"] not in on_node(fleet, 1)
    for table in ("profile_specs", "credentials", "peers"):
        assert rows(fleet, f"SELECT count(*) FROM {table} WHERE device_id = ?", device["id"]) == [(0,)]
    assert rows(
        fleet, "SELECT count(*) FROM addresses a LEFT JOIN credentials c ON c.id = a.credential_id WHERE c.id IS NULL"
    ) == [(0,)]
    assert refused(fleet, "GET", f"/api/devices/{device['id']}").status == 404


def test_a_node_that_is_away_is_pending_and_follows_by_itself(fleet: LiveFleet, device: dict[str, Any]) -> None:
    post(fleet, f"/api/devices/{device['id']}/provision")
    key = get(fleet, f"/api/devices/{device['id']}")["credentials"][0]["wg_public_key"]
    fleet.nodes.do("kill", node=2)
    fleet.controller.until("n2", link_state="backing_off")
    revoked = post(fleet, f"/api/devices/{device['id']}/revoke")
    assert (revoked["pending_nodes"], set(revoked["pushed_nodes"])) == ([fleet.ids[2]], set(fleet.ids[:2]))
    fleet.nodes.do("start", node=2)
    fleet.controller.until("n2", in_sync=True)
    assert key not in on_node(fleet, 2)


# -- what cannot be


def test_a_profile_that_cannot_be_served_is_skipped_and_follows_when_it_can(
    fleet: LiveFleet, device: dict[str, Any]
) -> None:
    """accounts-profiles.md 10.1, 4 and 6: it neither blocks the device nor is it forgotten."""
    profile(fleet, device, "works", "n0")
    node = fleet.controller.node("n2")
    bare = {"version": node["version"], "endpoint_ips": []}
    emptied = fleet.controller.client.call("PATCH", "/api/nodes/n2", bare)
    broken = profile(fleet, device, "broken", "n2")
    (skipped,) = broken["skipped"]
    assert (skipped["name"], "no endpoint address" in skipped["reason"]) == ("broken", True)
    result = post(fleet, f"/api/devices/{device['id']}/provision")
    assert (result["peer_count"], len(result["skipped"])) == (1, 1)
    fleet.controller.client.call(
        "PATCH", "/api/nodes/n2", {"version": emptied["version"], "endpoint_ips": node["endpoint_ips"]}
    )
    eventually(lambda: get(fleet, f"/api/devices/{device['id']}")["peer_count"] == 2)
    record = next(r for r in get(fleet, "/api/audit?limit=20") if r["action"] == "device.provision")
    assert (record["actor_kind"], record["target_id"], record["detail"]["devices"]) == ("system", fleet.ids[2], 1)


def test_a_node_that_profiles_lead_to_is_not_removed(fleet: LiveFleet, device: dict[str, Any]) -> None:
    made = profile(fleet, device, "one", "n1")
    error = refused(fleet, "DELETE", "/api/nodes/n1")
    assert error.status == 409
    assert "profile" in str(error)
    assert fleet.controller.node("n1")["id"] == made["node_id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"node_id": None}, "node_id, path_id"),
        ({"path_id": "pth_aaaaaaaaaaaaaaaa"}, "node_id, path_id"),
        ({"node_id": None, "path_id": "pth_aaaaaaaaaaaaaaaa"}, "path_id"),
        ({"node_id": "nod_aaaaaaaaaaaaaaaa"}, "node_id"),
        ({"protocol": "openvpn"}, "protocol"),
        ({"name": " "}, "name"),
        ({"entry_ips": ["192.0.2.9"]}, "entry_ips"),
        ({"entry_ips": ["none"]}, "endpoint_ips"),
        ({"user_id": "usr_aaaaaaaaaaaaaaaa"}, "user_id"),
    ],
)
def test_a_bad_profile_is_refused_and_nothing_is_kept(
    fleet: LiveFleet, device: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    """accounts-profiles.md 8, gaps: no orphan, no 502."""
    good = {"device_id": device["id"], "name": "one", "node_id": fleet.ids[0]}
    error = refused(fleet, "POST", "/api/profiles", {**good, **body})
    assert (error.status, str(error).startswith(f"{field}:")) == (400, True), str(error)
    assert get(fleet, f"/api/profiles?device={device['id']}") == []


def test_conflicts(fleet: LiveFleet, user: dict[str, Any], device: dict[str, Any]) -> None:
    body = {"device_id": "dev_aaaaaaaaaaaaaaaa", "name": "one", "node_id": fleet.ids[0]}
    assert refused(fleet, "POST", "/api/profiles", body).status == 400
    made = profile(fleet, device, "one", "n0")
    assert refused(fleet, "POST", "/api/profiles", {**body, "device_id": device["id"]}).status == 409
    for path, version in (
        (f"/api/users/{user['id']}", user["version"]),
        (f"/api/devices/{device['id']}", device["version"]),
        (f"/api/profiles/{made['id']}", made["version"]),
    ):
        fleet.controller.client.call("PATCH", path, {"version": version, "name": "renamed"})
        stale = refused(fleet, "PATCH", path, {"version": version, "name": "again"})
        assert (stale.status, "is 2 now" in str(stale)) == (409, True)
        assert refused(fleet, "DELETE", f"{path}?version={version}").status == 409
        assert get(fleet, path)["name"] == "renamed"


def test_one_address_is_one_user(fleet: LiveFleet) -> None:
    """accounts-profiles.md 1.1: on either backend, whatever the case."""
    body = {"name": "Ann", "email": " Ann@Example.org ", "phone": "+49 (30) 123-4567"}
    ann = post(fleet, "/api/users", body)
    assert (ann["email"], ann["phone"], ann["role"], ann["status"]) == ("ann@example.org", "+49301234567", "user", "active")
    assert refused(fleet, "POST", "/api/users", {"name": "B", "email": "ANN@example.ORG"}).status == 409
    assert refused(fleet, "POST", "/api/users", {"name": "B", "phone": "0049301234567"}).status == 409
    assert get(fleet, "/api/users/ANN@example.org")["id"] == ann["id"]
    assert [post(fleet, "/api/users", {"name": "no address"})["email"] for _ in range(2)] == ["", ""]


# -- secrets


def test_a_file_is_opened_by_its_password_and_by_no_other(
    fleet: LiveFleet, device: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    post(fleet, f"/api/devices/{device['id']}/provision")
    place, password = f"/api/devices/{device['id']}/export", "correct horse battery"
    plain = json.loads(post(fleet, place, {"format": "pharos"})["text"])["payload"]
    exported = post(fleet, place, {"format": "pharos", "password": password})
    container = read_container(exported["text"])
    assert (container.enc, exported["name"]) == ("password", "phone.pharos")
    opened = json.loads(open_password(container, password))
    assert opened | {"issued_at": ""} == plain | {"issued_at": ""} and opened["profiles"]
    for wrong in ("Correct horse battery", password + " ", ""):
        with pytest.raises(InvalidInput):
            open_password(container, wrong)
    key = opened["profiles"][0]["nodes"][0]["protocols"][0]["params"]["private_key"]
    assert key not in exported["text"]

    for body in ({"format": "conf"}, {"format": "vless"}, {"format": "sealed"}, {}):
        with pytest.raises(RemoteError, match=r"password: a file of the format \w+ has none"):
            post(fleet, place, body | {"password": password})
    for short in ("", "short"):
        with pytest.raises(RemoteError, match="password: "):
            post(fleet, place, {"format": "pharos", "password": short})
    assert "correct horse" not in json.dumps(fleet.controller.client.get("/api/audit")) + caplog.text


def test_no_private_key_lies_open_anywhere(fleet: LiveFleet, device: dict[str, Any]) -> None:
    profile(fleet, device, "one", "n0")
    exported = post(fleet, f"/api/devices/{device['id']}/export")["text"]
    private = next(line.split(" = ")[1] for line in exported.splitlines() if line.startswith("PrivateKey"))
    raw = base64.b64decode(private)
    for file in fleet.controller.home.iterdir():
        if file.is_file():
            content = file.read_bytes()
            assert private.encode() not in content
            assert raw not in content
    (record,) = get(fleet, f"/api/audit?action=profile.export&target_id={device['id']}&limit=1")
    assert private not in str(record)


def profile(fleet: LiveFleet, device: dict[str, Any], name: str, node: str, **more: Any) -> dict[str, Any]:
    body = {
        "device_id": device["id"],
        "user_id": device["user_id"],
        "name": name,
        "node_id": fleet.controller.node(node)["id"],
    }
    made: dict[str, Any] = post(fleet, "/api/profiles", body | more)
    return made


def active(fleet: LiveFleet, device_id: str) -> int:
    return len(get(fleet, f"/api/sessions/active?device={device_id}"))


def test_a_users_password_is_hashed_and_never_comes_back(fleet: LiveFleet) -> None:
    made = post(fleet, "/api/users", {"name": "Pat", "password": "correct horse battery"})
    assert "password" not in made
    ((kept,),) = rows(fleet, "SELECT password_hash FROM users WHERE id = ?", made["id"])
    assert kept.startswith("$argon2id$v=19$m=65536,t=1,p=4$")
    assert refused(fleet, "POST", "/api/users", {"name": "Pat", "password": "short"}).status == 400
    ((none,),) = rows(fleet, "SELECT password_hash FROM users WHERE id = ?", post(fleet, "/api/users", {"name": "Q"})["id"])
    assert none == ""


def test_what_changes_of_a_node_makes_profiles_stale_and_leaves_its_policy(fleet: LiveFleet, device: dict[str, Any]) -> None:
    """accounts-profiles.md 10.1, 6: a bundle of an older number is old. fleet-model.md 12 B 15: what is not given stays."""
    profile(fleet, device, "one", "n1")
    node = fleet.controller.node("n1")
    policy = {"version": node["version"], "isolation": True}
    isolated = fleet.controller.client.call("PATCH", "/api/nodes/n1", policy)
    before = get(fleet, f"/api/devices/{device['id']}")["profile_revision"]
    changed = fleet.controller.client.call(
        "PATCH", "/api/nodes/n1", {"version": isolated["version"], "endpoint_ips": ["198.51.100.99"]}
    )
    assert (changed["isolation"], changed["forwarding"], changed["endpoint_ips"]) == (True, True, ["198.51.100.99"])
    assert get(fleet, f"/api/devices/{device['id']}")["profile_revision"] == before + 1
    back = {"version": changed["version"], "endpoint_ips": node["endpoint_ips"], "isolation": False}
    fleet.controller.client.call("PATCH", "/api/nodes/n1", back)


def test_admins_are_not_to_be_had_through_users(fleet: LiveFleet) -> None:
    """accounts-profiles.md 10.2, 21."""
    admin = post(fleet, "/api/admins", {"email": "root@example.org", "password": "correct horse battery"})
    assert admin["id"] not in [u["id"] for u in get(fleet, "/api/users")]
    assert refused(fleet, "DELETE", f"/api/users/{admin['id']}").status == 409
    assert refused(fleet, "POST", f"/api/users/{admin['id']}/suspend").status == 409
    body = {"version": admin["version"], "email": "mine@example.org"}
    assert refused(fleet, "PATCH", f"/api/users/{admin['id']}", body).status == 409
