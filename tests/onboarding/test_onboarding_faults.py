"""What breaks in the middle: the line at every command, the controller at every step. Nothing is left half forgotten."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.fleet import Daemon
from tests.machines import PASSWORD, Machine, agent_file
from tests.support import eventually

OVER = ("done", "failed", "undone", "cancelled", "waiting")


def step_names(operation, state):
    return [step["name"] for step in operation["steps"] if step["state"] == state]


ONBOARDING = (
    "os-release",
    "t=/etc/sysctl.d",
    "modprobe",
    "t=/usr/local/bin/node.new",
    "node.new version",
    "mv -f /usr/local/bin/node.new",
    "gen-csr",
    "t=/etc/node/node.crt",
    "t=/etc/node/ca.crt",
    "t=/etc/systemd/system/node.service",
    "systemctl enable",
    "systemctl restart",
)


def test_the_line_breaks_at_every_step_of_an_onboarding(rig):
    """Before or after the command did its work; the pushing of the certificate is among them. A retry goes on there."""
    machine = rig.machine(faults=True)
    server = rig.add_server(machine)
    machine.cut_at(*ONBOARDING)
    operation = rig.over(rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent()))
    broke_at = until_done(rig, operation)
    assert machine.cuts() == len(ONBOARDING) == len(broke_at)
    assert {"host", "prepare", "agent", "certificate", "service"} == set(broke_at)
    (node,) = rig.client.get("/api/nodes")
    assert (node["status"], node["link_state"]) == ("active", "live")
    assert machine.files("/usr/local/bin") == ["node"]
    assert [n for n in machine.files("/etc/node") if ".cox-" in n] == []


def test_the_line_breaks_at_every_step_of_taking_a_machine_in(rig):
    """Before and after the controller's key was put there, and before and after the host told what it is."""
    machine = rig.machine(faults=True)
    breaks = ("touch .*authorized_keys|authorized_keys; touch", "authorized_keys", "os-release", "os-release")
    machine.cut_at(*breaks)
    body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
    operation = rig.over(rig.begin("/api/servers", **body))
    broke_at: list[str] = []
    while operation["state"] != "done":
        assert operation["state"] == "failed", operation
        assert "the connection broke" in operation["error"], operation["error"]
        broke_at += step_names(operation, "failed")
        again = {"password": PASSWORD} if broke_at[-1] == "login" else {}
        operation = rig.over(rig.client.post(f"/api/operations/{operation['id']}/retry", again))
    assert broke_at == ["login", "login", "facts", "facts"]
    assert machine.cuts() == len(breaks)
    assert machine.authorized_keys.read_text().count("cox@pharosvpn") == 1
    (server,) = rig.client.get("/api/servers")
    assert server["status"] == "active"


def test_the_line_breaks_at_every_step_of_an_upgrade_and_of_its_way_back(rig):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent(version="0.3.1"))
    new = rig.agent("new", version="0.3.2", dies="bad from birth")
    patterns = (
        "t=/usr/local/bin/node.new",
        "mv -f /usr/local/bin/node.new",
        "mv -f /usr/local/bin/node.previous",
        "rm -f .*node.new",
    )
    machine.cut_at(*patterns)
    operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/update-agent", binary_path=new))
    for _ in range(10):
        if operation["state"] == "undone" and "bad from birth" in operation["error"]:
            break
        operation = rig.over(rig.client.post(f"/api/operations/{operation['id']}/retry"))
    assert operation["state"] == "undone" and "bad from birth" in operation["error"], operation
    assert machine.cuts() == len(patterns)
    found = rig.controller.until(node["name"], link_state="live", agent_version="0.3.1")
    assert found["status"] == "active"
    assert machine.path("/usr/local/bin/node").read_bytes() == Path(rig.home / "agent").read_bytes()


def until_done(rig, operation):
    """Retries it until it is done; returns the steps at which the line broke."""
    broke_at: list[str] = []
    while operation["state"] != "done":
        assert operation["state"] == "failed", operation
        assert "the connection broke" in operation["error"], operation["error"]
        broke_at += step_names(operation, "failed")
        operation = rig.over(rig.client.post(f"/api/operations/{operation['id']}/retry"))
    return broke_at


