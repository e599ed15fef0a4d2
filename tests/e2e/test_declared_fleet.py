"""A whole fleet from a file, onto simulated nodes: policies, pools, a path, users, devices, profiles; and drift."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.main import cli
from tests.fleet import LiveFleet, live_fleet
from tests.support import eventually

BASE_PORT = 13_800
FILE = """\
fleet: 1
nodes:
- {{name: n0, control_addr: "127.0.0.1:13800", endpoint_ips: [198.51.100.1], policy: {{isolation: {isolation}}}}}
- {{name: n1, control_addr: "127.0.0.1:13801", endpoint_ips: [198.51.100.2]}}
- {{name: n2, control_addr: "127.0.0.1:13802", endpoint_ips: [198.51.100.3]}}
paths:
- {{name: over, hops: [n0, n1], color: "#3366cc"}}
users:
- name: Ann
  email: ann@example.org
  devices:
  - name: phone
    profiles:
    - {{name: away, path: over}}
    - {{name: home, node: n2}}
  - {{name: laptop, all_nodes: true}}
"""


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    home = tmp_path_factory.mktemp("declared")
    with live_fleet(home, 3, BASE_PORT, config="posture: personal\nstate_dir: state\n") as running:
        yield running


@pytest.fixture
def cox(fleet: LiveFleet) -> Callable[..., Result]:
    def run(*arguments: str, text: str = "", code: int = 0) -> Result:
        config = str(fleet.controller.home.parent / "cox.yaml")
        result = CliRunner().invoke(cli, [*arguments, "--config", config], input=text, prog_name="cox")
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        return result

    return run


def get(fleet: LiveFleet, path: str) -> Any:
    return fleet.controller.client.get(path)


def test_a_file_makes_a_fleet_and_cuts_nobody_off(fleet: LiveFleet, cox: Callable[..., Result]) -> None:
    text = FILE.format(isolation="false")
    cox("apply", "-f", "-", "--yes", text=text)
    eventually(lambda: get(fleet, "/api/paths/over")["status"] == "active", timeout=30)
    fleet.controller.all_in_sync(3)
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=text).stdout) == {"changes": [], "drift": []}

    phone = next(d for d in get(fleet, "/api/devices") if d["name"] == "phone")
    assert get(fleet, f"/api/devices/{phone['id']}")["peer_count"] == 2
    exported = fleet.controller.client.post(f"/api/devices/{phone['id']}/export", {"format": "pharos"})
    away = json.loads(exported["text"])["payload"]["profiles"][0]
    assert [(hop["name"], hop["role"]) for hop in away["path"]["hops"]] == [("n0", "entry"), ("n1", "exit")]
    path = get(fleet, "/api/paths/over")
    assert 1280 <= away["mtu"] <= path["mtu"]
    (entry,) = away["nodes"]
    assert entry["name"] == "n0"
    address = entry["protocols"][0]["params"]["address"]
    network = fleet.nodes.do("network", node=0)["network"][0]
    assert [transit["device_cidr"] for transit in network["policy"]["transits"]] == [address]

    # Somebody is connected; the file changes in other places, and they do not notice.
    laptop = next(d for d in get(fleet, "/api/devices") if d["name"] == "laptop")
    key = get(fleet, f"/api/devices/{laptop['id']}")["credentials"][0]["wg_public_key"]
    fleet.nodes.do("inject", node=0, connect=[key])
    changed = FILE.format(isolation="true").replace("name: home, node: n2", "name: home, node: n1")
    out = cox("apply", "-f", "-", "--yes", text=changed).stdout
    assert "isolation: off → on" in out
    assert "node: n2 → n1" in out
    fleet.controller.all_in_sync(3)
    assert next(p for p in fleet.nodes.do("peers", node=0)["peers"] if p["public_key"] == key)["connected"]
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=changed).stdout)["changes"] == []

    # The same again from what is exported; and a node that is away is drift, not a change.
    exported_fleet = cox("export").stdout
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", text=exported_fleet).stdout)["changes"] == []
    fleet.nodes.do("kill", node=2)
    fleet.controller.until("n2", link_state="backing_off")
    assert "! node n2: " in cox("plan", "-f", "-", text=changed).stdout
    fleet.nodes.do("start", node=2)

    # Nothing of it is left, in one go: people first, then the path, then the nodes.
    cox("apply", "-f", "-", "--yes", "--prune", text="fleet: 1\nnodes: []\npaths: []\nusers: []\n")
    assert get(fleet, "/api/nodes") == get(fleet, "/api/paths") == get(fleet, "/api/users") == []
