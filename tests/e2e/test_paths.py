"""Paths over real links to simulated nodes: what fleet-model.md appendix B fixes, and traps that a controller can meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coxswain.cli.client import RemoteError
from tests.cascade import CascadeFleet, cascade_fleet
from tests.support import eventually

NODES = 5
BASE_PORT = 13_300


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CascadeFleet]:
    with cascade_fleet(tmp_path_factory.mktemp("paths"), NODES, BASE_PORT) as running:
        yield running


@pytest.fixture
def fleet(shared: CascadeFleet) -> Iterator[CascadeFleet]:
    """Everything is well before each test; afterwards there are neither bindings nor paths, and nodes have nothing."""
    shared.fleet.controller.all_in_sync(NODES)
    yield shared
    shared.fleet.nodes.do("clear", node="all")
    shared.fleet.nodes.do("start", node="all")
    shared.fleet.controller.all_in_sync(NODES)
    for binding in shared.client.get("/api/bindings"):
        shared.unbind(binding["device_id"])
    for path in shared.client.get("/api/paths"):
        shared.client.call("DELETE", f"/api/paths/{path['id']}")
    shared.fleet.controller.all_in_sync(NODES)
    for index in range(NODES):
        shared.fleet.controller.client.post(f"/api/nodes/n{index}/look")

    eventually(lambda: all(not n["links"] and not n["policy"]["transits"] for n in shared.network()), timeout=20, every=0.1)


def test_a_path_is_built_link_by_link_and_moves_nobody(fleet: CascadeFleet) -> None:
    device = fleet.device(1, 0)
    path = fleet.path("p", 0, 1, 2)
    assert path["status"] == "active"
    assert path["hops"] == [fleet.fleet.ids[index] for index in (0, 1, 2)]
    entry, mid, exit_ = (fleet.network()[index] for index in (0, 1, 2))
    assert {name: link["endpoint"] for name, link in entry["links"].items()} == {"awg1": "203.0.113.11:443"}
    assert {name: link["endpoint"] for name, link in mid["links"].items()} == {"awg1": "203.0.113.12:443"}
    assert exit_["links"] == {}
    assert entry["links"]["awg1"]["mtu"] >= 1280
    assert entry["links"]["awg1"]["listen_port"] == 51820
    assert fleet.follow(device, 0) == (0,)


def test_binding_wires_every_hop(fleet: CascadeFleet) -> None:
    device = fleet.device(2, 0)
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


def test_binding_without_a_peer_on_the_entry_is_refused(fleet: CascadeFleet) -> None:
    device = fleet.device(3, 1)
    fleet.path("p", 0, 1)
    with pytest.raises(RemoteError, match="no AmneziaWG address on n0"):
        fleet.bind(device, "p")
