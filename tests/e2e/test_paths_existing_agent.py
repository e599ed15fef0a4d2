"""Paths over nodes that forget what the existing agent forgets (node-contract.md 4.12 to 4.14, 8.4, 12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coxswain.cascade import health
from tests.cascade import CascadeFleet, cascade_fleet
from tests.support import eventually

NODES = 3
BASE_PORT = 13_340
UUID = "0b6f4b1e-6b0f-4a39-8f0e-2f0d6a1b9c55"
CONFIG = "posture: personal\nprotocols:\n  xray: true\nreality:\n  decoy_site: www.example.org\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CascadeFleet]:
    home = tmp_path_factory.mktemp("existing")
    with cascade_fleet(home, NODES, BASE_PORT, options=("--record", "--existing-agent"), config=CONFIG) as running:
        yield running


@pytest.fixture
def fleet(shared: CascadeFleet) -> Iterator[CascadeFleet]:
    shared.fleet.controller.all_in_sync(NODES)
    yield shared
    shared.tidy_up()


def links(fleet: CascadeFleet, index: int) -> dict[str, Any]:
    found: dict[str, Any] = fleet.network()[index]["links"]
    return found


def test_a_link_that_a_reboot_took_comes_back_although_its_revision_stayed(fleet: CascadeFleet) -> None:
    """An equal revision would be answered as a repetition, and nothing would happen (4.12)."""
    fleet.path("p", 0, 1)
    before = links(fleet, 0)["awg1"]["revision"]
    fleet.fleet.nodes.do("reboot", node=0)
    assert links(fleet, 0) == {}
    eventually(lambda: "awg1" in links(fleet, 0), every=0.1)
    assert links(fleet, 0)["awg1"]["revision"] > before


def test_a_link_that_somebody_took_away_is_made_anew_for_who_is_bound_to_its_path(fleet: CascadeFleet) -> None:
    """It was acknowledged, and the agent says nothing until a transit needs it; no device came onto such a path any more."""
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.fleet.nodes.do("link_down", node=0, interface="awg1")
    fleet.bind(device, "p")
    assert fleet.follow(device, 0) == (0, 1)
    assert set(links(fleet, 0)) == {"awg1"}


def test_a_link_that_somebody_took_away_from_who_uses_it_is_made_anew(
    fleet: CascadeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says that it is gone. It shows at both of its ends, which takes five minutes in life."""
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    key = fleet.bodies[device]["add"][0]["public_key"]
    fleet.fleet.nodes.do("link_down", node=0, interface="awg1")
    monkeypatch.setattr(health, "FRESH_S", 3.0)
    monkeypatch.setattr(health, "_LOOKS_S", 0.0)

    def is_there() -> bool:
        fleet.fleet.nodes.do("inject", node=0, connect=[key])  # shakes hands once more
        for node in ("n0", "n1"):
            fleet.client.post(f"/api/nodes/{node}/look")
        return set(links(fleet, 0)) == {"awg1"}

    eventually(is_there, every=0.5)
    assert fleet.follow(device, 0) == (0, 1)
    fleet.fleet.nodes.do("inject", node=0, disconnect=[key])


def test_a_link_of_before_a_restart_is_really_removed(fleet: CascadeFleet) -> None:
    """The agent has forgotten that it is its own; asked to remove it, it does nothing and says that it did (4.13)."""
    fleet.path("p", 0, 1)
    fleet.fleet.nodes.do("stall", node=0, method="ConfigureInnerLink")
    fleet.fleet.nodes.do("restart", node=0)
    fleet.client.call("DELETE", "/api/paths/p")
    fleet.fleet.nodes.do("release", node=0)
    eventually(lambda: links(fleet, 0) == {}, timeout=30, every=0.1)


def test_and_a_path_that_then_takes_its_place_works(fleet: CascadeFleet) -> None:
    """Its revision file is still there, and would refuse a revision that starts at 1 again."""
    fleet.path("p", 0, 1)
    fleet.fleet.nodes.do("restart", node=0)
    fleet.client.call("DELETE", "/api/paths/p")
    eventually(lambda: links(fleet, 0) == {}, timeout=30, every=0.1)
    device = fleet.device(0)
    fleet.path("q", 0, 2)
    fleet.bind(device, "q")
    assert fleet.follow(device, 0) == (0, 2)


