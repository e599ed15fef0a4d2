"""Paths over real links to simulated nodes: what fleet-model.md appendix B fixes, and traps that a controller can meet."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.supervision import Harm
from coxswain.cli.client import RemoteError
from tests.cascade import DROPPED, CascadeFleet
from tests.support import eventually

NODES = 5
BASE_PORT = 13_300


@pytest.fixture
def fleet(cascade: CascadeFleet) -> CascadeFleet:
    return cascade


# -- building


def test_a_path_is_built_link_by_link_and_moves_nobody(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    path = fleet.path("p", 0, 1, 2)
    assert path["status"] == "active"
    assert path["hops"] == [fleet.fleet.ids[index] for index in (0, 1, 2)]
    entry, mid, exit_ = (fleet.network()[index] for index in (0, 1, 2))
    assert {name: link["endpoint"] for name, link in entry["links"].items()} == {"awg1": "203.0.113.11:443"}
    assert {name: link["endpoint"] for name, link in mid["links"].items()} == {"awg1": "203.0.113.12:443"}
    assert exit_["links"] == {}
    assert 1280 <= entry["links"]["awg1"]["mtu"] == 1500 - 60 - entry["links"]["awg1"]["obfuscation"]["s4"]
    assert entry["links"]["awg1"]["listen_port"] == 51820
    assert fleet.follow(device, 0) == (0,)


def test_the_plan_of_a_path_says_what_will_be_done_and_does_nothing(fleet: CascadeFleet) -> None:
    plan = fleet.client.post("/api/paths/plan", {"node_ids": ["n0", "n1", "n2"]})
    assert [step.partition(":")[0] for step in plan["steps"]] == ["n0", "n1"]
    assert "awg1" in plan["steps"][0]
    assert 1280 <= plan["mtu"] <= 1420
    assert fleet.client.get("/api/paths") == []
    assert fleet.client.get("/api/node-links") == []


@pytest.mark.parametrize(
    ("nodes", "status", "field"),
    [
        (["n0"], 400, "node_ids"),
        (["n0", "n1", "n2", "n3"], 400, "node_ids"),
        (["n0", "n1", "n0"], 400, "node_ids"),
        (["n0", "nobody"], 400, "nobody"),
    ],
)
def test_what_makes_no_path_is_refused_and_nothing_is_there(
    fleet: CascadeFleet, nodes: list[str], status: int, field: str
) -> None:
    with pytest.raises(RemoteError, match=field) as caught:
        fleet.client.post("/api/paths", {"name": "p", "node_ids": nodes})
    assert caught.value.status == status
    assert fleet.client.get("/api/paths") == []


def test_a_path_whose_node_is_away_is_taken_back_whole(fleet: CascadeFleet) -> None:
    """The existing controller leaves links and rows behind (fleet-model.md 12, 23)."""
    fleet.fleet.nodes.do("kill", node=1)
    fleet.fleet.controller.until("n1", link_state="backing_off")
    with pytest.raises(RemoteError, match="n1 is not connected") as caught:
        fleet.path("p", 0, 1, 2, patience=2)
    assert caught.value.status == 502
    assert "taken back" in str(caught.value)
    assert fleet.client.get("/api/paths") == []
    assert fleet.client.get("/api/node-links") == []
    fleet.fleet.nodes.do("start", node=1)
    eventually(lambda: not any(node["links"] for node in fleet.network()), every=0.1)


def test_a_path_over_a_node_that_is_not_well_says_which_and_why(fleet: CascadeFleet) -> None:
    fleet.fleet.nodes.do("fail", node=1, method="SetNetworkConfig", code="INTERNAL", times=10_000)
    version = fleet.fleet.controller.node("n1")["version"]
    fleet.client.call("PATCH", "/api/nodes/n1", {"version": version, "isolation": True})
    fleet.fleet.controller.until("n1", link_state="degraded", status="error")
    with pytest.raises(RemoteError, match=r"n1 is not well: .*SetNetworkConfig"):
        fleet.path("p", 0, 1, patience=2)
    fleet.fleet.nodes.do("clear", node=1)
    version = fleet.fleet.controller.node("n1")["version"]
    fleet.client.call("PATCH", "/api/nodes/n1", {"version": version, "isolation": False})
    fleet.path("p", 0, 1)


def test_names_and_colours_can_be_changed_by_whoever_saw_the_present_ones(fleet: CascadeFleet) -> None:
    path = fleet.path("p", 0, 1)
    changed = fleet.client.call("PATCH", "/api/paths/p", {"version": path["version"], "color": "#4FD1C4", "name": "q"})
    assert (changed["name"], changed["color"], changed["version"]) == ("q", "#4fd1c4", path["version"] + 1)
    with pytest.raises(RemoteError) as caught:
        fleet.client.call("PATCH", "/api/paths/q", {"version": path["version"], "color": ""})
    assert caught.value.status == 409


# -- binding


def test_binding_wires_every_hop(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    assert fleet.follow(device, 0) == (0, 1, 2)
    address = fleet.addresses[device]
    entry, mid, exit_ = (fleet.network()[index] for index in (0, 1, 2))
    assert mid["peers"][-1] == [fleet.node(0)["wg_public_key"], [address]]
    assert exit_["peers"][-1] == [fleet.node(1)["wg_public_key"], [address]]
    for node in (entry, mid):
        assert node["policy"]["forwarding"]
        transit = {"device_cidr": address, "inner_interface": "awg1", "mark": 7100, "table": 7100}
        assert node["policy"]["transits"] == [transit]
    assert exit_["policy"]["transits"] == []


def test_devices_on_shared_edges_are_kept_apart_at_the_exits(fleet: CascadeFleet) -> None:
    one, two = fleet.device(0), fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 1, 3)
    fleet.bind(one, "p")
    fleet.bind(two, "q")
    network = fleet.network()
    assert fleet.follow(one, 0, network) == (0, 1, 2)
    assert fleet.follow(two, 0, network) == (0, 1, 3)
    assert network[1]["peers"][-1][1] == [fleet.addresses[one], fleet.addresses[two]]
    assert list(network[0]["links"]) == ["awg1"]
    assert list(network[1]["links"]) == ["awg1", "awg2"]
    fleet.unbind(two)
    fleet.client.call("DELETE", "/api/paths/q")
    eventually(lambda: list(fleet.network()[1]["links"]) == ["awg1"], every=0.1)
    assert fleet.follow(one, 0) == (0, 1, 2)


def test_the_device_keeps_nothing_of_its_own_where_its_path_passes(fleet: CascadeFleet) -> None:
    """Wherever it may also come in by itself, its address belongs to the edge peer while it is bound (12, 25)."""
    device = fleet.device(0, 1, 2)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    assert fleet.follow(device, 0) == (0, 1, 2)
    owners = [[key for key, ips in node["peers"] if fleet.addresses[device] in ips] for node in fleet.network()[:3]]
    assert [len(keys) for keys in owners] == [1, 1, 1]
    assert owners[1] == [fleet.node(0)["wg_public_key"]]
    fleet.unbind(device)

    def own_again() -> bool:
        peers = [[key for key, ips in node["peers"] if fleet.addresses[device] in ips] for node in fleet.network()[:3]]
        return peers[0] != peers[1] != [] != peers[2] and fleet.node(0)["wg_public_key"] not in peers[1]

    eventually(own_again, every=0.1)
    assert fleet.follow(device, 0) == (0,)


@pytest.mark.parametrize(
    ("start", "target"),
    [((0, 1, 2), (0, 3, 4)), ((0, 1), (0, 1, 2)), ((0, 1, 2), (0, 1)), ((0, 1, 2), (0, 1, 3)), ((0, 1, 2), (0, 2))],
    ids=["other nodes", "longer", "shorter", "other exit", "without the middle"],
)
def test_a_switch_leaves_no_moment_without_a_whole_route(
    fleet: CascadeFleet, start: tuple[int, ...], target: tuple[int, ...]
) -> None:
    device = fleet.device(0)
    fleet.path("p", *start)
    fleet.path("q", *target)
    fleet.bind(device, "p")
    peer = next(key for key, ips in fleet.network()[0]["peers"] if fleet.addresses[device] in ips)
    fleet.fleet.nodes.do("delay", node="all", method="SetNetworkConfig", seconds=0.2)
    fleet.fleet.nodes.do("delay", node="all", method="PushConfig", seconds=0.2)
    operation = fleet.bind(device, "q", wait=False)
    seen: list[tuple[Any, ...]] = []
    while fleet.client.get(f"/api/operations/{operation['id']}")["state"] not in ("done", "failed", "undone"):
        seen.append(fleet.follow(device, 0))
    assert fleet.follow(device, 0) == target
    crosses = bool(set(start[1:]) & set(target[1:])) and start[1] != target[1]
    assert set(seen) <= {start, target} | ({DROPPED} if crosses else set())
    assert start in seen
    keys = [key for key, ips in fleet.network()[0]["peers"] if fleet.addresses[device] in ips]
    assert keys == [peer], "the client was cut off: its peer on the entry is another one"


def test_the_plan_of_a_switch_is_what_then_happens(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 3)
    fleet.bind(device, "p")
    plan = fleet.client.post(f"/api/devices/{device}/bind/plan", {"path_id": "q"})
    assert [stage["phase"] for stage in plan["stages"]] == ["preparing", "moved", "settled"]
    assert plan["interrupts"] == ""
    assert plan["stages"][1]["changes"] == [f"n0: send {fleet.addresses[device]} into awg2, mark and table 7101"]
    assert fleet.follow(device, 0) == (0, 1, 2)
    across = fleet.path("across", 0, 2)
    plan = fleet.client.post(f"/api/devices/{device}/bind/plan", {"path_id": across["id"]})
    assert "another side" in plan["interrupts"]


def test_binding_twice_and_unbinding_twice_are_no_errors(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    path = fleet.path("p", 0, 1)
    for _ in range(2):
        assert fleet.bind(device, "p") is None
    assert fleet.client.get(f"/api/devices/{device}/bind")["path_id"] == path["id"]
    for _ in range(2):
        assert fleet.unbind(device) is None
    assert fleet.client.get(f"/api/devices/{device}/bind")["path_id"] == ""


def test_binding_without_a_peer_on_the_entry_is_refused(fleet: CascadeFleet) -> None:
    device = fleet.device(1)
    fleet.path("p", 0, 1)
    with pytest.raises(RemoteError, match="no AmneziaWG address on n0") as caught:
        fleet.bind(device, "p")
    assert caught.value.status == 409
    with pytest.raises(RemoteError, match="no device"):
        fleet.bind("dev_nobody", "p")
    with pytest.raises(RemoteError, match="no path"):
        fleet.bind(device, "nowhere")


def test_nobody_is_sent_over_a_node_that_is_disabled(fleet: CascadeFleet) -> None:
    """It would be waited for in vain, and the operation taken back."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 3)
    fleet.bind(device, "q")
    before = fleet.client.get("/api/operations?kind=path.switch")

    def refused(index: int, way: Callable[[], Any]) -> None:
        with pytest.raises(RemoteError, match=f"node n{index}: is disabled") as caught:
            way()
        assert caught.value.status == 409 and f"cox nodes enable n{index}" in caught.value.remedy
        assert fleet.client.get("/api/operations?kind=path.switch") == before, "nothing was begun"

    for index in (1, 2, 0):
        fleet.client.post(f"/api/nodes/n{index}/disable")
        refused(index, lambda: fleet.bind(device, "p"))
        fleet.client.post(f"/api/nodes/n{index}/enable")
        fleet.fleet.controller.until(f"n{index}", link_state="live", in_sync=True)
    fleet.client.post("/api/nodes/n3/disable")
    fleet.bind(device, "p")
    assert fleet.client.get(f"/api/devices/{device}/bind")["phase"] == "settled", "that of the old way alone may be"
    fleet.client.post("/api/nodes/n3/enable")


