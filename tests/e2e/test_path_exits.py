"""Exits that fail, over real links to simulated nodes: everybody on the path goes along, by the live switch, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from tests.cascade import DROPPED, CascadeFleet, cascade_fleet
from tests.support import eventually

NODES = 5
BASE_PORT = 13_360
BACK_AFTER_S = 8
HASTY = {
    "COX_FLEET__FAILOVER__AFTER_SECONDS": "5",
    "COX_FLEET__FAILOVER__BACK_AFTER_SECONDS": str(BACK_AFTER_S),
    "COX_FLEET__RECONCILE_INTERVAL": "2",
    "COX_ANALYTICS__INTERVAL_SECONDS": "1",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CascadeFleet]:
    home = tmp_path_factory.mktemp("exits")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in HASTY.items():
            environment.setenv(name, value)
        with cascade_fleet(home, NODES, BASE_PORT, process=True) as running:
            yield running


@pytest.fixture
def fleet(shared: CascadeFleet) -> Iterator[CascadeFleet]:
    shared.fleet.controller.all_in_sync(NODES)
    yield shared
    shared.tidy_up()


def with_fallbacks(fleet: CascadeFleet, name: str, nodes: tuple[int, ...], *fallbacks: int) -> dict[str, Any]:
    body = {"name": name, "node_ids": [f"n{i}" for i in nodes], "fallback_ids": [f"n{i}" for i in fallbacks]}
    path: dict[str, Any] = fleet.client.post("/api/paths", body)
    return path


def leaves_at(fleet: CascadeFleet, name: str) -> str:
    """The name of the node; with a mark while it is on its way."""
    here = fleet.client.get(f"/api/paths/{name}")["exit"]
    return str(here["node"]) + ("" if here["phase"] == "settled" else "…")


def until_it_leaves_at(fleet: CascadeFleet, name: str, node: str, timeout: float = 60.0) -> None:
    eventually(lambda: leaves_at(fleet, name) == node, timeout=timeout, every=0.1)


def records(fleet: CascadeFleet, action: str) -> list[dict[str, Any]]:
    """About the path ``p`` that is there now, newest first."""
    path_id = fleet.client.get("/api/paths/p")["id"]
    return [e for e in fleet.client.get("/api/audit?limit=60") if (e["action"], e["target_id"]) == (action, path_id)]


def nothing_left_at(fleet: CascadeFleet, index: int, *devices: str) -> bool:
    peers = fleet.network()[index]["peers"]
    return not any(fleet.addresses[device] in ips for device in devices for _, ips in peers)


def told(fleet: CascadeFleet) -> list[str]:
    """How bad the open alerts about exits are."""
    return [a["severity"] for a in fleet.client.get("/api/alerts?kind=exit_failover&status=open")["alerts"]]


# -- an operator's word


def test_links_to_fallbacks_stand_ready_and_the_operator_may_use_them(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    path = with_fallbacks(fleet, "p", (0, 1, 2), 3)
    assert path["fallback_nodes"] == ["n3"] and path["exit"]["node"] == "n2"
    fleet.bind(device, "p")
    eventually(lambda: list(fleet.network()[1]["links"]) == ["awg1", "awg2"], timeout=20, every=0.1)
    assert fleet.follow(device, 0) == (0, 1, 2)

    policy = {"version": fleet.node(3)["version"], "masquerade": False}
    version = fleet.client.call("PATCH", "/api/nodes/n3", policy)["version"]
    moved = fleet.client.post("/api/paths/p/exit", {"node": "n3"})
    (operation,) = fleet.client.get("/api/operations?kind=path.exit&limit=1")
    said = fleet.client.get(f"/api/operations/{operation['id']}")["steps"][0]["output"]
    assert "! n3: masquerading is off" in said, "as the plan of a path says it"
    fleet.client.call("PATCH", "/api/nodes/n3", {"version": version, "masquerade": True})
    assert (moved["exit"]["node"], moved["exit"]["fallback"], moved["exit"]["automatic"]) == ("n3", True, False)
    assert fleet.follow(device, 0) == (0, 1, 3)
    eventually(lambda: nothing_left_at(fleet, 2, device), timeout=20, every=0.1)
    assert fleet.client.get("/api/devices/" + device + "/bind")["path_id"] == path["id"]

    again = fleet.client.post("/api/paths/p/exit", {"node": "n3"})
    assert again["exit"] == moved["exit"], "and nothing was started"
    home = fleet.client.post("/api/paths/p/exit", {})
    assert not home["exit"]["fallback"]
    assert fleet.follow(device, 0) == (0, 1, 2)
    eventually(lambda: nothing_left_at(fleet, 3, device), timeout=20, every=0.1)
    assert [e["result"] for e in records(fleet, "path.failback")] == ["ok"]
    assert {e["result"] for e in records(fleet, "path.failover")} == {"ok"}


def test_what_is_no_exit_is_refused_and_what_carries_is_not_taken_away(fleet: CascadeFleet) -> None:
    path = with_fallbacks(fleet, "p", (0, 1), 3)
    for wrong, status in (("n4", 400), ("n0", 400), ("nobody", 404)):
        with pytest.raises(RemoteError) as caught:
            fleet.client.post("/api/paths/p/exit", {"node": wrong})
        assert caught.value.status == status
    for fallbacks in (["n0"], ["n1"], ["n3", "n3"]):
        with pytest.raises(RemoteError, match="fallback_ids") as caught:
            fleet.client.call("PATCH", "/api/paths/p", {"version": path["version"], "fallback_ids": fallbacks})
        assert caught.value.status == 400
    fleet.client.post("/api/paths/p/exit", {"node": "n3"})
    with pytest.raises(RemoteError, match="leaves at n3 just now") as caught:
        fleet.client.call("PATCH", "/api/paths/p", {"version": path["version"], "fallback_ids": []})
    assert caught.value.status == 409
    with pytest.raises(RemoteError, match="p leads over it") as caught:
        fleet.client.call("DELETE", f"/api/nodes/n3?version={fleet.node(3)['version']}")
    assert caught.value.status == 409
    fleet.client.post("/api/paths/p/exit", {"node": "n1"})
    changed = fleet.client.call("PATCH", "/api/paths/p", {"version": path["version"], "fallback_ids": ["n4", "n2"]})
    assert changed["fallback_nodes"] == ["n4", "n2"]
    assert len(fleet.client.get("/api/node-links")) == 3
    eventually(lambda: len(fleet.network()[0]["links"]) == 3, timeout=20, every=0.1)


def test_a_path_is_not_led_to_an_exit_that_is_disabled(fleet: CascadeFleet) -> None:
    with_fallbacks(fleet, "p", (0, 1), 3)
    fleet.client.post("/api/nodes/n3/disable")
    with pytest.raises(RemoteError, match="node n3: is disabled") as caught:
        fleet.client.post("/api/paths/p/exit", {"node": "n3"})
    assert caught.value.status == 409 and "cox nodes enable n3" in caught.value.remedy
    fleet.client.post("/api/nodes/n3/enable")
    fleet.fleet.controller.until("n3", link_state="live", in_sync=True)
    fleet.client.post("/api/paths/p/exit", {"node": "n3"})


def test_a_device_moves_from_where_the_path_leaves_now(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    fleet.path("q", 0, 4)
    fleet.bind(device, "p")
    fleet.client.post("/api/paths/p/exit", {"node": "n3"})
    fleet.bind(device, "q")
    assert fleet.follow(device, 0) == (0, 4)
    eventually(lambda: nothing_left_at(fleet, 3, device), timeout=20, every=0.1)
    fleet.bind(device, "p")
    assert fleet.follow(device, 0) == (0, 1, 3)


# -- the exit is gone


def test_an_exit_that_is_gone_is_left_and_used_again_when_it_is_well(fleet: CascadeFleet) -> None:
    one, two = fleet.device(0), fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    with_fallbacks(fleet, "other", (0, 1, 4), 3)
    fleet.bind(one, "p")
    fleet.bind(two, "other")
    eventually(lambda: len(fleet.network()[1]["links"]) == 3, timeout=20, every=0.1)
    fleet.fleet.nodes.do("kill", node=2)
    until_it_leaves_at(fleet, "p", "n3")
    network = fleet.network()
    assert fleet.follow(one, 0, network) == (0, 1, 3)
    assert fleet.follow(two, 0, network) == (0, 1, 4), "what has nothing to do with it stays"
    assert [t["inner_interface"] for t in network[0]["policy"]["transits"]] == ["awg1", "awg1"]
    by_device = {t["device_cidr"]: t["inner_interface"] for t in network[1]["policy"]["transits"]}
    assert len(by_device) == 2 and by_device[fleet.addresses[one]] != by_device[fleet.addresses[two]]
    here = fleet.client.get("/api/paths/p")["exit"]
    assert here["automatic"] and here["reason"] == "n2 is unreachable"
    assert fleet.client.get("/api/paths/p")["status"] == "active", "what carries is well"

    (begun,) = records(fleet, "path.failover")
    assert (begun["actor"], begun["actor_kind"], begun["result"]) == ("controller", "system", "ok")
    eventually(lambda: told(fleet) == ["warning"], timeout=60, every=0.2)

    fleet.fleet.nodes.do("start", node=2)
    until_it_leaves_at(fleet, "p", "n2")
    assert fleet.follow(one, 0) == (0, 1, 2)
    eventually(lambda: nothing_left_at(fleet, 3, one, two), timeout=20, every=0.1)
    (home,) = records(fleet, "path.failback")
    assert (home["actor"], home["result"]) == ("controller", "ok")
    eventually(lambda: not told(fleet), timeout=60, every=0.2)


def test_where_nobody_is_fit_nothing_moves_and_it_is_told(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("kill", node=[2, 3])
    eventually(lambda: told(fleet) == ["critical"], timeout=60, every=0.2)
    assert leaves_at(fleet, "p") == "n2"
    assert fleet.follow(device, 0)[:2] == (0, 1)
    path_id = fleet.client.get("/api/paths/p")["id"]
    assert not [o for o in fleet.client.get("/api/operations") if (o["kind"], o["target_id"]) == ("path.exit", path_id)]
    fleet.fleet.nodes.do("start", node=3)
    until_it_leaves_at(fleet, "p", "n3")
    assert fleet.follow(device, 0) == (0, 1, 3)


def test_a_fallback_that_does_not_take_it_over_leaves_it_where_it_was(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("stall", node=3, method="PushConfig")
    with pytest.raises(RemoteError, match="n3") as caught:
        fleet.client.post("/api/paths/p/exit?patience=2", {"node": "n3"})
    assert caught.value.status == 502 and "taken back" in str(caught.value)
    assert leaves_at(fleet, "p") == "n2" and fleet.follow(device, 0) == (0, 1, 2)
    fleet.fleet.nodes.do("release", node=3)
    eventually(lambda: nothing_left_at(fleet, 3, device), timeout=20, every=0.1)
    assert [e["result"] for e in records(fleet, "path.failover")][:1] == ["error"]


def test_a_move_that_was_taken_back_keeps_nobody_on_an_exit_that_is_gone(fleet: CascadeFleet) -> None:
    """An operator tried the one fallback by hand; the other is fit."""
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3, 4)
    fleet.bind(device, "p")
    eventually(lambda: len(fleet.network()[1]["links"]) == 3, timeout=20, every=0.1)
    fleet.fleet.nodes.do("stall", node=3, method="PushConfig")
    fleet.fleet.nodes.do("kill", node=2)
    with pytest.raises(RemoteError, match="n3"):
        fleet.client.post("/api/paths/p/exit?patience=1", {"node": "n3"})
    until_it_leaves_at(fleet, "p", "n4")
    assert fleet.follow(device, 0) == (0, 1, 4)


def test_what_is_taken_back_waits_for_no_node_of_the_new_way(fleet: CascadeFleet) -> None:
    """The fallback dies while the path goes over to it, and the node before both does not answer just then."""
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    fleet.bind(device, "p")
    eventually(lambda: list(fleet.network()[1]["links"]) == ["awg1", "awg2"], timeout=20, every=0.1)
    fleet.fleet.controller.all_in_sync(NODES)
    fleet.fleet.nodes.do("stall", node=1, method="SetNetworkConfig")
    started = fleet.client.begin("/api/paths/p/exit?patience=5", {"node": "n3"})

    def phase() -> str:
        return str(fleet.client.get("/api/paths/p")["exit"]["phase"])

    eventually(lambda: phase() == "moved", timeout=30, every=0.05)
    fleet.fleet.nodes.do("kill", node=3)
    eventually(lambda: phase() == "preparing", timeout=30, every=0.05)
    fleet.fleet.nodes.do("release", node=1)
    eventually(lambda: phase() == "settled", timeout=30, every=0.1)
    eventually(lambda: fleet.client.get(f"/api/operations/{started['id']}")["state"] == "undone", timeout=30, every=0.1)
    assert leaves_at(fleet, "p") == "n2"
    fleet.until_follows(device, 0, 1, 2)


# -- the controller falls in the middle

HELD = {"prepare": (3, "PushConfig"), "move": (1, "SetNetworkConfig"), "settle": (2, "PushConfig")}


@pytest.mark.parametrize("step", HELD)
def test_a_controller_that_falls_while_an_exit_changes_carries_it_out(fleet: CascadeFleet, step: str) -> None:
    device = fleet.device(0)
    with_fallbacks(fleet, "p", (0, 1, 2), 3)
    fleet.bind(device, "p")
    eventually(lambda: list(fleet.network()[1]["links"]) == ["awg1", "awg2"], timeout=20, every=0.1)
    fleet.fleet.controller.all_in_sync(NODES)
    node, method = HELD[step]
    fleet.fleet.nodes.do("stall", node=node, method=method)
    started = fleet.client.begin("/api/paths/p/exit", {"node": "n3"})
    at = {"prepare": "preparing", "move": "moved", "settle": "settled"}[step]

    def reached() -> bool:
        here = fleet.client.get("/api/paths/p")["exit"]
        return bool(here["phase"] == at and (step != "settle" or here["fallback"]))

    eventually(reached, timeout=30, every=0.05)
    assert fleet.follow(device, 0) in ((0, 1, 2), (0, 1, 3))
    fleet.fall()
    assert fleet.follow_unwatched(device, 0) != DROPPED and len(fleet.follow_unwatched(device, 0)) == 3
    fleet.fleet.nodes.do("release", node=node)
    fleet.rise()
    eventually(lambda: fleet.client.get(f"/api/operations/{started['id']}")["state"] == "done", timeout=60, every=0.1)
    assert leaves_at(fleet, "p") == "n3"
    fleet.until_follows(device, 0, 1, 3)
    eventually(lambda: nothing_left_at(fleet, 2, device), timeout=30, every=0.1)