def test_an_entry_whose_unit_brings_links_up_survives_its_reboot(fleet: CascadeFleet) -> None:
    """The worst trap of the contract (12.1): with the unit that our onboarding writes, the agent starts, and all of it is
    told to it again.
    """
    device = fleet.device(0)
    fleet.path("p", 0, 1, 2)
    fleet.bind(device, "p")
    for index in (0, 1):
        fleet.fleet.nodes.do("reboot", node=index, links_up=True)
    fleet.until_follows(device, 0, 1, 2)
    fleet.fleet.controller.all_in_sync(NODES)
    fleet.unbind(device)
    fleet.client.call("DELETE", "/api/paths/p")
    eventually(lambda: links(fleet, 0) == links(fleet, 1) == {}, timeout=30, every=0.1)


def test_transits_are_only_on_a_node_while_its_links_are_up(fleet: CascadeFleet) -> None:
    """What is stored there is what the next start has to be able to install."""
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    calls = [call["method"] for call in fleet.fleet.nodes.do("calls", node=0)["calls"]]
    assert calls.index("ConfigureInnerLink") < len(calls) - 1 - calls[::-1].index("SetNetworkConfig")
    fleet.unbind(device)
    fleet.client.call("DELETE", "/api/paths/p")
    eventually(lambda: links(fleet, 0) == {}, timeout=30, every=0.1)
    calls = [call["method"] for call in fleet.fleet.nodes.do("calls", node=0)["calls"]]
    changes = [method for method in calls if method in ("SetNetworkConfig", "RemoveInnerLink", "ConfigureInnerLink")]
    assert changes[-2:] == ["SetNetworkConfig", "RemoveInnerLink"]


def test_an_exit_with_another_obfuscation_gets_an_interface_of_its_own(fleet: CascadeFleet) -> None:
    """A changed port, MTU or obfuscation of one that is there is ignored with a success answer (4.12)."""
    device = fleet.device(0)
    fleet.path("p", 0, 1)
    fleet.bind(device, "p")
    before = links(fleet, 0)["awg1"]["obfuscation"]
    fleet.fleet.nodes.do("anew", node=1)
    fleet.until_follows(device, 0, 1)
    eventually(lambda: list(links(fleet, 0)) == ["awg2"], timeout=30, every=0.1)
    assert links(fleet, 0)["awg2"]["obfuscation"] != before


# -- XRay


def xray(fleet: CascadeFleet, index: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = fleet.network()[index]["xray"]
    return found


def add_client(fleet: CascadeFleet, index: int, uuid: str) -> None:
    body = {
        "users": [{"id": "usr_test", "name": "Test"}],
        "devices": [{"id": f"dev_{uuid}", "user_id": "usr_test", "name": "x"}],
        "add": [
            {
                "id": f"peer_{uuid}",
                "node_id": fleet.fleet.ids[index],
                "device_id": f"dev_{uuid}",
                "protocol": "xray-reality",
                "public_key": uuid,
                "flow": "xtls-rprx-vision",
            }
        ],
        "remove": [],
    }
    fleet.client.post("/api/peers", body)


def test_xray_is_configured_and_its_key_is_known(fleet: CascadeFleet) -> None:
    eventually(lambda: xray(fleet, 0), every=0.1)
    found = xray(fleet, 0)
    assert found is not None
    assert (found["dest"], found["server_names"], found["short_ids"], found["port"]) == (
        "www.example.org:443",
        ["www.example.org"],
        [""],
        443,
    )
    keys = {fleet.node(index)["xray_public_key"] for index in range(NODES)}
    assert len(keys) == NODES
    assert all(len(key) == 43 for key in keys)


def test_xray_clients_come_go_and_are_remembered_by_us(fleet: CascadeFleet) -> None:
    add_client(fleet, 1, UUID)

    def served() -> bool:
        found = xray(fleet, 1)
        return found is not None and [c["id"] for c in found["clients"]] == [UUID]

    eventually(served, every=0.1)
    view = fleet.node(1)
    assert xray(fleet, 1)["revision"] == view["applied_revision"]  # type: ignore[index]
    fleet.fleet.nodes.do("restart", node=1, forget_xray=True)
    eventually(served, every=0.1)
    assert fleet.node(1)["config_revision"] == view["config_revision"], "the revision is not raised for what was forgotten"
    remove = [{"node_id": fleet.fleet.ids[1], "protocol": "xray-reality", "public_key": UUID}]
    fleet.client.post("/api/peers", {"users": [], "devices": [], "add": [], "remove": remove})
    eventually(lambda: xray(fleet, 1)["clients"] == [], every=0.1)  # type: ignore[index]


def test_an_agent_without_xray_is_a_finding_and_nothing_else(fleet: CascadeFleet) -> None:
    fleet.fleet.nodes.do("fail", node=2, method="PushConfig", code="UNIMPLEMENTED", times=1)
    fleet.fleet.nodes.do("restart", node=2, forget_xray=True)
    fleet.fleet.controller.until("n2", link_state="live", in_sync=True)