def test_no_path_is_built_over_a_node_that_is_disabled(fleet: CascadeFleet) -> None:
    """Nor set up again. A fallback may be: nobody waits for it."""
    before = fleet.client.get("/api/operations")
    for index in (0, 1, 2):
        fleet.client.post(f"/api/nodes/n{index}/disable")
        for place in ("/api/paths", "/api/paths/plan"):
            with pytest.raises(RemoteError, match=f"node n{index}: is disabled") as caught:
                fleet.client.post(place, {"name": "p", "node_ids": ["n0", "n1", "n2"]})
            assert caught.value.status == 409 and "cox nodes start" in caught.value.remedy
        fleet.client.post(f"/api/nodes/n{index}/enable")
        fleet.fleet.controller.until(f"n{index}", link_state="live", in_sync=True)
    assert fleet.client.get("/api/operations") == before and fleet.client.get("/api/paths") == []
    fleet.client.post("/api/nodes/n3/disable")
    fleet.client.post("/api/paths", {"name": "p", "node_ids": ["n0", "n1", "n2"], "fallback_ids": ["n3"]})
    fleet.client.post("/api/paths/p/provision", {})
    before = fleet.client.get("/api/operations")
    fleet.client.post("/api/nodes/n1/disable")
    with pytest.raises(RemoteError, match="node n1: is disabled"):
        fleet.client.post("/api/paths/p/provision", {})
    assert fleet.client.get("/api/operations") == before, "nothing was begun"
    for name in ("n1", "n3"):
        fleet.client.post(f"/api/nodes/{name}/enable")


