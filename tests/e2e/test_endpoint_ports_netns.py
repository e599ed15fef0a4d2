"""A range of ports with nothing simulated: what ``cox serve`` tells a device of leads into the tunnel of a real agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import HUB_SERVER
from tests.e2e.test_cascade_netns import Fleet, settled_fleet
from tests.e2e.test_tunnel_v6_netns import connect, given
from tests.support import eventually

pytestmark = pytest.mark.netns


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("COX_FLEET__RECONCILE_INTERVAL", "2")
    with settled_fleet(tmp_path) as made:
        yield made


def told(fleet: Fleet, device: str) -> dict[str, Any]:
    """The first endpoint of the device's document."""
    document = json.loads(fleet.api().post(f"/api/devices/{device}/export", {"format": "pharos"})["text"])["payload"]
    endpoint: dict[str, Any] = document["profiles"][0]["nodes"][0]["protocols"][0]["params"]["endpoints"][0]
    return endpoint


def edit(fleet: Fleet, name: str, ports: str) -> None:
    body = {"version": fleet.node(name)["version"], "endpoint_ports": ports}
    fleet.api().call("PATCH", f"/api/nodes/{name}", body)


@pytest.mark.timeout(240)
def test_what_a_device_is_told_leads_into_its_tunnel(fleet: Fleet) -> None:
    directory = fleet.home / "other"
    (directory / "node.yaml").write_text(f"data_plane: {{conf_directory: {directory / 'confs'}, firewall: iptables}}\n")
    fleet.reboot("other")
    device = given(fleet, "one", "entry")
    client = connect(fleet, device, "entry", 1)
    address = fleet.sites["entry"].address
    assert told(fleet, device) == {"ip": address, "port_min": 443, "port_max": 443}
    for name in ("entry", "other"):
        edit(fleet, name, "20000-29999")
    assert eventually(lambda: told(fleet, device) == {"ip": address, "port_min": 20000, "port_max": 29999}, timeout=60)
    assert eventually(lambda: "does not map" in " ".join(fleet.node("other")["findings"]), timeout=60)
    assert fleet.node("other")["mapped_ports"] == ""

    # Over a path as well: only how the client reaches the entry is another.
    fleet.api().post("/api/paths", {"name": "far", "node_ids": ["entry", "exit"]})
    fleet.api().post(f"/api/devices/{device}/bind", {"path_id": "far"})
    fleet.until_leaves_at(client, "exit")
    (peer,) = client.space.run("wg", "show", "wg0", "peers").stdout.split()

    def reaches(port: int) -> bool:
        assert client.tunnel is not None
        client.tunnel.connect()
        client.space.run("wg", "set", "wg0", "peer", peer, "endpoint", f"{address}:{port}")
        return client.reaches(HUB_SERVER)

    for port in (20000, 25001, 29999, 443):
        assert eventually(lambda port=port: reaches(port), timeout=30), port
    assert not reaches(30000)
    fleet.reboot("entry")
    assert eventually(lambda: reaches(21000), timeout=60)
    fleet.settled()

    edit(fleet, "entry", "")
    assert told(fleet, device)["port_max"] == 443
    assert eventually(lambda: fleet.node("entry")["mapped_ports"] == "", timeout=60)
    client.space.run("wg", "set", "wg0", "listen-port", "41999")
    assert not reaches(22000)
    assert eventually(lambda: reaches(443), timeout=30)
