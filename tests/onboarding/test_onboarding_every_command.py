"""The line breaks at every command of every operation on a machine, forwards and on the way back.

What the commands and steps are is not written here: the host breaks the line at each command that it has not seen before,
and the steps are those of the operation. A command or a step that is added later is in it from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coxswain.onboarding.guard import guard_rules
from coxswain.onboarding.kinds import onboarding_kinds
from coxswain.onboarding.units import GUARD_FILE
from coxswain.operations import OnFailure
from coxswain.ssh import DirectDialer
from tests.machines import relay_file
from tests.onboarding.conftest import Rig
from tests.support import eventually

KINDS = {kind.name: kind for kind in onboarding_kinds(DirectDialer())}

NOT_ON_THE_HOST = {"inventory", "drain", "enable", "disable", "reach", "hops"}
"""Steps that run no command there. Of any other step, each command is broken off."""

QUIET = {"node.add": {"live", "guard"}}
"""Steps that run none where all is quick, and where there was nothing on the host, as it told."""

ROUNDS = 60


class Scene:
    """A controller, one host whose line can break, and what is on it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.machine = rig.machine(faults=True)
        self.server = rig.add_server(self.machine)
        self.machine.path("/etc/relay/address").write_text(self.machine.address)  # for the stand-in

    def node(self) -> dict[str, Any]:
        return self.rig.deploy(self.server, self.rig.agent(version="0.3.1"))

    def upgraded(self) -> dict[str, Any]:
        node = self.node()
        return self.rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": self.newer()})

    def newer(self, **more: Any) -> str:
        return self.rig.agent("newer", version="0.3.2", **more)

    def relay(self) -> dict[str, Any]:
        body = {"role": "relay", "binary_path": self.relay_file("relay"), "egress": True}
        relay: dict[str, Any] = self.rig.client.post(f"/api/servers/{self.server['id']}/deploy", body)
        return relay

    def relay_file(self, name: str, **more: Any) -> str:
        return str(relay_file(self.rig.home / name, **more))


Begin = Callable[[], dict[str, Any]]


def _node_add(scene: Scene) -> Begin:
    agent = scene.rig.agent()
    return lambda: scene.rig.begin(f"/api/servers/{scene.server['id']}/deploy", role="node", binary_path=agent)


def _node_update(scene: Scene) -> Begin:
    node, newer = scene.node(), scene.newer()
    return lambda: scene.rig.begin(f"/api/nodes/{node['id']}/update-agent", binary_path=newer)


def _on_node(verb: str, **body: Any) -> Callable[[Scene], Begin]:
    def prepare(scene: Scene) -> Begin:
        node = scene.upgraded() if verb == "rollback" else scene.node()
        if verb == "start":
            scene.rig.client.post(f"/api/nodes/{node['id']}/stop", {})
        if verb == "guard":  # from when node.control_from named somebody
            scene.machine.path(GUARD_FILE).write_text(guard_rules(8444, ["192.0.2.0/24"]))
        return lambda: scene.rig.begin(f"/api/nodes/{node['id']}/{verb}", **body)

    return prepare


def _relay_add(scene: Scene) -> Begin:
    file = scene.relay_file("relay")
    body = {"role": "relay", "binary_path": file, "egress": True, "onion": True}
    return lambda: scene.rig.begin(f"/api/servers/{scene.server['id']}/deploy", **body)


def _relay_update(scene: Scene) -> Begin:
    relay, newer = scene.relay(), scene.relay_file("newer", version="0.5.0")
    return lambda: scene.rig.begin(f"/api/relays/{relay['id']}/update-agent", binary_path=newer)


def _relay_renew(scene: Scene) -> Begin:
    relay = scene.relay()
    return lambda: scene.rig.begin(f"/api/relays/{relay['id']}/renew")


def _relay_remove(scene: Scene) -> Begin:
    relay = scene.relay()
    return lambda: scene.rig.begin(f"/api/relays/{relay['id']}/remove")