@pytest.mark.parametrize("hops", [(0, 1), (0, 1, 2)])
def test_a_device_is_taken_off_a_path_whose_entry_is_dead_and_disabled(fleet: CascadeFleet, hops: tuple[int, ...]) -> None:
    """At once, and the entry is told when it returns."""
    device, stays = fleet.device(0), fleet.device(0)
    fleet.path("p", *hops)
    for each in (device, stays):
        fleet.bind(each, "p")
    fleet.fleet.nodes.do("kill", node=0)
    fleet.client.post("/api/nodes/n0/disable")
    plan = fleet.client.post(f"/api/devices/{device}/bind/plan", {})
    assert any("n0 is disabled, and is told of it" in note and "than to n1" in note for note in plan["notes"])
    fleet.unbind(device, patience=1)
    binding = fleet.client.get(f"/api/devices/{device}/bind")
    assert (binding["path_id"], binding["phase"]) == ("", "settled")
    operation = fleet.client.get("/api/operations?kind=path.switch&limit=1")[0]
    assert (operation["target_id"], operation["state"]) == (device, "done")
    address = fleet.addresses[device]
    eventually(
        lambda: not any(address in ips for index in hops[1:] for _, ips in fleet.network()[index]["peers"]), every=0.1
    )
    fleet.fleet.nodes.do("start", node=0)
    assert not fleet.node(0)["enabled"]
    fleet.client.post("/api/nodes/n0/enable")
    fleet.until_follows(device, 0)
    assert fleet.follow(stays, 0) == hops, "and nobody else"


