"""What breaks in the middle: the line at every command, the controller at every step. Nothing is left half forgotten."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.fleet import ROOT, Daemon
from tests.machines import PASSWORD, Machine, agent_file
from tests.support import eventually

OVER = ("done", "failed", "undone", "cancelled", "waiting")


def step_names(operation, state):
    return [step["name"] for step in operation["steps"] if step["state"] == state]


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
        at = {"login": "it was at installing the controller's key", "facts": "it was at asking what it is"}
        assert at[step_names(operation, "failed")[0]] in operation["error"], operation["error"]
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


def test_the_line_breaks_while_a_renewed_certificate_is_pushed(rig):
    """The node goes on with the old one or the new one; a half written one it never has."""
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent())
    machine.cut_at("t=/etc/node/node.crt", "t=/etc/node/ca.crt")
    operation = rig.over(rig.begin(f"/api/nodes/{node['id']}/renew"))
    assert operation["state"] == "failed", operation
    rig.controller.until(node["name"], link_state="live", in_sync=True)
    for _ in range(2):
        assert step_names(operation, "failed") == ["certificate"], operation
        assert "; it was at writing /etc/node/node.crt, /etc/node/ca.crt (" in operation["error"], operation["error"]
        operation = rig.over(rig.client.post(f"/api/operations/{operation['id']}/retry"))
    assert operation["state"] == "done", operation
    assert machine.cuts() == 2
    rig.controller.until(node["name"], link_state="live", status="active")
    assert [name for name in machine.files("/etc/node") if ".cox-" in name] == []


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

    def deploy(self):
        """A node of an older version on it."""
        (server,) = self.daemon.client().get("/api/servers")
        body = {"role": "node", "binary_path": str(agent_file(self.home / "first", version="0.3.1"))}
        return self.daemon.client().post(f"/api/servers/{server['id']}/deploy", body)

    def held_in(self, operation):
        """The step whose command waits; None: the operation is over."""

        def look():
            held, found = self.machine.held(), self.operation(operation)  # in this order: what is held stays where it is
            if found["state"] in OVER:
                return [None]
            return held and [step["name"] for step in found["steps"] if step["state"] == "running"]

        return eventually(look, timeout=60, every=0.02)[0]

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


def _onboard(killable):
    agent = str(agent_file(killable.home / "agent"))
    body = {"role": "node", "binary_path": agent}
    return lambda client, server: client.begin(f"/api/servers/{server['id']}/deploy", body)


def _upgrade(killable):
    killable.deploy()
    new = str(agent_file(killable.home / "new", version="0.3.2"))
    (node,) = killable.daemon.client().get("/api/nodes")
    return lambda client, _server: client.begin(f"/api/nodes/{node['id']}/update-agent", {"binary_path": new})


@pytest.mark.parametrize("prepare", [_onboard, _upgrade])
def test_the_controller_is_killed_at_every_step(killable, prepare):
    """SIGKILL at the first command of each step of one operation; each time it goes on by itself, and says so. Which steps
    there are is asked of the operation.
    """
    server = killable.add_server()
    begin = prepare(killable)
    killable.machine.hold_each()
    operation = begin(killable.daemon.client(), server)
    killed = []
    while (step := killable.held_in(operation)) is not None:
        if step in killed:
            killable.machine.release()
            continue
        killed.append(step)
        killable.daemon.kill()
        killable.machine.release()
        killable.daemon.start()
    over = killable.over(operation)
    assert over["state"] == "done", over
    steps = {step["name"] for step in over["steps"]} - {"inventory"}
    # A link that is quick asks nothing of the host, nor does a guard that is not wanted where there has been none.
    assert steps - {"live", "guard"} <= set(killed) <= steps
    notes = [note for note in over["notes"] if "resumed there" in note]
    for name in killed:
        assert any(f"interrupted in its step {name!r}" in note for note in notes), (name, notes)
    (node,) = killable.daemon.client().get("/api/nodes")
    assert (node["status"], node["link_state"]) == ("active", "live")
    assert "resumed" in (killable.home / "serve.log").read_text()


def test_who_follows_an_operation_is_told_what_becomes_of_it_when_the_controller_is_killed(killable):
    """And a retry of what was being taken back has come to what was wanted when all of it is."""
    machine, daemon = killable.machine, killable.daemon
    killable.add_server()
    machine.hold("systemctl restart node")
    agent = str(agent_file(killable.home / "agent"))
    command = daemon.command("nodes", "add", "--server", machine.address, "--region", "fra", "--binary", agent)
    adding = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(machine.held, timeout=40, every=0.02)
    daemon.kill()
    _, said = adding.communicate(timeout=60)
    assert adding.returncode == 3 and "resumed or undone when the daemon runs again" in said, said
    operation = {"id": re.search("op_[a-z0-9]+", said).group()}
    machine.stop()
    daemon.start()
    over = killable.over(operation)
    assert over["state"] == "failed" and "interrupted in its step 'service'; resumed there" in over["notes"]
    daemon.client().post(f"/api/operations/{operation['id']}/cancel")
    over = killable.over(operation)
    assert (over["state"], over["direction"]) == ("failed", "back")
    machine.go_on()
    machine.start()
    took = {step["name"]: step["finished_at"] for step in over["steps"]}
    daemon.cox("operations", "retry", operation["id"])
    over = killable.over(operation)
    assert over["state"] == "cancelled"
    kept = [step["name"] for step in over["steps"] if step["state"] == "kept"]
    assert "host" in kept
    assert all(step["finished_at"] == took[step["name"]] for step in over["steps"] if step["state"] == "kept")


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
