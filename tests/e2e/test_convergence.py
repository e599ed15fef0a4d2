"""fleet-model.md 12 B, as a fleet shows it: pushes do not race, one document holds everything, one bad binding costs nobody
else, and who is only idle is left alone.
"""

from __future__ import annotations

import pytest

from coxswain.fingerprints import of_policy
from coxswain.netpolicy import Policy
from tests.cascade import CascadeFleet
from tests.support import eventually

NODES = 3
BASE_PORT = 13_380


@pytest.fixture
def fleet(cascade: CascadeFleet) -> CascadeFleet:
    return cascade


def calls(fleet: CascadeFleet, index: int, method: str) -> int:
    return sum(call["method"] == method for call in fleet.fleet.nodes.do("calls", node=index)["calls"])


def addresses(fleet: CascadeFleet, index: int) -> set[str]:
    return {address for _, ips in fleet.network()[index]["peers"] for address in ips}


def test_b10_a_slow_push_never_brings_an_older_set_back(fleet: CascadeFleet) -> None:
    """A node has one writer, and what it writes next is what holds then, however many changes happened meanwhile."""
    before = calls(fleet, 0, "PushConfig")
    fleet.fleet.nodes.do("stall", node=0, method="PushConfig")
    first = fleet.device(0)
    eventually(lambda: calls(fleet, 0, "PushConfig") == before + 1)  # under way, with the first in it
    fleet.take_away(first)
    second, third = fleet.device(0), fleet.device(0)
    assert calls(fleet, 0, "PushConfig") == before + 1
    fleet.fleet.nodes.do("release", node=0, method="PushConfig")
    wanted = {fleet.addresses[second], fleet.addresses[third]}
    eventually(lambda: wanted <= addresses(fleet, 0) and fleet.addresses[first] not in addresses(fleet, 0))
    fleet.fleet.controller.until("n0", in_sync=True)
    # By content, and not only by number: the next look compares what is there with what should be.
    fleet.client.post("/api/nodes/n0/look")
    assert fleet.client.get("/api/nodes/n0/plan")["steps"] == []
    assert fleet.addresses[first] not in addresses(fleet, 0)


def test_b12_a_policy_goes_out_by_itself_and_takes_nothing_of_a_path_along(fleet: CascadeFleet) -> None:
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    view = fleet.node(0)
    policy = {"forwarding": True, "masquerade": True, "isolation": True}
    fleet.client.call("PATCH", "/api/nodes/n0", {"version": view["version"], **policy})
    eventually(lambda: fleet.network()[0]["policy"]["isolation"])
    assert fleet.follow(device, 0) == (0, 1, 2)
    fleet.client.post("/api/nodes/n0/push")
    assert fleet.network()[0]["policy"]["isolation"]
    assert fleet.follow(device, 0) == (0, 1, 2)
    view = fleet.node(0)
    fleet.client.call("PATCH", "/api/nodes/n0", {"version": view["version"], **policy, "isolation": False})
    eventually(lambda: not fleet.network()[0]["policy"]["isolation"])


def test_b13_a_binding_that_cannot_be_wired_costs_nobody_else_and_mends_itself(fleet: CascadeFleet) -> None:
    bad, good = fleet.device(0), fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(bad, "p")
    fleet.bind(good, "p")
    fleet.take_away(bad)
    eventually(lambda: fleet.addresses[bad] not in addresses(fleet, 1) | addresses(fleet, 2))
    assert fleet.follow(good, 0) == (0, 1, 2)
    fleet.fleet.controller.all_in_sync(NODES)
    assert {fleet.node(index)["status"] for index in range(NODES)} == {"active"}
    other = fleet.device(0)  # the path takes others meanwhile
    fleet.bind(other, "p")
    assert fleet.follow(other, 0) == (0, 1, 2)
    fleet.give_back(bad)
    fleet.until_follows(bad, 0, 1, 2)


def test_b14_an_idle_node_is_left_alone_and_one_miss_is_no_outage(fleet: CascadeFleet) -> None:
    fleet.device(0)  # a peer, and nobody ever shakes hands
    fleet.fleet.controller.all_in_sync(NODES)
    changes = fleet.changing_calls()
    looks = calls(fleet, 0, "GetStatus")
    fleet.fleet.nodes.do("fail", node=0, method="GetStatus", code="DEADLINE_EXCEEDED", times=1)

    def looked_at_again() -> bool:
        assert fleet.node(0)["status"] == "active"
        return calls(fleet, 0, "GetStatus") >= looks + 4

    eventually(looked_at_again, timeout=60, every=0.1)
    fleet.fleet.controller.until("n0", link_state="live", in_sync=True)
    assert fleet.changing_calls() == changes


def test_a_node_that_never_says_to_hold_what_it_was_told_is_told_once_in_a_while(fleet: CascadeFleet) -> None:
    """It was told its policy again within seconds of each time, for ever, and called another controller's as well."""
    fleet.fleet.controller.all_in_sync(NODES)
    told = calls(fleet, 0, "SetNetworkConfig")
    fleet.fleet.nodes.do("misname", node=0, name=of_policy(Policy(forwarding=True, masquerade=False, isolation=True)))
    fleet.client.post("/api/nodes/n0/look")
    eventually(lambda: calls(fleet, 0, "SetNetworkConfig") > told)
    seen = fleet.fleet.controller.until("n0", link_state="degraded", status="active")
    assert "another network policy than intended, also after it was told" in seen["link_reason"]
    for _ in range(3):
        looks = calls(fleet, 0, "GetStatus")
        fleet.client.post("/api/nodes/n0/look")
        eventually(lambda looks=looks: calls(fleet, 0, "GetStatus") > looks)
    plan = fleet.client.get("/api/nodes/n0/plan")
    assert (plan["steps"], plan["findings"]) == ([], [seen["link_reason"]])
    assert calls(fleet, 0, "SetNetworkConfig") == told + 1
    fleet.fleet.nodes.do("misname", node=0, name="")
    fleet.client.post("/api/nodes/n0/look")
    fleet.fleet.controller.until("n0", link_state="live", in_sync=True)
    assert calls(fleet, 0, "SetNetworkConfig") == told + 1
