"""Ranges of ports from the API to devices: told where an agent says that it maps them, and taken back.

Nodes are simulated; that such ports really lead into the tunnel is shown in ``test_agent_ports_netns``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from coxswain.cli.client import RemoteError
from coxswain.cli.main import cli
from coxswain.messages.audit import Caller
from coxswain.messages.fleet import DrainNode, EditNode
from coxswain.model import Node
from coxswain.store.fleet import list_nodes
from tests.fleet import LiveFleet, database, live_fleet
from tests.support import eventually

NODES = 2
BASE_PORT = 13_900
CONFIG = "posture: personal\nstate_dir: state\nprotocols: {xray: true}\n"
RANGE = "20000-29999"


def prepared(fleet: LiveFleet) -> LiveFleet:
    for index in range(NODES):
        body = {"version": fleet.controller.node(f"n{index}")["version"], "endpoint_ips": [f"198.51.100.{index + 1}"]}
        fleet.controller.client.call("PATCH", f"/api/nodes/n{index}", body)
    fleet.controller.all_in_sync(NODES)

    def written() -> bool:
        with fleet.controller.store.read() as tx:
            return all(node.wg_public_key for node in list_nodes(tx, now=0.0))

    eventually(written)  # what nodes first reported makes devices' documents another
    return fleet


@pytest.fixture(params=["sqlite", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveFleet]:
    dsn = request.getfixturevalue("postgres_server").create_database() if request.param == "postgres" else ""
    with live_fleet(
        tmp_path, NODES, BASE_PORT, options=("--record",), interval_s=2.0, database=dsn, config=CONFIG
    ) as running:
        yield prepared(running)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[LiveFleet]:
    with live_fleet(tmp_path, NODES, BASE_PORT, options=("--record",), interval_s=2.0, config=CONFIG) as running:
        yield prepared(running)


@pytest.fixture
def existing(tmp_path: Path) -> Iterator[LiveFleet]:
    options = ("--record", "--existing-agent")
    with live_fleet(tmp_path, NODES, BASE_PORT, options=options, interval_s=2.0, config=CONFIG) as running:
        yield prepared(running)


def told(fleet: LiveFleet, device_id: str) -> dict[tuple[str, str], tuple[int, int]]:
    """What the profile document, of which bundles are made as well, says to clients, by node and protocol."""
    text = fleet.controller.client.post(f"/api/devices/{device_id}/export", {"format": "pharos"})["text"]
    return {
        (node["name"], protocol["type"]): (point["port_min"], point["port_max"])
        for profile in json.loads(text)["payload"]["profiles"]
        for node in profile["nodes"]
        for protocol in node["protocols"]
        for point in protocol["params"]["endpoints"]
    }


def on_443(**others: tuple[int, int]) -> dict[tuple[str, str], tuple[int, int]]:
    plain = {(f"n{n}", kind): (443, 443) for n in range(NODES) for kind in ("amneziawg", "xray-reality")}
    return plain | {(name, "amneziawg"): ports for name, ports in others.items()}


def until_told(fleet: LiveFleet, device_id: str, **others: tuple[int, int]) -> None:
    eventually(lambda: told(fleet, device_id) == on_443(**others), every=0.1)


def revision(fleet: LiveFleet, device_id: str) -> int:
    found: int = fleet.controller.client.get(f"/api/devices/{device_id}")["profile_revision"]
    return found


def keys(fleet: LiveFleet, device_id: str) -> list[Any]:
    client = fleet.controller.client
    peers = [sorted(p["public_key"] for p in fleet.nodes.do("peers", node=n)["peers"]) for n in range(NODES)]
    return [client.get(f"/api/devices/{device_id}")["credentials"], peers]


def policies_set(fleet: LiveFleet, index: int) -> int:
    calls = fleet.nodes.do("calls", node=index)["calls"]
    return sum(call["method"] == "SetNetworkConfig" for call in calls)


def on_node(fleet: LiveFleet, index: int) -> Any:
    return fleet.nodes.do("network", node=index)["network"][0]["policy"]["ports"]


def test_a_range_is_told_when_the_agent_has_it_and_no_longer_than_it_is_wanted(fleet: LiveFleet) -> None:
    device_id = fleet.new_device()
    assert told(fleet, device_id) == on_443()
    held, before, untouched = keys(fleet, device_id), revision(fleet, device_id), policies_set(fleet, 1)

    view = fleet.edit("n0", endpoint_ports=" 20000 - 29999 ")
    assert view["endpoint_ports"] == RANGE
    until_told(fleet, device_id, n0=(20000, 29999))
    fleet.controller.until("n0", mapped_ports=RANGE, in_sync=True)
    assert on_node(fleet, 0) == {"low": 20000, "high": 29999}
    assert fleet.controller.node("n0")["findings"] == []
    eventually(lambda: revision(fleet, device_id) > before)  # its client has to fetch it
    assert keys(fleet, device_id) == held, "no key is another, so no tunnel is cut"
    conf = fleet.controller.client.post(f"/api/devices/{device_id}/export", {"format": "conf", "node": "n0"})["text"]
    assert "Endpoint = 198.51.100.1:443\n" in conf
    log = fleet.controller.client.get("/api/audit?limit=50")
    edits = [record["detail"]["changed"] for record in log if record["action"] == "node.update"]
    assert edits[0] == ["endpoint_ports", "config_revision"]

    # Nobody else is bothered, and a new start of the daemon changes nothing.
    fleet.controller.stop()
    fleet.controller.start()
    fleet.controller.all_in_sync(NODES)
    assert told(fleet, device_id) == on_443(n0=(20000, 29999))
    known = revision(fleet, device_id)
    assert (policies_set(fleet, 1), on_node(fleet, 1)) == (untouched, None)

    # Another range: until the agent says that it has it, clients are told of the port that always works.
    fleet.edit("n0", endpoint_ports="30000-30000")
    until_told(fleet, device_id, n0=(30000, 30000))
    assert revision(fleet, device_id) > known
    # What has nothing to do with it leaves it alone.
    fleet.edit("n0", region="elsewhere", isolation=True)
    fleet.controller.all_in_sync(NODES)
    assert told(fleet, device_id) == on_443(n0=(30000, 30000))

    known = revision(fleet, device_id)
    assert fleet.edit("n0", endpoint_ports="")["endpoint_ports"] == ""
    assert told(fleet, device_id) == on_443(), "at once, before the node has heard of it"
    assert revision(fleet, device_id) > known
    fleet.controller.until("n0", mapped_ports="", in_sync=True)
    assert on_node(fleet, 0) is None
    assert told(fleet, device_id) == on_443()
    assert keys(fleet, device_id) == held


def test_an_existing_agent_stays_at_443_and_it_is_said(existing: LiveFleet) -> None:
    device_id = existing.new_device()
    before = revision(existing, device_id)
    existing.edit("n0", endpoint_ports=RANGE)
    eventually(lambda: any("does not map ports 20000-29999" in f for f in existing.controller.node("n0")["findings"]))
    view = existing.controller.node("n0")
    assert (view["link_state"], view["in_sync"], view["mapped_ports"]) == ("live", True, "")
    assert told(existing, device_id) == on_443()
    assert revision(existing, device_id) == before
    times = policies_set(existing, 0)
    eventually(lambda: existing.controller.node("n0")["last_seen"] != view["last_seen"])
    assert policies_set(existing, 0) == times, "it was told once"
    assert existing.controller.node("n1")["findings"] == []
    existing.edit("n0", endpoint_ports="")
    eventually(lambda: existing.controller.node("n0")["findings"] == [])


def test_agents_change_and_profiles_follow(fleet: LiveFleet) -> None:
    device_id = fleet.new_device()
    fleet.nodes.do("ports", node=0, on=False)
    fleet.edit("n0", endpoint_ports=RANGE)
    fleet.controller.until("n0", findings=[f"the agent does not map ports {RANGE}: clients are told of port 443 alone"])
    # One that can takes its place.
    fleet.nodes.do("ports", node=0, on=True)
    fleet.nodes.do("restart", node=0)
    until_told(fleet, device_id, n0=(20000, 29999))
    fleet.nodes.do("ports", node=0, on=False)
    until_told(fleet, device_id)
    # The host is set up anew: it has no range until it is told of it.
    fleet.nodes.do("ports", node=0, on=True)
    until_told(fleet, device_id, n0=(20000, 29999))
    fleet.nodes.do("anew", node=0)
    fleet.controller.until("n0", mapped_ports=RANGE, in_sync=True)
    until_told(fleet, device_id, n0=(20000, 29999))


def test_a_range_that_nobody_here_asked_for_is_taken_away(alone: LiveFleet) -> None:
    """Of a database that was restored from before it was."""
    device_id = alone.new_device()
    alone.edit("n0", endpoint_ports=RANGE)
    until_told(alone, device_id, n0=(20000, 29999))
    alone.controller.stop()
    with database(alone.controller.home) as db:
        db.execute("UPDATE nodes SET endpoint_ports = '', mapped_ports = '', policy_confirmed = (SELECT policy_confirmed "
                   "FROM nodes AS other WHERE other.name = 'n1') WHERE name = 'n0'")  # fmt: skip
    alone.controller.start()
    eventually(lambda: on_node(alone, 0) is None)
    alone.controller.until("n0", mapped_ports="", in_sync=True)
    assert told(alone, device_id) == on_443()


@pytest.mark.parametrize(("text", "says"), [("443", "20000-29999"), ("5-1", "1-5"), ("50000-60000", "inner links")])
def test_what_is_no_range_is_refused_and_changes_nothing(existing: LiveFleet, text: str, says: str) -> None:
    before = existing.controller.node("n0")
    with pytest.raises(RemoteError, match="endpoint_ports: ") as caught:
        existing.edit("n0", endpoint_ports=text)
    assert (caught.value.status, says in str(caught.value)) == (400, True)
    after = existing.controller.node("n0")
    assert (after["version"], after["config_revision"]) == (before["version"], before["config_revision"])


def test_a_node_that_is_taken_out_of_service_maps_none_and_put_back_has_its_clients_again(alone: LiveFleet) -> None:
    """Also one that forwards nothing, whose policy is the same before, in between and after."""
    alone.new_device()
    view = alone.edit("n0", endpoint_ports=RANGE, forwarding=False, masquerade=False, isolation=False)
    alone.controller.until("n0", mapped_ports=RANGE, peers_configured=2, in_sync=True)
    system, caller = alone.controller.system, Caller("tester", "local")
    drained: Node = system.ask("fleet", DrainNode(caller, view["id"]), deadline=10).value
    alone.controller.until("n0", endpoint_ports="", mapped_ports="", peers_configured=0, in_sync=True)
    back = EditNode(caller, drained.id, drained.version, endpoint_ports=RANGE, policy=drained.policy)
    system.ask("fleet", back, deadline=10)
    alone.controller.until("n0", mapped_ports=RANGE, peers_configured=2, in_sync=True)


def test_the_command_line(alone: LiveFleet) -> None:
    alone.edit("n0", endpoint_ports=RANGE)
    alone.controller.until("n0", mapped_ports=RANGE)
    run = CliRunner()
    config = ["--config", str(alone.controller.home.parent / "cox.yaml")]

    def cox(*arguments: str, code: int = 0) -> str:
        result = run.invoke(cli, [*arguments, *config], prog_name="cox")
        assert result.exit_code == code, result.output
        return result.output

    assert "ports           20000-29999" in cox("nodes", "endpoints", "n0")
    assert "20000-29999" in cox("nodes", "show", "n0")
    # The form of old sets addresses and leaves the ports alone.
    assert "198.51.100.9" in cox("nodes", "endpoints", "n0", "198.51.100.9")
    assert json.loads(cox("nodes", "endpoints", "n0", "--json"))["endpoint_ports"] == RANGE
    cox("nodes", "endpoints", "n0", "--ports", "9-1", code=2)
    shown = json.loads(cox("nodes", "endpoints", "n0", "--ports", "5000-5001", "--json"))
    assert (shown["endpoint_ips"], shown["endpoint_ports"]) == (["198.51.100.9"], "5000-5001")
    assert "443" in cox("nodes", "endpoints", "n0", "", "--ports", "")
    alone.controller.until("n0", mapped_ports="", endpoint_ports="", endpoint_ips=[])
