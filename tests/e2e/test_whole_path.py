"""The whole path with nothing simulated: ``cox serve`` dials ``cox-node run``, a device on wireguard-go comes through it.

    controller ─┐
                ├── node ── internet
    device ─────┘

Each in a network namespace of its own, all commands as an operator gives them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import ROOT, Daemon
from tests.netns import Keys, Lab, Namespace, new_psk
from tests.support import eventually

pytestmark = pytest.mark.netns

AGENT = [sys.executable, "-m", "coxswain.agent.main"]
SERVER = "198.51.100.2"
DEVICE = "192.0.2.2"


class World:
    """The namespaces, and the daemon in the controller's."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.internet, self.node = lab.namespace("internet"), lab.namespace("node")
        self.device, controller = lab.namespace("device"), lab.namespace("controller")
        lab.join(self.node, "198.51.100.1/24", self.internet, f"{SERVER}/24")
        lab.join(self.device, f"{DEVICE}/24", self.node, "192.0.2.1/24")
        lab.join(controller, "203.0.113.2/24", self.node, "203.0.113.1/24")
        self.node.default_route(SERVER)
        self.daemon = Daemon(home, within=controller)
        self.agent_directory = home / "node"

    def enrol_node(self) -> None:
        """As the README says."""
        directory = self.agent_directory
        directory.mkdir()
        self.daemon.cox("nodes", "add", "ams-1", "--addr", "203.0.113.1", "--region", "ams")
        gen_csr = subprocess.run([*AGENT, "gen-csr", "--config-dir", directory], check=True, capture_output=True, cwd=ROOT)
        (directory / "ams-1.csr").write_bytes(gen_csr.stdout)
        self.daemon.cox("nodes", "enroll", "ams-1", "--csr", str(directory / "ams-1.csr"), "--out", str(directory))
        (directory / "node.yaml").write_text(
            f"data_plane: {{conf_directory: {directory / 'confs'}, firewall: auto, poll_interval_s: 0.2}}\n"
        )
        self.node.spawn(
            [*AGENT, "run", "--config-dir", str(directory), "--data-plane", "wireguard"], log=directory / "agent.log"
        )

    def nodes(self) -> dict[str, Any]:
        (node,) = self.daemon.client().get("/api/nodes")
        return dict(node)

    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.client().get("/api/sessions/history")
        return found

    def look(self) -> None:
        """The controller looks at its nodes every half minute or so; a test has less patience."""
        self.daemon.client().post("/api/nodes/ams-1/look")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Lab(tmp_path / "lab") as lab:
        made = World(lab, tmp_path)
        made.daemon.start()
        try:
            yield made
        finally:
            made.daemon.kill()


def test_a_device_connects_is_seen_survives_the_controller_and_is_cut_off(world: World) -> None:
    world.enrol_node()
    node = eventually(lambda: (n := world.nodes())["link_state"] == "live" and n["in_sync"] and n, timeout=30, every=0.2)

    # A device is let in.
    keys, psk = Keys.new(), new_psk()
    peer = {
        "id": "peer_1",
        "node_id": node["id"],
        "device_id": "dev_1",
        "public_key": keys.public,
        "allowed_ips": ["10.7.0.2/32"],
        "preshared_key": psk,
    }
    device = {"id": "dev_1", "user_id": "usr_1", "name": "Anna's telephone"}
    body = {"users": [{"id": "usr_1", "name": "Anna"}], "devices": [device], "add": [peer]}
    revision = world.daemon.client().post("/api/peers", body)["revisions"][node["id"]]
    eventually(lambda: world.nodes()["applied_revision"] == revision, every=0.1)

    # It comes through, and its session is seen: who, from where, how much.
    node_key = world.nodes()["wg_public_key"]
    endpoint, allowed = "192.0.2.1:443", f"{SERVER}/32"
    world.device.wireguard("wg0", keys, "10.7.0.2/32", peer=node_key, endpoint=endpoint, psk=psk, allowed=allowed)
    assert eventually(lambda: reaches(world.device))
    (opened,) = eventually(world.sessions, every=0.1)
    assert (opened["device_id"], opened["user_id"]) == ("dev_1", "usr_1")
    assert opened["endpoint"].startswith(f"{DEVICE}:")
    assert opened["closed_at"] is None
    world.device.run("ping", "-n", "-c", "20", "-i", "0.05", "-s", "1200", SERVER)
    world.look()
    (seen,) = eventually(lambda: [s for s in world.sessions() if (s["rx_bytes"] or 0) > 20 * 1200], every=0.1)
    assert seen["tx_bytes"] > 20 * 1200
    assert world.nodes()["peers_online"] == 1

    # The controller is killed and comes back: the tunnel never noticed, and it is the same session.
    world.daemon.kill()
    assert reaches(world.device)
    world.daemon.start()
    eventually(lambda: world.nodes()["link_state"] == "live", timeout=30, every=0.2)
    assert [s["id"] for s in world.sessions()] == [opened["id"]]
    assert world.sessions()[0]["closed_at"] is None

    # Its peer is removed: not one packet more, and the session is over.
    removal = {"node_id": node["id"], "public_key": keys.public}
    revision = world.daemon.client().post("/api/peers", {"remove": [removal]})["revisions"][node["id"]]
    eventually(lambda: world.nodes()["applied_revision"] == revision, every=0.1)
    assert not reaches(world.device)
    (closed,) = eventually(lambda: [s for s in world.sessions() if s["closed_at"]], every=0.1)
    assert closed["id"] == opened["id"]
    assert closed["rx_bytes"] >= seen["rx_bytes"]


def test_a_conf_that_was_exported_lets_a_device_in_until_it_is_suspended_or_revoked(world: World) -> None:
    """As an operator does it: a user, a device, a file; the device's own tools do the rest. The node and the client here are
    plain WireGuard, so the client leaves out the lines that only AmneziaWG knows.
    """
    world.enrol_node()
    eventually(lambda: (n := world.nodes())["link_state"] == "live" and n["in_sync"], timeout=30, every=0.2)
    cox = world.daemon.cox
    cox("nodes", "endpoints", "ams-1", "192.0.2.1")
    cox("users", "add", "Anna", "--email", "anna@example.org")
    device = json.loads(cox("devices", "add", "anna@example.org", "phone", "--json"))["id"]
    assert "acknowledged by 1 node" in cox("devices", "provision", device)
    file = world.agent_directory / "phone.conf"
    cox("profiles", "export", device, "--out", str(file))
    assert file.stat().st_mode & 0o777 == 0o600

    said = dict(line.split(" = ", 1) for line in file.read_text().splitlines() if " = " in line)
    assert int(said["MTU"]) == max(1280, min(1420, 1420 - int(said["S4"])))
    tunnel = world.device.conf("wg0", file.read_text())
    assert eventually(lambda: reaches(world.device))

    cox("devices", "suspend", device)
    tunnel.connect()
    assert not reaches(world.device)
    cox("devices", "resume", device)
    tunnel.connect()
    assert eventually(lambda: reaches(world.device)), "the same keys work again"
    cox("devices", "revoke", device, "--yes")
    assert not reaches(world.device)
    tunnel.connect()
    assert not reaches(world.device)


def reaches(device: Namespace) -> bool:
    return device.pings(SERVER)
