"""Cascades with nothing simulated: ``cox serve`` wires ``cox-node`` processes, a device's packets leave where it is sent.

    device ── entry ── internet ── mid, exit, other
                          ├─────── controller
                          └─────── server, which sees who asks and counts by which node packets come

Each in a network namespace of its own. The controller knows the nodes by their public addresses, as it would in life.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coxswain.cli.client import Client as Api
from tests.agents import HUB_SERVER, Client, Hub, Pki, fetch, forget_all, served
from tests.fleet import ROOT, Daemon
from tests.netns import Lab
from tests.support import eventually

pytestmark = pytest.mark.netns

AGENT = [sys.executable, "-m", "coxswain.agent.main"]
NAMES = ("entry", "mid", "exit", "other")


class Fleet:
    """Four enrolled nodes and their controller."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.hub = Hub(lab, home, Pki())
        controller = lab.namespace("controller")
        lab.join(controller, "192.0.2.2/24", self.hub.internet, "192.0.2.1/24")
        controller.default_route("192.0.2.1")
        self.sites = {name: self.hub.site(name) for name in NAMES}
        self.home = home
        self.daemon = Daemon(home, within=controller)
        self._agents: dict[str, subprocess.Popen[bytes]] = {}

    def enrol(self) -> None:
        for name, site in self.sites.items():
            directory = self.home / name
            directory.mkdir(exist_ok=True)
            self.daemon.cox("nodes", "add", name, "--addr", site.address, "--region", "test")
            made = subprocess.run([*AGENT, "gen-csr", "--config-dir", directory], check=True, capture_output=True, cwd=ROOT)
            (directory / f"{name}.csr").write_bytes(made.stdout)
            self.daemon.cox("nodes", "enroll", name, "--csr", str(directory / f"{name}.csr"), "--out", str(directory))
            (directory / "node.yaml").write_text(f"data_plane: {{conf_directory: {directory / 'confs'}}}\n")
            self.run_agent(name)
            view = self.node(name)
            body = {"version": view["version"], "endpoint_ips": [site.address]}
            self.api().call("PATCH", f"/api/nodes/{name}", body)

    def run_agent(self, name: str) -> None:
        directory = self.home / name
        command = [*AGENT, "run", "--config-dir", str(directory), "--data-plane", "wireguard"]
        self._agents[name] = self.sites[name].space.spawn(command, log=directory / "agent.log")

    def fall(self, name: str) -> None:
        """As in a power cut; ``run_agent`` starts it again."""
        space = self.sites[name].space
        self._agents[name].kill()
        self._agents[name].wait(30)
        forget_all(space)
        eventually(lambda: not space.pids())

    def reboot(self, name: str) -> None:
        self.fall(name)
        self.run_agent(name)

    def api(self) -> Api:
        return self.daemon.client()

    def node(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api().get(f"/api/nodes/{name}")
        return found

    def settled(self) -> None:
        def there() -> bool:
            return all(node["link_state"] == "live" and node["in_sync"] for node in self.api().get("/api/nodes"))

        eventually(there, timeout=90, every=0.25)

    def device(self, number: int) -> tuple[str, Client]:
        """A device that the controller lets in on the entry, connected."""
        entry = self.sites["entry"]
        client = self.hub.client(entry, number)
        node = self.node("entry")
        peer = {
            "id": f"peer_{number}",
            "node_id": node["id"],
            "device_id": f"dev_{number}",
            "public_key": client.keys.public,
            "allowed_ips": [f"{client.address}/32"],
            "preshared_key": client.psk,
        }
        body = {
            "users": [{"id": "usr_1", "name": "Anna"}],
            "devices": [{"id": f"dev_{number}", "user_id": "usr_1", "name": f"device {number}"}],
            "add": [peer],
        }
        self.api().post("/api/peers", body)
        self.settled()
        entry.public_key = self.node("entry")["wg_public_key"]
        client.connect(entry)
        assert eventually(lambda: client.reaches(HUB_SERVER), timeout=30)
        return f"dev_{number}", client

    def leaves_at(self, client: Client) -> str:
        """The node by which the device's request comes to the server."""
        saw = served(self.hub.internet, b"here")
        assert client.space.call(lambda: fetch(HUB_SERVER)) == b"here"
        address = saw()
        return next((name for name, site in self.sites.items() if site.address == address), address)

    def until_leaves_at(self, client: Client, name: str) -> None:
        assert eventually(lambda: client.reaches(HUB_SERVER) and self.leaves_at(client) == name, timeout=90, every=0.5)


@contextmanager
def settled_fleet(home: Path) -> Iterator[Fleet]:
    """A daemon and its nodes, all well."""
    with Lab(home / "lab") as lab:
        made = Fleet(lab, home)
        made.daemon.start()
        try:
            made.enrol()
            made.settled()
            yield made
        finally:
            made.daemon.kill()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with settled_fleet(tmp_path) as made:
        yield made


def test_a_device_is_sent_through_paths_and_back(fleet: Fleet) -> None:
    name, device = fleet.device(1)
    other_name, other = fleet.device(2)
    assert fleet.leaves_at(device) == "entry"
    shaken = device.handshake()

    # Three hops. Whoever is not bound stays where it is.
    fleet.api().post("/api/paths", {"name": "far", "node_ids": ["entry", "mid", "exit"]})
    assert fleet.leaves_at(device) == "entry", "a path that is made moves nobody"
    fleet.api().post(f"/api/devices/{name}/bind", {"path_id": "far"})
    fleet.until_leaves_at(device, "exit")
    assert fleet.leaves_at(other) == "entry"
    assert device.handshake() == shaken, "the device has noticed nothing"

    # Another exit, live: not one packet leaves at the entry meanwhile, and next to none is lost.
    fleet.api().post("/api/paths", {"name": "near", "node_ids": ["entry", "other"]})
    fleet.hub.count()
    command = ["ping", "-n", "-i", "0.05", "-c", "200", "-W", "5", HUB_SERVER]
    running = subprocess.Popen(device.space.argv(command), stdout=subprocess.PIPE, text=True)
    fleet.api().post(f"/api/devices/{name}/bind", {"path_id": "near"})
    fleet.until_leaves_at(device, "other")
    told = running.communicate(timeout=60)[0]
    received = re.search(r"(\d+) received", told)
    assert received is not None
    assert int(received[1]) >= 196, told
    assert fleet.hub.counted(fleet.sites["entry"]) == 0
    assert device.handshake() == shaken

    # The entry reboots: the path comes back by itself, and nothing leaks before it does.
    fleet.hub.count()
    fleet.reboot("entry")
    fleet.until_leaves_at(device, "other")
    assert fleet.hub.counted(fleet.sites["entry"]) == 0
    fleet.until_leaves_at(other, "entry")
    fleet.settled()

    # Unbound it leaves at the entry; paths that are deleted leave nothing on any node.
    fleet.api().call("DELETE", f"/api/devices/{name}/bind")
    fleet.until_leaves_at(device, "entry")
    for path in fleet.api().get("/api/paths"):
        fleet.api().call("DELETE", f"/api/paths/{path['id']}")
    fleet.settled()

    def clean() -> bool:
        return all(
            not site.space.interfaces() & {"awg1", "awg2"} and "71" not in site.space.run("ip", "rule").stdout
            for site in fleet.sites.values()
        )

    assert eventually(clean, timeout=60, every=0.5)
    assert fleet.leaves_at(device) == "entry"

    # Revoked, it is out at once, and the other goes on.
    fleet.api().post("/api/peers", {"remove": [{"node_id": fleet.node("entry")["id"], "public_key": device.keys.public}]})
    assert eventually(lambda: not device.reaches(HUB_SERVER))
    assert fleet.leaves_at(other) == "entry"
    assert other_name