def test_what_was_begun_is_taken_back_when_the_node_where_it_parts_is_disabled(fleet: CascadeFleet) -> None:
    """It vanished in the middle, and is given up: nobody is between two paths for that."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 3)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("stall", node=0, method="SetNetworkConfig")
    started = fleet.bind(device, "q", wait=False, patience=2)
    eventually(lambda: fleet.client.get(f"/api/devices/{device}/bind")["phase"] == "moved", timeout=30, every=0.05)
    fleet.fleet.nodes.do("kill", node=0)
    fleet.client.post("/api/nodes/n0/disable")
    eventually(lambda: fleet.client.get(f"/api/operations/{started['id']}")["state"] == "undone", timeout=30, every=0.1)
    fleet.unbind(device, patience=1)
    fleet.client.call("DELETE", "/api/paths/p")
    fleet.client.call("DELETE", "/api/paths/q")
    fleet.fleet.nodes.do("clear", node=0)
    fleet.fleet.nodes.do("start", node=0)
    fleet.client.post("/api/nodes/n0/enable")
    fleet.until_follows(device, 0)
    eventually(lambda: not fleet.network()[0]["links"], timeout=30, every=0.1)


def test_a_device_with_nothing_but_xray_is_refused_and_told_why(fleet: CascadeFleet) -> None:
    body = {
        "users": [{"id": "usr_test", "name": "Test"}],
        "devices": [{"id": "dev_x", "user_id": "usr_test", "name": "x"}],
        "add": [
            {
                "id": "peer_x",
                "node_id": fleet.fleet.ids[0],
                "device_id": "dev_x",
                "protocol": "xray-reality",
                "public_key": "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55",
                "allowed_ips": ["10.86.9.9/32"],
            }
        ],
        "remove": [],
    }
    fleet.client.post("/api/peers", body)
    fleet.path("p", 0, 1)
    with pytest.raises(RemoteError, match="only XRay") as caught:
        fleet.bind("dev_x", "p")
    assert caught.value.status == 409


def test_of_a_device_with_both_it_is_said_that_its_xray_leaves_at_the_entry(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    xray = {
        "id": "peer_both",
        "node_id": fleet.fleet.ids[0],
        "device_id": device,
        "protocol": "xray-reality",
        "public_key": "5d1f0f52-0b7e-4a0a-9c94-6a3a6f6f2b11",
        "allowed_ips": ["10.86.9.10/32"],
    }
    fleet.client.post("/api/peers", {"users": [], "devices": [], "add": [xray], "remove": []})
    fleet.path("p", 0, 1)
    path_id = fleet.client.get("/api/paths/p")["id"]
    plan = fleet.client.post(f"/api/devices/{device}/bind/plan", {"path_id": path_id})
    assert any("by XRay is proxied on n0" in note for note in plan["notes"])
    fleet.bind(device, "p")
    assert fleet.client.get("/api/paths/p")["problems"] == [
        f"{device}: its XRay traffic is proxied at the entry and leaves there"
    ]
    assert fleet.follow(device, 0) == (0, 1)
    fleet.bind(fleet.device(0), "p")
    assert len(fleet.client.get("/api/paths/p")["problems"]) == 1


def test_a_device_whose_address_changes_or_goes_is_followed_on_every_node(fleet: CascadeFleet) -> None:
    """Deleting a device neither raised revisions nor pushed; its traffic went on (fleet-model.md 12, 9)."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    key = next(k for k, ips in fleet.network()[0]["peers"] if fleet.addresses[device] in ips)
    fleet.client.post(
        "/api/peers",
        {"users": [], "devices": [], "add": [], "remove": [{"node_id": fleet.fleet.ids[0], "public_key": key}]},
    )

    def gone() -> bool:
        return not any(fleet.addresses[device] in ips for node in fleet.network() for _, ips in node["peers"])

    eventually(gone, every=0.1)
    eventually(lambda: not any(node["policy"]["transits"] for node in fleet.network()), every=0.1)
    assert "no AmneziaWG address" in fleet.client.get("/api/paths/p")["problems"][0]