def test_the_line_breaks_while_a_renewed_certificate_is_pushed(rig):
    """The node goes on with the old one or the new one; a half written one it never has."""
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent())
    machine.cut_at("t=/etc/node/node.crt", "t=/etc/node/ca.crt")
    operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/renew"))
    assert operation["state"] == "failed", operation
    rig.controller.until(node["name"], link_state="live", in_sync=True)
    assert until_done(rig, operation) == ["certificate", "certificate"]
    assert machine.cuts() == 2
    rig.controller.until(node["name"], link_state="live", status="active")
    assert [name for name in machine.files("/etc/node") if ".cox-" in name] == []


def test_the_line_breaks_while_a_node_is_removed(rig):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent())
    machine.cut_at("systemctl disable", "rm -f /etc/systemd", "rm -f /usr/local/bin/node", "find /etc/node")
    operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/remove"))
    assert until_done(rig, operation) == ["uninstall"] * 4
    assert rig.client.get("/api/nodes") == []
    assert machine.files("/usr/local/bin") == [] == machine.files("/etc/systemd/system")
    assert not machine.path("/etc/node").exists() or machine.files("/etc/node") == []


class Killable:
    """``cox serve`` as a process, and a host whose commands can be held while it is killed."""

    def __init__(self, home):
        self.home = home
        (home / "host").mkdir()
        self.machine = Machine(home / "host", "127.0.4.1", faults=True)
        self.daemon = Daemon(home)

    def __enter__(self):
        self.machine.start()
        self.daemon.start()
        return self

    def __exit__(self, *_exc):
        self.daemon.kill()
        self.machine.stop()

    def add_server(self, machine=None):
        machine = machine or self.machine
        body = {"ssh_host": machine.address, "password": PASSWORD, "host_key": machine.fingerprint}
        return self.daemon.client().post("/api/servers", body)

    def operation(self, operation):
        return self.daemon.client().get(f"/api/operations/{operation['id']}")

    def kill_at(self, pattern):
        """Kills the controller while the host carries out the command that matches, and starts it again."""
        self.machine.hold(pattern)
        return self.kill_when_held

    def kill_when_held(self):
        eventually(self.machine.held, timeout=40, every=0.02)
        self.daemon.kill()
        self.machine.go_on()
        self.daemon.start()

    def over(self, operation):
        def look():
            found = self.operation(operation)
            return found if found["state"] in OVER else None

        return eventually(look, timeout=60, every=0.1)


@pytest.fixture
def killable():
    with tempfile.TemporaryDirectory(prefix="cox-") as home, Killable(Path(home)) as made:
        yield made


AT_STEPS = {
    "host": "os-release",
    "prepare": "99-pharos.conf; trap|t=/etc/sysctl.d",
    "agent": "t=/usr/local/bin/node.new",
    "certificate": "t=/etc/node/ca.crt",
    "service": "systemctl restart node",
    "live": "systemctl is-active",
}


def test_the_controller_is_killed_at_every_step_of_an_onboarding(killable):
    """SIGKILL at one step after the other of one operation; each time it goes on by itself, and says so."""
    server = killable.add_server()
    agent = str(agent_file(killable.home / "agent"))
    kill = killable.kill_at(AT_STEPS["host"])
    operation = killable.daemon.client().begin(f"/api/servers/{server['id']}/deploy", {"role": "node", "binary_path": agent})
    rest = [pattern for name, pattern in AT_STEPS.items() if name not in ("host", "live")]
    for pattern in rest:
        killable.machine.held()
        eventually(killable.machine.held, timeout=40, every=0.02)
        killable.daemon.kill()
        killable.machine.hold(pattern)  # before the next controller goes on
        killable.daemon.start()
    kill()
    over = killable.over(operation)
    assert over["state"] == "done", over
    notes = [note for note in over["notes"] if "resumed there" in note]
    for name in ("host", "prepare", "agent", "certificate", "service"):
        assert any(f"interrupted in its step {name!r}" in note for note in notes), (name, notes)
    (node,) = killable.daemon.client().get("/api/nodes")
    assert (node["status"], node["link_state"]) == ("active", "live")
    assert "resumed" in (killable.home / "serve.log").read_text()