SCENES: dict[str, Callable[[Scene], Begin]] = {
    "node.add": _node_add,
    "node.update": _node_update,
    "node.renew": _on_node("renew"),
    "node.rollback": _on_node("rollback"),
    "node.guard": _on_node("guard"),
    "node.start": _on_node("start"),
    "node.stop": _on_node("stop"),
    "node.remove": _on_node("remove"),
    "relay.add": _relay_add,
    "relay.update": _relay_update,
    "relay.renew": _relay_renew,
    "relay.remove": _relay_remove,
}

ELSEWHERE = {
    "server.add": "test_the_line_breaks_at_every_step_of_taking_a_machine_in",
    "rollout": "it does nothing on hosts: each of its upgrades is a node.update",
}


def test_every_kind_of_operation_on_machines_is_in_it() -> None:
    assert SCENES.keys() | ELSEWHERE.keys() == KINDS.keys()


def until(rig: Rig, operation: dict[str, Any], state: str) -> list[str]:
    """Retries it until it is in ``state``; returns the steps at which the line broke, as far as they still say so."""
    broke_at: list[str] = []
    for _ in range(ROUNDS):
        operation = rig.over(operation)
        if operation["state"] == state:
            return broke_at
        assert operation["state"] in ("failed", "undone"), operation
        assert "the connection broke" in operation["error"] or operation["state"] == "undone", operation["error"]
        broke_at += [step["name"] for step in operation["steps"] if "the connection broke" in step["error"]]
        operation = rig.client.post(f"/api/operations/{operation['id']}/retry")
    raise AssertionError(f"still {operation['state']} after {ROUNDS} attempts: {operation['error']}")


def on_the_host(operation: dict[str, Any]) -> set[str]:
    return {step["name"] for step in operation["steps"]} - NOT_ON_THE_HOST


def left_over(scene: Scene) -> list[str]:
    """Half of what was being written when the line broke."""
    directories = ("/usr/local/bin", "/etc/node", "/etc/relay", "/etc/systemd/system", "/etc/sysctl.d")
    return [
        f"{directory}/{name}"
        for directory in directories
        if scene.machine.path(directory).exists()
        for name in scene.machine.files(directory)
        if ".cox-" in name
    ]


@pytest.mark.parametrize("name", SCENES)
def test_the_line_breaks_at_every_command(rig: Rig, name: str) -> None:
    """Before or after the command did its work. A retry goes on there, and it ends as if nothing had happened."""
    scene = Scene(rig)
    begin = SCENES[name](scene)
    scene.machine.cut_at_each()
    operation = begin()
    assert operation["kind"] == name
    broke_at = until(rig, operation, "done")
    steps = on_the_host(rig.operation(operation)) - QUIET.get(name, {"live"})
    assert scene.machine.cuts() >= len(steps)
    if KINDS[name].on_failure is OnFailure.KEEP:  # each break is one attempt, and the step that it met says so
        assert len(broke_at) == scene.machine.cuts()
        assert steps <= set(broke_at)
    assert left_over(scene) == []
    for node in rig.client.get("/api/nodes"):
        expected = "disabled" if name == "node.stop" else "live"
        rig.controller.until(node["name"], link_state=expected)


@pytest.mark.parametrize("name", [name for name in SCENES if name.endswith(".add")])
def test_the_line_breaks_at_every_command_of_the_way_back(rig: Rig, name: str) -> None:
    """What an onboarding put there is taken away again, whatever is interrupted while that is done."""
    scene = Scene(rig)
    begin = SCENES[name](scene)
    scene.machine.hold("systemctl restart (node|relay-onion)")
    operation = begin()
    eventually(scene.machine.held, timeout=40)
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    scene.machine.cut_at_each()
    until(rig, operation, "cancelled")
    assert scene.machine.cuts() >= 5
    assert left_over(scene) == []
    assert rig.client.get("/api/nodes") == [] == rig.client.get("/api/relays")
    assert scene.machine.files("/usr/local/bin") == [] == scene.machine.files("/etc/systemd/system")
    assert not {"node.key", "node.crt"} & set(scene.machine.files("/etc/node"))