# -- taking down


def test_a_path_in_use_stays_and_so_do_its_nodes(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    for place in ("/api/paths/p", "/api/nodes/n1", "/api/nodes/n0"):
        with pytest.raises(RemoteError) as caught:
            fleet.client.call("DELETE", place)
        assert caught.value.status == 409
    assert fleet.follow(device, 0) == (0, 1)


def test_a_revoked_device_is_in_nobodys_way(fleet: CascadeFleet) -> None:
    """No file can speak of it, so nothing that it once had may be in the way of one."""
    bound = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(bound, "p")
    user = fleet.client.post("/api/users", {"name": "Ann"})
    served = fleet.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})["id"]
    path_id = fleet.client.get("/api/paths/p")["id"]
    fleet.client.post("/api/profiles", {"device_id": served, "name": "away", "path_id": path_id})
    for device in (bound, served):
        fleet.client.post(f"/api/devices/{device}/revoke")
    view = fleet.client.get("/api/paths/p")
    assert (view["devices"], view["profiles"], view["problems"]) == (0, 0, [])
    assert fleet.client.get("/api/profiles") == []
    with pytest.raises(RemoteError) as caught:
        fleet.client.post(f"/api/devices/{bound}/bind", {"path_id": path_id})
    assert caught.value.status in {409, 502}, str(caught.value)
    fleet.client.call("DELETE", "/api/paths/p")