def test_the_controller_is_killed_in_the_middle_of_the_login_with_a_password(killable):
    """The password was in its memory only; the operation says that it is needed again."""
    kill = killable.kill_at("authorized_keys")
    body = {"ssh_host": killable.machine.address, "password": PASSWORD, "host_key": killable.machine.fingerprint}
    operation = killable.daemon.client().begin("/api/servers", body)
    kill()
    over = killable.over(operation)
    assert (over["state"], over["needs"]) == ("waiting", ["password"])
    for path in (killable.home / "state").iterdir():
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in (killable.home / "serve.log").read_text()
    killable.daemon.client().post(f"/api/operations/{operation['id']}/retry", {"password": PASSWORD})
    assert killable.over(operation)["state"] == "done"
    assert killable.machine.authorized_keys.read_text().count("cox@pharosvpn") == 1


def test_the_controller_is_killed_at_every_step_of_a_rollout(killable):
    """Resumed: the node's upgrade goes on where it was, and the rollout waits for it again."""
    server = killable.add_server()
    client = killable.daemon.client()
    first = str(agent_file(killable.home / "first", version="0.3.1"))
    node = client.post(f"/api/servers/{server['id']}/deploy", {"role": "node", "binary_path": first})
    new = str(agent_file(killable.home / "new", version="0.3.2"))
    killable.machine.hold("os-release")
    operation = killable.daemon.client().begin("/api/rollouts", {"binary_path": new, "canary": 1})
    for pattern in ("t=/usr/local/bin/node.new", "mv -f /usr/local/bin/node.new", "systemctl restart node", ""):
        eventually(killable.machine.held, timeout=40, every=0.02)
        killable.daemon.kill()
        if pattern:
            killable.machine.hold(pattern)
        else:
            killable.machine.go_on()
        killable.daemon.start()
    over = killable.over(operation)
    assert over["state"] == "done", over
    assert any("interrupted in its step 'canary'; resumed there" in note for note in over["notes"])
    (child,) = killable.daemon.client().get(f"/api/operations?parent={operation['id']}")
    assert child["state"] == "done" and len(child["notes"]) >= 3
    found = killable.daemon.client().get(f"/api/nodes/{node['id']}")
    assert (found["agent_version"], found["link_state"]) == ("0.3.2", "live")


def test_the_controller_is_killed_in_a_batch_of_a_rollout_and_on_its_way_back(killable):
    (killable.home / "other").mkdir()
    with Machine(killable.home / "other", "127.0.4.2", faults=True) as other:
        first = str(agent_file(killable.home / "first", version="0.3.1"))
        servers = [killable.add_server(), killable.add_server(other)]
        deploy = {"role": "node", "binary_path": first}
        nodes = [killable.daemon.client().post(f"/api/servers/{s['id']}/deploy", deploy)["name"] for s in servers]

        def versions():
            found = [killable.daemon.client().get(f"/api/nodes/{name}") for name in nodes]
            return [(node["agent_version"], node["link_state"]) for node in found]

        def begin(version):
            new = str(agent_file(killable.home / version, version=version))
            other.hold("systemctl restart node")
            body = {"binary_path": new, "nodes": nodes, "canary": 1, "batch": 1}
            operation = killable.daemon.client().begin("/api/rollouts", body)
            eventually(other.held, timeout=40, every=0.02)  # the canary has it; the batch is at it
            return operation

        operation = begin("0.3.2")
        killable.daemon.kill()
        other.go_on()
        killable.daemon.start()
        over = killable.over(operation)
        assert over["state"] == "done", over
        assert any("interrupted in its step 'batch-1'; resumed there" in note for note in over["notes"]), over["notes"]
        assert versions() == [("0.3.2", "live")] * 2

        operation = begin("0.3.3")
        killable.machine.hold("mv -f /usr/local/bin/node.previous")
        killable.daemon.client().post(f"/api/operations/{operation['id']}/cancel")
        other.go_on()
        killable.kill_when_held()
        over = killable.over(operation)
        assert over["state"] == "cancelled", over
        assert any("interrupted" in note for note in over["notes"]), over["notes"]
        eventually(lambda: versions() == [("0.3.2", "live")] * 2, timeout=60, every=0.1)
