"""IPv6 for devices, from the configuration to nodes: gained and lost without a new key, and only where agents carry it.

Nodes are simulated; that packets really go that way is shown in ``test_tunnel_v6_netns``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coxswain.cli.client import Client, RemoteError
from tests.cascade import CascadeFleet, cascade_fleet
from tests.fleet import database
from tests.support import eventually

NODES = 3
BASE_PORT = 13_680
OFF = "posture: personal\nstate_dir: state\nfleet:\n  vpn_subnet: 10.99.0.0/28\n"
ON = f"{OFF}  vpn_subnet_v6: fd5e:1f7a:93c4::/64\n"
ELSEWHERE = f"{OFF}  vpn_subnet_v6: fd77:8c1:2b3::/48\n"
ADDRESSES = 13
"""Of a /28: 16 less network, gateway and broadcast."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[CascadeFleet]:
    with cascade_fleet(tmp_path, NODES, BASE_PORT, config=OFF) as running:
        yield running


def configure(fleet: CascadeFleet, text: str) -> None:
    """The daemon starts again with this configuration."""
    controller = fleet.fleet.controller
    controller.stop()
    (controller.home.parent / "cox.yaml").write_text(text)
    controller.start()
    controller.all_in_sync(NODES)


def device(client: Client) -> str:
    user = client.post("/api/users", {"name": "somebody"})["id"]
    made: str = client.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
    return made


def on_node(fleet: CascadeFleet, index: int) -> dict[str, list[str]]:
    """Allowed IPs of what the node really has, by public key."""
    return {p["public_key"]: p["allowed_ips"] for p in fleet.fleet.nodes.do("peers", node=index)["peers"]}


def until_on_node(fleet: CascadeFleet, index: int, key: str, *addresses: str) -> None:
    try:
        eventually(lambda: on_node(fleet, index).get(key) == list(addresses), every=0.1)
    except AssertionError:
        raise AssertionError(f"n{index} has {on_node(fleet, index).get(key)}, not {addresses}") from None


def shown(fleet: CascadeFleet, device_id: str) -> dict[str, Any]:
    (credential,) = fleet.client.get(f"/api/devices/{device_id}")["credentials"]
    found: dict[str, Any] = credential
    return found


def secrets(fleet: CascadeFleet) -> set[tuple[str, str, str]]:
    with database(fleet.fleet.controller.home) as db:
        return set(db.execute("SELECT node_id, public_key, preshared_key FROM peers"))


def conf(fleet: CascadeFleet, device_id: str, index: int) -> str:
    body = {"format": "conf", "node": f"n{index}"}
    text: str = fleet.client.post(f"/api/devices/{device_id}/export", body)["text"]
    return next(line for line in text.splitlines() if line.startswith("Address"))


def told(fleet: CascadeFleet, device_id: str) -> dict[str, str | None]:
    """What the profile document, of which bundles are made as well, says to clients, by node."""
    text = fleet.client.post(f"/api/devices/{device_id}/export", {"format": "pharos"})["text"]
    (profile,) = json.loads(text)["payload"]["profiles"]
    return {node["name"]: node["protocols"][0]["params"].get("address_v6") for node in profile["nodes"]}


def carry(fleet: CascadeFleet, index: int, *, on: bool) -> None:
    """Another agent in its place: one that serves IPv6, or one that does not."""
    fleet.fleet.nodes.do("ipv6", node=index, on=on)
    fleet.fleet.controller.until(f"n{index}", tunnel_ipv6=on)


@pytest.mark.timeout(240)
def test_devices_gain_and_lose_an_address_and_keep_their_keys(fleet: CascadeFleet) -> None:
    carry(fleet, 2, on=False)
    device_id = device(fleet.client)
    before = fleet.client.post(f"/api/devices/{device_id}/provision")
    assert (before["tunnel_ip"], before["tunnel_ip_v6"]) == ("10.99.0.2", "")
    key = shown(fleet, device_id)["wg_public_key"]
    held = secrets(fleet)
    assert conf(fleet, device_id, 0) == "Address = 10.99.0.2/32"

    configure(fleet, ON)
    second = "fd5e:1f7a:93c4::a63:2"
    for index in (0, 1):
        until_on_node(fleet, index, key, "10.99.0.2/32", f"{second}/128")
        assert conf(fleet, device_id, index) == f"Address = 10.99.0.2/32, {second}/128"
    assert on_node(fleet, 2)[key] == ["10.99.0.2/32"], "whose agent does not mark and masquerade it"
    assert conf(fleet, device_id, 2) == "Address = 10.99.0.2/32"
    assert told(fleet, device_id) == {"n0": f"{second}/128", "n1": f"{second}/128", "n2": None}
    assert shown(fleet, device_id)["tunnel_ip_v6"] == second
    assert secrets(fleet) == held, "no key is another, so no tunnel is cut"
    again = fleet.client.post(f"/api/devices/{device_id}/provision")
    assert again["pushed_nodes"] == []
    assert again["tunnel_ip_v6"] == second
    assert again["profile_revision"] > before["profile_revision"], "its client has to fetch it"
    fleet.fleet.controller.all_in_sync(NODES)

    # An agent that can takes the place of one that cannot, and the other way round.
    carry(fleet, 2, on=True)
    until_on_node(fleet, 2, key, "10.99.0.2/32", f"{second}/128")
    carry(fleet, 0, on=False)
    until_on_node(fleet, 0, key, "10.99.0.2/32")

    configure(fleet, ELSEWHERE)
    until_on_node(fleet, 1, key, "10.99.0.2/32", "fd77:8c1:2b3::a63:2/128")
    configure(fleet, OFF)
    for index in range(NODES):
        until_on_node(fleet, index, key, "10.99.0.2/32")
    assert shown(fleet, device_id)["tunnel_ip_v6"] == ""
    assert secrets(fleet) == held
    actors = {r["actor"] for r in fleet.client.get("/api/audit?limit=200") if r["action"] == "device.provision"}
    assert "coxswain" in actors