def test_a_path_that_is_removed_leaves_nothing_on_any_node(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    fleet.unbind(device)
    fleet.client.call("DELETE", "/api/paths/p")
    eventually(lambda: not any(node["links"] for node in fleet.network()), every=0.1)
    assert fleet.client.get("/api/node-links") == []
    assert not any(key == fleet.node(0)["wg_public_key"] for key, _ in fleet.network()[1]["peers"])


# -- half of it missing


def test_what_was_taken_from_a_node_is_brought_back(fleet: CascadeFleet) -> None:
    """An edge peer that somebody removed by hand; a push of the whole node afterwards keeps it."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("drop_peer", node=1, peer=fleet.node(0)["wg_public_key"])
    assert fleet.follow(device, 0) == DROPPED
    fleet.client.post("/api/nodes/n1/look")
    fleet.until_follows(device, 0, 1, 2)
    outcome = fleet.client.post("/api/nodes/n1/push")
    assert outcome["CascadeReapplied"]
    assert fleet.follow(device, 0) == (0, 1, 2)
    fleet.client.post("/api/nodes/n0/push-policy")
    assert fleet.follow(device, 0) == (0, 1, 2)


def test_nodes_that_restart_or_reboot_have_it_all_again(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    before = fleet.network()[0]["links"]["awg1"]["revision"]
    for how in ("restart", "reboot"):
        for index in (0, 1, 2):
            fleet.fleet.nodes.do(how, node=index)
        fleet.until_follows(device, 0, 1, 2)
        fleet.fleet.controller.all_in_sync(NODES)
        assert fleet.follow(device, 0) == (0, 1, 2)
    assert fleet.network()[0]["links"]["awg1"]["revision"] > before


def test_an_exit_that_was_set_up_anew_is_adopted(fleet: CascadeFleet) -> None:
    """Its key and obfuscation are others: the link to it is made anew beside the old one, and then takes its place."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    old = fleet.network()[1]["links"]
    assert list(old) == ["awg1"]
    fleet.fleet.nodes.do("anew", node=2)
    fleet.until_follows(device, 0, 1, 2)

    def in_place() -> bool:
        links = fleet.network()[1]["links"]
        return list(links) == ["awg2"] and links["awg2"]["obfuscation"] != old["awg1"]["obfuscation"]

    eventually(in_place, every=0.1)
    assert fleet.network()[1]["policy"]["transits"][0]["mark"] == 7101


def test_a_node_that_has_seen_higher_revisions_is_caught_up_with(fleet: CascadeFleet) -> None:
    """As after a database was restored (fleet-model.md 12, 11): in leaps that grow with each that it refuses."""
    fleet.fleet.nodes.do("fail", node=0, method="ConfigureInnerLink", code="FAILED_PRECONDITION", times=3)
    before = time.time()
    path = fleet.path("p", 0, 1)
    assert path["status"] == "active"
    revision = fleet.network()[0]["links"]["awg1"]["revision"]
    assert revision > before + 1024**2 + 1024**3


def test_a_link_that_fails_keeps_no_peer_from_the_node(fleet: CascadeFleet) -> None:
    fleet.fleet.nodes.do("fail", node=0, method="ConfigureInnerLink", code="INTERNAL", times=10_000)
    fleet.client.begin("/api/paths?patience=3", {"name": "p", "node_ids": ["n0", "n1"]})
    fleet.fleet.controller.until("n0", link_state="degraded", link_reason=lambda r: "ConfigureInnerLink" in r)
    device = fleet.device(0)
    eventually(lambda: any(fleet.addresses[device] in ips for _, ips in fleet.network()[0]["peers"]), every=0.1)


# -- the policy


def test_a_policy_is_in_force_from_the_start_and_follows_the_inventory(fleet: CascadeFleet) -> None:
    assert fleet.network()[4]["policy"]["masquerade"]
    view = fleet.node(4)
    body = {"version": view["version"], "forwarding": True, "masquerade": False, "isolation": True}
    fleet.client.call("PATCH", "/api/nodes/n4", body)
    eventually(lambda: fleet.network()[4]["policy"]["isolation"], every=0.1)
    view = fleet.node(4)
    body = {"version": view["version"], "forwarding": True, "masquerade": True, "isolation": False}
    fleet.client.call("PATCH", "/api/nodes/n4", body)
    eventually(lambda: fleet.network()[4]["policy"]["masquerade"], every=0.1)


def test_the_preview_has_the_exact_commands(fleet: CascadeFleet) -> None:
    preview = "/api/network-policy/preview"
    assert fleet.client.post(preview, {}) == {"pre_up": [], "post_up": [], "post_down": []}
    rules = fleet.client.post(preview, {"forwarding": True, "masquerade": True, "isolation": True})
    assert rules["post_up"][0] == "iptables -I FORWARD 1 -i %i -o %i -j DROP"
    assert len(rules["post_up"]) == len(rules["post_down"])
    with pytest.raises(RemoteError, match="masquerade"):
        fleet.client.post(preview, {"masquerade": True})
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    rules = fleet.client.post(preview, {"node": "n0"})
    assert rules["post_up"][-1] == "ip route replace default dev awg1 table 7100"
    ran = fleet.fleet.nodes.do("commands", node=0)["commands"]
    wanted = [line.replace("%i", "awg0").replace("%e", "eth0") for line in rules["post_up"]]
    assert [line for line in ran if line in wanted][-len(wanted) :] == wanted


# -- health


def test_how_a_link_is_shows_at_both_of_its_ends(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1)

    def health() -> str:
        fleet.client.post("/api/nodes/n1/look")
        return str(fleet.client.get("/api/node-links")[0]["health"])

    assert health() == "idle", "its exit has no peer to look at as long as nobody uses the link"
    fleet.bind(device, "p")
    eventually(lambda: health() == "idle", every=0.2)
    edge = fleet.node(0)["wg_public_key"]
    fleet.fleet.nodes.do("inject", node=1, peer=edge, handshake=int(time.time()))
    eventually(lambda: health() == "up", every=0.2)
    assert fleet.client.get("/api/paths/p")["links"][0]["last_handshake"]


def test_links_between_simulated_nodes_are_as_they_would_be_in_life(fleet: CascadeFleet) -> None:
    """Whoever plays with ``tools/demo`` sees a path that somebody uses carry, and one whose link is gone not."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")

    def health() -> list[str]:
        for node in ("n0", "n1", "n2"):
            fleet.client.post(f"/api/nodes/{node}/look")
        return [link["health"] for link in fleet.client.get("/api/paths/p")["links"]]

    eventually(lambda: health() == ["idle", "idle"], every=0.2)
    key = fleet.bodies[device]["add"][0]["public_key"]
    fleet.fleet.nodes.do("inject", node=0, connect=[key])
    eventually(lambda: health() == ["up", "up"], every=0.2)
    dialler = fleet.node(1)["wg_public_key"]

    def shakes_hands() -> bool:
        return any(p["connected"] and p["public_key"] == dialler for p in fleet.fleet.nodes.do("peers", node=2)["peers"])

    assert shakes_hands()
    fleet.fleet.nodes.do("link_down", node=1, interface="awg1")
    fleet.client.post("/api/nodes/n2/look")
    assert not shakes_hands()
    fleet.fleet.nodes.do("inject", node=0, disconnect=[key])


# -- what is said about it


def test_everything_leaves_a_record_with_the_names_of_the_contract(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    fleet.unbind(device)
    fleet.client.post("/api/paths/p/provision")
    fleet.client.call("DELETE", "/api/paths/p")
    actions = [entry["action"] for entry in fleet.client.get("/api/audit?limit=40")]
    for action in ("path.create", "path.bind", "path.unbind", "path.rm"):
        assert action in actions
    assert any("path.provision" in str(entry) for entry in fleet.client.get("/api/audit?limit=40"))


def test_no_preshared_key_is_in_any_answer(fleet: CascadeFleet) -> None:
    fleet.path("p", 0, 1)
    with fleet.fleet.controller.store.read() as tx:
        [(psk,)] = tx.execute("SELECT preshared_key FROM node_links")
    assert len(base64.b64decode(psk)) == 32
    for place in ("/api/paths", "/api/node-links", "/api/operations", "/api/audit", "/api/nodes/n0/plan"):
        assert psk not in str(fleet.client.get(place))


# -- profiles that name a path


def test_a_profile_of_a_path_is_on_it_from_the_start_without_being_bound(fleet: CascadeFleet) -> None:
    path = fleet.path("p", 0, 1, 2)
    user = fleet.client.post("/api/users", {"name": "Anna"})
    device = fleet.client.post(f"/api/users/{user['id']}/devices", {"name": "phone"})
    body = {"device_id": device["id"], "name": "far", "path_id": path["id"], "protocol": "amneziawg"}
    profile = fleet.client.post("/api/profiles", body)

    def edges(index: int) -> list[list[str]]:
        before = fleet.node(index - 1)["wg_public_key"]
        return [ips for key, ips in fleet.network()[index]["peers"] if key == before]

    eventually(lambda: edges(1) == edges(2) != [], every=0.1)
    [[address]] = edges(1)
    fleet.addresses[device["id"]] = address
    fleet.until_follows(device["id"], 0, 1, 2)
    assert fleet.client.get("/api/bindings") == []
    found = fleet.client.get("/api/paths/p")
    assert (found["devices"], found["profiles"], found["problems"]) == (0, 1, [])
    with pytest.raises(RemoteError, match="goes over p already, by its profile far"):
        fleet.bind(device["id"], "p")
    with pytest.raises(RemoteError, match="1 profile over it") as caught:
        fleet.client.call("DELETE", "/api/paths/p")
    assert caught.value.status == 409
    fleet.client.post(f"/api/devices/{device['id']}/suspend")
    eventually(lambda: edges(1) == edges(2) == [], every=0.1)
    fleet.client.post(f"/api/devices/{device['id']}/resume")
    fleet.until_follows(device["id"], 0, 1, 2)
    fleet.client.call("DELETE", f"/api/profiles/{profile['id']}")
    eventually(lambda: edges(1) == edges(2) == [], every=0.1)


# -- parts of the controller that fall


def test_actors_that_fall_in_the_middle_of_a_switch_cost_nobody_a_route(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 3, 4)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("delay", node="all", method="PushConfig", seconds=0.5)
    fleet.fleet.nodes.do("delay", node="all", method="SetNetworkConfig", seconds=0.5)
    operation = fleet.bind(device, "q", wait=False, patience=30)
    system = fleet.fleet.controller.system
    for name in ("fleet", fleet.fleet.link(0), fleet.fleet.link(4), "operations", "fleet", fleet.fleet.link(3)):
        system.harm(name, Harm.RAISE)
        for _ in range(3):
            assert fleet.follow(device, 0) in {(0, 1, 2), (0, 3, 4)}

    def over() -> bool:
        return bool(fleet.client.get(f"/api/operations/{operation['id']}")["state"] in ("done", "undone", "failed"))

    eventually(over, timeout=60, every=0.2)
    fleet.fleet.nodes.do("clear", node="all")
    assert fleet.client.get(f"/api/operations/{operation['id']}")["state"] == "done"
    assert fleet.follow(device, 0) == (0, 3, 4)
