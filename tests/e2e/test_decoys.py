"""A node's own decoy, from an operator to its agent and to devices. Nodes are simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from coxswain.cli.client import RemoteError
from coxswain.cli.main import cli
from tests.fleet import LiveFleet, live_fleet
from tests.support import eventually

NODES = 2
BASE_PORT = 13_940
FLEETS, OWN = "www.example.org", "decoy.example.net"
CONFIG = f"posture: personal\nstate_dir: state\nprotocols: {{xray: true}}\nreality: {{decoy_site: {FLEETS}}}\n"


@pytest.fixture(params=["ours", "existing"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveFleet]:
    options = ("--record", *(["--existing-agent"] if request.param == "existing" else []))
    with live_fleet(tmp_path, NODES, BASE_PORT, options=options, interval_s=2.0, config=CONFIG) as running:
        for index in range(NODES):
            running.edit(f"n{index}", endpoint_ips=[f"198.51.100.{index + 1}"])
        running.controller.all_in_sync(NODES)
        eventually(lambda: all(node["xray_public_key"] for node in running.controller.client.get("/api/nodes")))
        yield running


def exported(fleet: LiveFleet, device_id: str, **how: str) -> str:
    text: str = fleet.controller.client.post(f"/api/devices/{device_id}/export", how)["text"]
    return text


def names_told(fleet: LiveFleet, device_id: str) -> dict[str, str]:
    """By node, in the document that bundles are made of."""
    profiles = json.loads(exported(fleet, device_id, format="pharos"))["payload"]["profiles"]
    return {
        node["name"]: protocol["params"]["server_name"]
        for profile in profiles
        for node in profile["nodes"]
        for protocol in node["protocols"]
        if protocol["type"] == "xray-reality"
    }


def pretends(fleet: LiveFleet, index: int) -> tuple[str, list[str]] | None:
    """What the agent was pushed: whom it dials, and the names that it answers to."""
    found = fleet.nodes.do("network", node=index)["network"][0]["xray"]
    return (found["dest"], found["server_names"]) if found else None


def pushes(fleet: LiveFleet, index: int) -> int:
    calls = fleet.nodes.do("calls", node=index)["calls"]
    return sum(call["method"] == "PushConfig" for call in calls)


def test_a_node_has_a_decoy_of_its_own_and_no_other_hears_of_it(fleet: LiveFleet) -> None:
    device_id = fleet.new_device()
    everywhere = (f"{FLEETS}:443", [FLEETS])
    eventually(lambda: [pretends(fleet, index) for index in range(NODES)] == [everywhere, everywhere], every=0.1)
    assert names_told(fleet, device_id) == {"n0": FLEETS, "n1": FLEETS}
    fleet.controller.all_in_sync(NODES)
    client = fleet.controller.client
    before, held = client.get(f"/api/devices/{device_id}"), pushes(fleet, 1)

    assert fleet.edit("n0", decoy_site=f" {OWN}:8443 ")["decoy_site"] == f"{OWN}:8443"
    assert names_told(fleet, device_id) == {"n0": OWN, "n1": FLEETS}
    assert f"&sni={OWN}&" in exported(fleet, device_id, format="vless", node="n0")
    assert f"&sni={FLEETS}&" in exported(fleet, device_id, format="vless", node="n1")
    eventually(lambda: pretends(fleet, 0) == (f"{OWN}:8443", [OWN]), every=0.1)
    fleet.controller.all_in_sync(NODES)
    after = client.get(f"/api/devices/{device_id}")
    assert after["profile_revision"] > before["profile_revision"], "its client has to fetch it"
    assert after["credentials"] == before["credentials"]
    assert (pretends(fleet, 1), pushes(fleet, 1)) == (everywhere, held)
    record = next(r for r in client.get("/api/audit?limit=50") if r["action"] == "node.update")
    assert record["detail"]["changed"] == ["decoy_site", "config_revision"]

    # It outlives the daemon, and another decoy for all is not this node's.
    fleet.controller.stop()
    config = fleet.controller.home.parent / "cox.yaml"
    config.write_text(config.read_text().replace(FLEETS, "other.example.com"))
    fleet.controller.start()
    fleet.controller.all_in_sync(NODES)
    eventually(lambda: pretends(fleet, 1) == ("other.example.com:443", ["other.example.com"]), every=0.1)
    assert pretends(fleet, 0) == (f"{OWN}:8443", [OWN])
    assert names_told(fleet, device_id) == {"n0": OWN, "n1": "other.example.com"}

    fleet.edit("n0", decoy_site="")
    eventually(lambda: pretends(fleet, 0) == pretends(fleet, 1), every=0.1)
    assert set(names_told(fleet, device_id).values()) == {"other.example.com"}


@pytest.mark.parametrize("fleet", ["ours"], indirect=True)
@pytest.mark.parametrize("text", ["no decoy", "1.2.3", "host:0", "host:port", "https://www.example.org", "a" * 300, "a\nb"])
def test_what_is_no_decoy_is_refused_and_changes_nothing(fleet: LiveFleet, text: str) -> None:
    before = fleet.controller.node("n0")
    with pytest.raises(RemoteError, match="decoy_site: ") as caught:
        fleet.edit("n0", decoy_site=text)
    assert caught.value.status == 400
    after = fleet.controller.node("n0")
    assert (after["version"], after["decoy_site"]) == (before["version"], "")


@pytest.mark.parametrize("fleet", ["ours"], indirect=True)
def test_the_command_line_and_fleet_files(fleet: LiveFleet, tmp_path: Path) -> None:
    config = ["--config", str(fleet.controller.home.parent / "cox.yaml")]

    def cox(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, [*arguments, *config], prog_name="cox")
        assert result.exit_code == code, result.output
        return result.output

    assert "decoy           as reality.decoy_site" in cox("nodes", "show", "n0")
    assert "XRay sessions end" in cox("nodes", "edit", "n0", "--decoy", OWN)
    assert "XRay" not in cox("nodes", "edit", "n0", "--region", "ams")
    assert f"decoy           {OWN}" in cox("nodes", "show", "n0")
    assert "decoy_site: " in cox("nodes", "edit", "n0", "--decoy", "no decoy", code=2)

    file = tmp_path / "fleet.yaml"
    file.write_text(cox("export"))
    assert f"decoy_site: {OWN}" in file.read_text()
    assert "as the file says" in cox("plan", "-f", str(file))
    file.write_text(file.read_text().replace(OWN, "third.example.net"))
    assert f"decoy_site: {OWN} → third.example.net" in cox("plan", "-f", str(file))
    cox("apply", "-f", str(file), "--yes")
    assert fleet.controller.node("n0")["decoy_site"] == "third.example.net"
    cox("nodes", "edit", "n0", "--decoy", "")
    assert fleet.controller.node("n0")["decoy_site"] == ""