def test_many_at_once_until_none_is_left(fleet: CascadeFleet) -> None:
    """accounts-profiles.md 10.1, 7: never one address twice, of either family, and a conflict at the end."""
    configure(fleet, ON)
    ids = [device(fleet.client) for _ in range(ADDRESSES + 3)]

    def provision(device_id: str) -> tuple[str, str]:
        own = Client(fleet.fleet.controller.home / "control.sock", timeout=60.0)
        try:
            given = own.post(f"/api/devices/{device_id}/provision?wait=0")
            return given["tunnel_ip"], given["tunnel_ip_v6"]
        except RemoteError as error:
            return ("", "") if error.status == 409 and "tunnel addresses left" in str(error) else (str(error), "")
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(provision, ids))
    pairs = [pair for pair in given if pair[0]]
    assert len(pairs) == ADDRESSES == len({first for first, _ in pairs}) == len({second for _, second in pairs})
    assert all(second == f"fd5e:1f7a:93c4::a63:{int(first.rpartition('.')[2]):x}" for first, second in pairs)
    # Freed with its device, and given to the next one.
    freed = given.index(("10.99.0.7", "fd5e:1f7a:93c4::a63:7"))
    fleet.client.call("DELETE", f"/api/devices/{ids[freed]}")
    assert provision(ids[given.index(("", ""))]) == ("10.99.0.7", "fd5e:1f7a:93c4::a63:7")
    fleet.fleet.controller.all_in_sync(NODES)


def test_an_address_that_was_given_by_hand_stays_whose_it_is(fleet: CascadeFleet) -> None:
    held = fleet.device(0)
    body = fleet.bodies[held]
    body["add"][0]["allowed_ips"] = ["10.50.0.1/32", "fd5e:1f7a:93c4::a63:2/128"]
    fleet.client.post("/api/peers", body)
    device_id = device(fleet.client)
    fleet.client.post(f"/api/devices/{device_id}/provision")
    configure(fleet, ON)
    other = device(fleet.client)
    assert fleet.client.post(f"/api/devices/{other}/provision")["tunnel_ip_v6"] == "fd5e:1f7a:93c4::a63:3"
    assert shown(fleet, device_id)["tunnel_ip_v6"] == ""
    assert on_node(fleet, 0)[body["add"][0]["public_key"]] == ["10.50.0.1/32", "fd5e:1f7a:93c4::a63:2/128"]


@pytest.mark.timeout(240)
def test_a_path_carries_it_only_as_far_as_agents_can(fleet: CascadeFleet) -> None:
    configure(fleet, ON)
    fleet.path("far", 0, 1, 2)
    user = fleet.client.post("/api/users", {"name": "Ann"})["id"]
    device_id = fleet.client.post(f"/api/users/{user}/devices", {"name": "phone"})["id"]
    (way,) = fleet.client.get("/api/paths")
    body = {"device_id": device_id, "name": "far", "path_id": way["id"], "protocol": "amneziawg"}
    fleet.client.post("/api/profiles", body | {"user_id": user})
    credential = shown(fleet, device_id)
    first, second = f"{credential['tunnel_ip']}/32", f"{credential['tunnel_ip_v6']}/128"
    assert second == "fd5e:1f7a:93c4::a63:2/128"

    def goes(address: str, *way: int | str) -> None:
        fleet.addresses[device_id] = address
        eventually(lambda: fleet.follow(device_id, 0) == way, every=0.2)

    goes(first, 0, 1, 2)
    goes(second, 0, 1, 2)
    assert fleet.network()[0]["links"]["awg1"]["allowed_ips"] == ["0.0.0.0/0", "::/0"]
    eventually(lambda: fleet.client.get("/api/paths")[0]["status"] == "active")  # what was acknowledged is what is intended

    carry(fleet, 2, on=False)
    goes(second, "dropped")
    goes(first, 0, 1, 2)
    carry(fleet, 1, on=False)
    goes(second, "dropped")
    carry(fleet, 0, on=False)  # what it cannot send on, it does not let in
    until_on_node(fleet, 0, credential["wg_public_key"], first)
    eventually(lambda: not any(":" in t["device_cidr"] for t in fleet.network()[0]["policy"]["transits"]))
    for index in range(NODES):
        carry(fleet, index, on=True)
    goes(second, 0, 1, 2)
    until_on_node(fleet, 0, credential["wg_public_key"], first, second)
    fleet.fleet.controller.all_in_sync(NODES)
