"""Path changes against nodes that fail and a controller that is killed: carried out or taken back, and it is told which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from tests.cascade import DROPPED, CascadeFleet, cascade_fleet
from tests.support import eventually

NODES = 5
BASE_PORT = 13_320

OVER = ("done", "failed", "undone", "cancelled")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CascadeFleet]:
    with cascade_fleet(tmp_path_factory.mktemp("paths"), NODES, BASE_PORT, process=True) as running:
        yield running


@pytest.fixture
def fleet(shared: CascadeFleet) -> Iterator[CascadeFleet]:
    shared.fleet.controller.all_in_sync(NODES)
    yield shared
    shared.tidy_up()


def bound(fleet: CascadeFleet) -> str:
    """A device on 0→1→2, with 0→3→4 to go to."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 3, 4)
    fleet.bind(device, "p")
    return device


def operation(fleet: CascadeFleet, started: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = fleet.client.get(f"/api/operations/{started['id']}")
    return found


def step_of(fleet: CascadeFleet, started: dict[str, Any], name: str) -> str:
    """The state of a step."""
    return {str(step["name"]): str(step["state"]) for step in operation(fleet, started)["steps"]}[name]


def until_over(fleet: CascadeFleet, started: dict[str, Any]) -> dict[str, Any]:
    eventually(lambda: operation(fleet, started)["state"] in OVER, timeout=60, every=0.1)
    return operation(fleet, started)


def retried(fleet: CascadeFleet, started: dict[str, Any], index: int) -> None:
    """When a node is there again, and does what it is told."""
    fleet.fleet.nodes.do("clear", node=index)
    fleet.fleet.nodes.do("start", node=index)
    fleet.fleet.controller.until(f"n{index}", link_state="live", in_sync=True)
    fleet.client.post(f"/api/operations/{started['id']}/retry")
    eventually(lambda: operation(fleet, started)["state"] in ("undone", "done"), timeout=60, every=0.1)


def nothing_left_of_q(fleet: CascadeFleet, device: str) -> bool:
    address = fleet.addresses[device]
    network = fleet.network()
    edges = any(address in ips for index in (3, 4) for _, ips in network[index]["peers"])
    return not edges and not network[3]["policy"]["transits"]


# -- nodes that fail


def test_the_old_path_is_not_cut_when_the_new_one_cannot_be_made_ready(fleet: CascadeFleet) -> None:
    device = bound(fleet)
    fleet.fleet.nodes.do("kill", node=4)
    fleet.fleet.controller.until("n4", link_state="backing_off")
    with pytest.raises(RemoteError, match="n4 is not connected") as caught:
        fleet.bind(device, "q", patience=2)
    assert caught.value.status == 502
    assert "taken back" in str(caught.value)
    assert fleet.follow(device, 0) == (0, 1, 2)
    assert fleet.client.get(f"/api/devices/{device}/bind")["phase"] == "settled"
    fleet.fleet.nodes.do("start", node=4)
    eventually(lambda: nothing_left_of_q(fleet, device), every=0.1)
    failed = [e for e in fleet.client.get("/api/audit?limit=20") if e["action"] == "path.bind" and e["result"] == "error"]
    assert {record["target_id"] for record in failed} == {device}


def test_a_move_that_the_entry_refuses_is_taken_back(fleet: CascadeFleet) -> None:
    device = bound(fleet)
    fleet.fleet.nodes.do("fail", node=0, method="SetNetworkConfig", code="INTERNAL", times=3)
    with pytest.raises(RemoteError, match="SetNetworkConfig") as caught:
        fleet.bind(device, "q", patience=1)
    assert caught.value.status == 502
    fleet.until_follows(device, 0, 1, 2)
    # Only when the entry is known to have the old rules; after each refusal it is given twice as long at most: 14 s in all.
    eventually(lambda: nothing_left_of_q(fleet, device), timeout=60, every=0.1)


def test_a_path_whose_exit_is_dead_can_be_left(fleet: CascadeFleet) -> None:
    """Nobody waits for nodes of the old path: they may be why it is left."""
    device = bound(fleet)
    fleet.fleet.nodes.do("kill", node=[1, 2])
    fleet.fleet.controller.until("n1", link_state="backing_off")
    fleet.bind(device, "q")
    assert fleet.follow(device, 0) == (0, 3, 4)
    fleet.fleet.nodes.do("start", node=[1, 2])
    address = fleet.addresses[device]

    def cleared() -> bool:
        return not any(address in ips for index in (1, 2) for _, ips in fleet.network()[index]["peers"])

    eventually(cleared, timeout=30, every=0.1)


def test_a_switch_can_be_cancelled_in_its_middle(fleet: CascadeFleet) -> None:
    device = bound(fleet)
    fleet.fleet.nodes.do("stall", node=4, method="PushConfig")
    started = fleet.bind(device, "q", wait=False)
    eventually(lambda: fleet.client.get(f"/api/devices/{device}/bind")["phase"] == "preparing", every=0.05)
    with pytest.raises(RemoteError) as caught:
        fleet.unbind(device)
    assert caught.value.status == 409
    fleet.client.post(f"/api/operations/{started['id']}/cancel")
    eventually(lambda: operation(fleet, started)["state"] == "cancelled", every=0.1)
    assert fleet.follow(device, 0) == (0, 1, 2)
    fleet.fleet.nodes.do("release", node=4)
    eventually(lambda: nothing_left_of_q(fleet, device), every=0.1)


def test_a_path_that_leads_over_a_node_that_is_away_says_so(fleet: CascadeFleet) -> None:
    """Its links are as they should be, as far as was acknowledged; who has its traffic on it should know all the same."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    assert fleet.client.get("/api/paths/p")["problems"] == []
    fleet.fleet.nodes.do("kill", node=2)
    eventually(lambda: fleet.client.get("/api/paths/p")["status"] == "error", timeout=60, every=0.2)
    (problem,) = fleet.client.get("/api/paths/p")["problems"]
    assert problem.startswith("n2 is unreachable: ")
    fleet.client.post("/api/nodes/n2/disable")
    found = fleet.client.get("/api/paths/p")
    assert (found["status"], found["problems"]) == ("active", ["n2 is disabled"])
    fleet.client.post("/api/nodes/n2/enable")
    fleet.fleet.nodes.do("start", node=2)
    eventually(lambda: not fleet.client.get("/api/paths/p")["problems"], timeout=30, every=0.2)
    assert fleet.client.get("/api/paths/p")["status"] == "active"


def test_a_device_that_is_stuck_between_two_paths_is_taken_off_both(fleet: CascadeFleet) -> None:
    """Where they cross, at a node that is gone for good: neither the way on nor the way back can be proven without it."""
    device, stays = fleet.device(0), fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 2, 1)
    for each in (device, stays):
        fleet.bind(each, "p")
    fleet.fleet.nodes.do("stall", node=2, method="SetNetworkConfig")
    started = fleet.bind(device, "q", wait=False, patience=1)
    eventually(lambda: fleet.client.get(f"/api/devices/{device}/bind")["phase"] == "turning", timeout=30, every=0.05)
    with pytest.raises(RemoteError, match="on its way") as caught:
        fleet.unbind(device)
    assert "Wait for that operation" in caught.value.remedy
    fleet.fleet.nodes.do("kill", node=2)
    assert until_over(fleet, started)["state"] == "failed"
    with pytest.raises(RemoteError, match="on its way") as caught:
        fleet.bind(device, "p")
    assert "cox paths unbind" in caught.value.remedy
    plan = fleet.client.post(f"/api/devices/{device}/bind/plan", {})
    assert "until n0, where it comes in, has been told" in plan["interrupts"]
    changes = [change for stage in plan["stages"] for change in stage["changes"]]
    address = fleet.addresses[device]
    assert f"n0: send {address} on no longer" in changes and f"n1: take {address} from n2 no longer" in changes
    fleet.unbind(device, patience=1)
    assert operation(fleet, started)["overtaken_by"]
    fleet.until_follows(device, 0)
    retried = fleet.client.get("/api/bindings")
    assert [binding["device_id"] for binding in retried] == [stays]
    fleet.fleet.nodes.do("clear", node=2)
    fleet.fleet.nodes.do("start", node=2)
    fleet.until_follows(stays, 0, 1, 2)
    eventually(lambda: not any(address in ips for n in (1, 2) for _, ips in fleet.network()[n]["peers"]), every=0.1)


def test_a_path_that_is_stuck_between_two_exits_can_be_left(fleet: CascadeFleet) -> None:
    """The node before both is gone, in the middle of the change. Who wants to get off is told how, before it is begun."""
    device = fleet.device(0)
    fleet.client.post("/api/paths", {"name": "p", "node_ids": ["n0", "n1", "n2"], "fallback_ids": ["n3"]})
    fleet.path("q", 0, 4)
    fleet.bind(device, "p")
    fleet.fleet.nodes.do("stall", node=1, method="SetNetworkConfig")
    started = fleet.client.begin("/api/paths/p/exit?patience=1", {"node": "n3"})
    eventually(lambda: fleet.client.get("/api/paths/p")["exit"]["phase"] == "moved", timeout=30, every=0.05)
    begun = fleet.client.get("/api/operations?kind=path.switch")

    def refused() -> str:
        with pytest.raises(RemoteError, match="path p: is on its way to another exit") as caught:
            fleet.bind(device, "q")
        assert caught.value.status == 409
        return caught.value.remedy

    assert "wait for the operation" in refused()
    fleet.fleet.nodes.do("kill", node=1)
    assert until_over(fleet, started)["state"] == "failed"
    assert "cox nodes disable n1" in refused()
    assert fleet.client.get("/api/operations?kind=path.switch") == begun, "nothing was begun"
    fleet.client.post("/api/nodes/n1/disable")
    fleet.client.post(f"/api/operations/{started['id']}/retry")
    eventually(lambda: operation(fleet, started)["state"] == "undone", timeout=30, every=0.1)
    fleet.bind(device, "q")
    assert fleet.follow(device, 0) == (0, 4)
    fleet.client.post("/api/nodes/n1/enable")


# -- the controller killed at every step

HELD = {
    "prepare": (4, "PushConfig"),
    "move": (0, "SetNetworkConfig"),
    "settle": (1, "PushConfig"),
}
"""Where a switch is held while the controller falls: the node and the call that is not answered."""


@pytest.mark.parametrize("step", list(HELD))
@pytest.mark.parametrize("comes_back", [True, False], ids=["and the node answers", "and the node is gone"])
def test_a_controller_that_falls_in_the_middle_of_a_switch(fleet: CascadeFleet, step: str, *, comes_back: bool) -> None:
    device = bound(fleet)
    index, method = HELD[step]
    fleet.fleet.nodes.do("stall", node=index, method=method)
    started = fleet.bind(device, "q", wait=False, patience=6)
    eventually(lambda: step_of(fleet, started, step) in ("running", "done"), every=0.05)
    fleet.fall()
    if comes_back:
        fleet.fleet.nodes.do("release", node=index)
    else:
        fleet.fleet.nodes.do("kill", node=index)
    fleet.rise()
    over = until_over(fleet, started)
    if comes_back or step == "settle":
        assert over["state"] == "done"
        fleet.until_follows(device, 0, 3, 4)
    elif step == "prepare":
        assert over["state"] == "undone"
        assert fleet.follow(device, 0) == (0, 1, 2)
    else:  # nobody can tell what the entry has, so that neither route is taken away
        assert over["state"] == "failed"
        assert over["remedy"] or over["error"]
        retried(fleet, started, index)
        fleet.until_follows(device, 0, 1, 2)
    if over["state"] != "failed":
        assert any("interrupted" in note for note in over["notes"]) or over["state"] == "done"


CROSSED = {"cross": (2, "PushConfig"), "turn": (2, "SetNetworkConfig")}
"""Of 0→1→2 to 0→2→1: nodes 1 and 2 cannot serve both. First their edge peers change over, then their transits."""


@pytest.mark.parametrize("step", list(CROSSED))
@pytest.mark.parametrize("comes_back", [True, False], ids=["and the node answers", "and the node is gone"])
def test_a_controller_that_falls_where_two_routes_cross(fleet: CascadeFleet, step: str, *, comes_back: bool) -> None:
    """Nothing gets through while two routes cross, and nothing leaves at the wrong place, whoever is dead meanwhile."""
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.path("q", 0, 2, 1)
    fleet.bind(device, "p")
    right = {(0, 1, 2), (0, 2, 1), DROPPED}
    index, method = CROSSED[step]
    fleet.fleet.nodes.do("stall", node=index, method=method)
    started = fleet.bind(device, "q", wait=False, patience=6)
    eventually(lambda: step_of(fleet, started, step) == "running", every=0.05)
    assert fleet.follow(device, 0) in right
    fleet.fall()
    assert fleet.follow_unwatched(device, 0) in right
    fleet.fleet.nodes.do("release" if comes_back else "kill", node=index)
    fleet.rise()
    over = until_over(fleet, started)
    assert any(f"interrupted in its step {step!r}" in note for note in over["notes"]), over["notes"]
    assert fleet.follow(device, 0) in right
    if comes_back:
        assert over["state"] == "done"
        fleet.until_follows(device, 0, 2, 1)
    else:  # node 2 is on both routes, so neither the way on nor the way back can be proven without it
        assert over["state"] == "failed"
        assert over["remedy"] or over["error"]
        retried(fleet, started, index)
        fleet.until_follows(device, 0, 1, 2)


@pytest.mark.parametrize("comes_back", [True, False], ids=["and the node answers", "and the node is gone"])
def test_a_controller_that_falls_while_a_path_is_built(fleet: CascadeFleet, *, comes_back: bool) -> None:
    fleet.fleet.nodes.do("stall", node=1, method="ConfigureInnerLink")
    body = {"name": "r", "node_ids": ["n0", "n1", "n2"]}
    started = fleet.client.begin("/api/paths?patience=6", body)
    eventually(lambda: fleet.network()[0]["links"], every=0.05)
    fleet.fall()
    fleet.fleet.nodes.do("release" if comes_back else "kill", node=1)
    fleet.rise()
    assert until_over(fleet, started)["state"] == ("done" if comes_back else "undone")
    assert [p["name"] for p in fleet.client.get("/api/paths")] == (["r"] if comes_back else [])
    if not comes_back:
        eventually(lambda: not fleet.network()[0]["links"], every=0.1)


def test_what_was_confirmed_outlives_the_controller(fleet: CascadeFleet) -> None:
    """A node that has everything is not told anything again when the controller starts."""
    device = bound(fleet)
    fleet.fleet.controller.all_in_sync(NODES)
    fleet.fall()
    before = fleet.changing_calls()
    fleet.rise()
    fleet.fleet.controller.all_in_sync(NODES)
    assert fleet.changing_calls() == before
    assert fleet.follow(device, 0) == (0, 1, 2)


def test_an_agent_that_restarted_while_nobody_watched_is_noticed(fleet: CascadeFleet) -> None:
    """Uptimes are whole seconds, and clocks may step: of an agent that lived for two seconds nobody could say (plan.py)."""
    device = bound(fleet)
    eventually(lambda: all(fleet.client.get(f"/api/nodes/n{n}/status")["uptime_seconds"] >= 5 for n in (0, 1)), timeout=30)
    fleet.fall()
    fleet.fleet.nodes.do("reboot", node=[0, 1])
    fleet.rise()
    fleet.until_follows(device, 0, 1, 2)
    fleet.fleet.controller.all_in_sync(NODES)
    fleet.unbind(device)
    fleet.client.call("DELETE", "/api/paths/p")
    eventually(lambda: "awg1" not in fleet.network()[1]["links"], every=0.1)


def test_a_path_is_not_set_up_again_while_a_node_that_dials_is_away(fleet: CascadeFleet) -> None:
    """As existing callers know it: a 502. The exit dials nobody, and is not waited for."""
    fleet.path("p", 0, 1)
    for node in (1, 0):
        fleet.fleet.nodes.do("kill", node=node)
        eventually(lambda n=node: fleet.client.get(f"/api/nodes/n{n}")["link_state"] == "backing_off", timeout=60, every=0.1)  # type: ignore[misc]
        if node:
            fleet.client.post("/api/paths/p/provision?patience=20")
    with pytest.raises(RemoteError, match="n0 is not connected: ") as caught:
        fleet.client.post("/api/paths/p/provision?patience=1")
    assert caught.value.status == 502
    for node in (0, 1):
        fleet.fleet.nodes.do("start", node=node)
    fleet.client.post("/api/paths/p/provision")
    eventually(lambda: fleet.client.get("/api/paths/p")["status"] == "active", timeout=30, every=0.2)
