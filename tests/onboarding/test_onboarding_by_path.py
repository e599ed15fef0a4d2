"""Onboarding over relays: what logs in, and what drives the agent, comes from the last of them and from nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors import tree
from coxswain.control_path import ways
from tests.control_paths import Hop
from tests.machines import Machine
from tests.onboarding.conftest import Rig
from tests.support import eventually


@pytest.fixture
def hop(rig: Rig) -> Iterator[Callable[..., Hop]]:
    made: list[Hop] = []

    def make(name: str, *, onion: bool = False, address: str = "") -> Hop:
        one = Hop(rig.controller, rig.home / f"relay-{name}", name, onion=onion, ours=False, address=address)
        made.append(one.start())
        return one

    yield make
    for one in made:
        one.kill()


def connections(machine: Machine) -> list[str]:
    """From where sshd was connected to; first by the test, which waits for it."""
    return re.findall(r"^Connection from (\S+) port", machine.log("sshd"), re.MULTILINE)


def a_machine(rig: Rig, **options: Any) -> tuple[Machine, Callable[[], set[str]]]:
    """With what tells from where it was connected to since."""
    machine = rig.machine(**options)
    eventually(lambda: connections(machine))
    before = len(connections(machine))
    return machine, lambda: set(connections(machine)[before:])


@pytest.mark.parametrize("onion", [False, True], ids=["egress", "onion"])
def test_a_whole_life_over_relays(rig: Rig, hop: Callable[..., Hop], onion: bool) -> None:
    first, last = hop("first", onion=onion), hop("last", onion=onion)
    rig.client.post("/api/control-paths", {"name": "out", "hops": ["first", "last"]})
    rig.client.post("/api/control-paths/out/activate", {})  # no nodes yet: its hops are enough
    machine, logins = a_machine(rig)
    shown = rig.client.post("/api/servers/host-key", {"ssh_host": machine.address})
    assert shown["host_key"] == machine.fingerprint
    node = rig.node_on(machine, rig.agent(version="0.3.1"))
    assert node["link_state"] == "live"
    rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": rig.agent("newer", version="0.3.2")})
    rig.controller.until(node["id"], agent_version="0.3.2", link_state="live")
    rig.client.post(f"/api/nodes/{node['id']}/remove", {})
    assert logins() == {last.address}
    targets = {event["target"] for event in last.events("dial")}
    assert {f"{machine.address}:22", f"{machine.address}:8444"} <= targets
    assert {event["source"] for event in first.events("circuit" if onion else "session")} == {"127.0.0.1"}


def test_a_route_for_one_connection(rig: Rig, hop: Callable[..., Hop]) -> None:
    only = hop("only")
    machine, logins = a_machine(rig)
    server = rig.add_server(machine, route=["only"])
    assert logins() == {only.address}
    node = rig.deploy(server, rig.agent(), route=["only"])
    assert logins() == {only.address}
    assert node["link_state"] == "live", "whose link takes the active path: none"
    eventually(lambda: only.events("session"))


def test_a_route_that_cannot_be_taken_is_refused_and_nobody_is_dialled(rig: Rig, hop: Callable[..., Hop]) -> None:
    dead = hop("dead")
    dead.kill()
    machine, logins = a_machine(rig)
    body: dict[str, Any] = {"ssh_host": machine.address, "accept_new_host_key": True}
    assert "relay dead does not answer" in str(rig.fails("/api/servers", **body, route=["dead"]))
    assert "no relay with the id or name 'nobody'" in str(rig.fails("/api/servers", **body, route=["nobody"]))
    assert logins() == set()


def test_nobody_at_home_behind_relays_is_said(rig: Rig, hop: Callable[..., Hop]) -> None:
    hop("via")
    refused = rig.fails("/api/servers", ssh_host="127.0.3.250", accept_new_host_key=True, route=["via"])
    assert "127.0.3.250:22 was not reached by way of via" in str(refused)


def test_a_machine_that_is_a_hop_is_reached_by_the_hops_before_it(rig: Rig, hop: Callable[..., Hop]) -> None:
    """So that its relay can be restarted by an upgrade that comes over that very path."""
    machine, logins = a_machine(rig)
    first, last = hop("before"), hop("itself", address=machine.address)
    rig.client.post("/api/control-paths", {"name": "out", "hops": ["before", "itself"]})
    rig.client.post("/api/control-paths/out/activate", {})
    rig.add_server(machine)
    assert logins() == {first.address}
    assert last.events("dial") == [], "not through itself"


def test_ssh_by_a_path_that_was_left_is_cut(rig: Rig, hop: Callable[..., Hop], monkeypatch: pytest.MonkeyPatch) -> None:
    """Directly as well: who activates a path does not want to be seen any more."""
    monkeypatch.setattr(ways, "MOVE_S", 0.5)
    monkeypatch.setattr(tree, "MOVE_S", 0.5)
    machine, logins = a_machine(rig, faults=True)
    new = hop("new")
    rig.client.post("/api/control-paths", {"name": "out", "hops": ["new"]})
    server = rig.add_server(machine)
    machine.hold("os-release")
    operation = rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    eventually(machine.held)
    assert logins() == {"127.0.0.1"}
    rig.client.post("/api/control-paths/out/activate", {})
    over = rig.over(operation)
    assert over["state"] == "failed" and "the connection broke" in over["error"], over
    machine.go_on()
    rig.client.post(f"/api/operations/{operation['id']}/retry", {})
    assert rig.over(operation)["state"] == "done"
    assert logins() == {"127.0.0.1", new.address}
    rig.controller.until(rig.client.get("/api/nodes")[0]["id"], link_state="live")


@pytest.mark.parametrize("how", ["retry", "cancel"])
def test_a_hop_that_dies_in_the_middle_of_an_onboarding(rig: Rig, hop: Callable[..., Hop], how: str) -> None:
    """Nobody goes directly instead; it goes on, or back, when the hop is there again."""
    near = hop("near")
    rig.client.post("/api/control-paths", {"name": "out", "hops": ["near"]})
    rig.client.post("/api/control-paths/out/activate", {})
    machine, logins = a_machine(rig, faults=True)
    server = rig.add_server(machine)
    machine.hold("systemctl restart")
    operation = rig.begin(f"/api/servers/{server['id']}/deploy", role="node", binary_path=rig.agent())
    eventually(machine.held, timeout=40)
    near.kill()
    if how == "cancel":
        rig.client.post(f"/api/operations/{operation['id']}/cancel", {})
    machine.go_on()
    over = rig.over(operation)
    assert over["state"] == "failed", over
    rig.client.post(f"/api/operations/{operation['id']}/retry", {})
    over = rig.over(operation)
    assert (over["state"], over["direction"]) == ("failed", "forward" if how == "retry" else "back")
    assert "relay near does not answer" in over["error"]
    near.start()

    def ends() -> dict[str, Any] | None:
        """The session of the hop is dialled again after a moment only."""
        rig.client.post(f"/api/operations/{operation['id']}/retry", {})
        found = rig.over(operation)
        return None if found["state"] == "failed" else found

    over = eventually(ends, timeout=30, every=0.5) or {}
    assert over["state"] == ("done" if how == "retry" else "cancelled"), over
    assert logins() == {near.address}
    if how == "retry":
        rig.controller.until(rig.client.get("/api/nodes")[0]["id"], link_state="live")
    else:
        assert machine.files("/usr/local/bin") == [] == machine.files("/etc/systemd/system")


def test_the_way_changes_in_the_middle_of_an_upgrade(
    rig: Rig, hop: Callable[..., Hop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one path to another, to none and back: it is taken back by the new way, and nothing of it is left."""
    monkeypatch.setattr(ways, "MOVE_S", 0.5)
    monkeypatch.setattr(tree, "MOVE_S", 0.5)
    a, b = hop("a"), hop("b")
    for name in "ab":
        rig.client.post("/api/control-paths", {"name": f"by-{name}", "hops": [name]})
    rig.client.post("/api/control-paths/by-a/activate", {})
    machine, logins = a_machine(rig, faults=True)
    node = rig.node_on(machine, rig.agent(version="0.3.1"))
    newer = rig.agent("newer", version="0.3.2")
    expected = {a.address}
    for change, body, source in (
        ("by-b/activate", {}, b.address),
        ("deactivate", {"allow_direct": True}, "127.0.0.1"),
        ("by-a/activate", {}, a.address),
    ):
        machine.hold("systemctl restart")
        operation = rig.begin(f"/api/nodes/{node['id']}/update-agent", binary_path=newer)
        eventually(machine.held, timeout=40)
        rig.client.post(f"/api/control-paths/{change}", body)
        eventually(lambda o=operation: rig.operation(o)["direction"] == "back", timeout=30)  # type: ignore[misc]
        machine.go_on()
        over = rig.over(operation)
        assert over["state"] == "undone", over
        assert "the connection broke" in over["error"]
        expected.add(source)
        assert logins() == expected
        rig.controller.until(node["id"], agent_version="0.3.1", link_state="live")
    rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": newer})
    rig.controller.until(node["id"], agent_version="0.3.2", link_state="live")
