"""What overlaps, is cancelled late or follows one another in unusual order, on machines with relays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from coxswain.cli.client import RemoteError
from tests.machines import Machine, relay_file
from tests.onboarding.conftest import Rig
from tests.support import eventually

INGRESS, EGRESS, ONION = 8444, 8456, 8457


def listens(machine: Machine, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((machine.address, port), 1):
        return True
    return False


class Place:
    """A machine, and relays that come and go there."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.machine = rig.machine(faults=True)
        (self.machine.path("/etc/relay") / "address").write_text(self.machine.address)
        self.server = rig.add_server(self.machine)
        self.deploy = f"/api/servers/{self.server['id']}/deploy"

    def body(self, name: str = "relay", *, dies: bool = False, **more: Any) -> dict[str, Any]:
        file = self.rig.home / name
        if not file.exists():
            relay_file(file, version=more.pop("version", "0.4.0"))
            if dies:
                text = file.read_text()
                dying = "{'run', 'egress', 'onion'} & {*sys.argv} and sys.exit(9)"
                file.write_text(text.replace("from coxswain.relay", f"{dying}\nfrom coxswain.relay"))
        return {"role": "relay", "binary_path": str(file)} | more

    def add(self, name: str = "relay", **more: Any) -> dict[str, Any]:
        relay: dict[str, Any] = self.rig.client.post(self.deploy, self.body(name, **more))
        return relay

    def begin(self, name: str = "relay", **more: Any) -> dict[str, Any]:
        return self.rig.begin(self.deploy, **self.body(name, **more))

    def cancel(self, operation: dict[str, Any]) -> dict[str, Any]:
        self.rig.client.post(f"/api/operations/{operation['id']}/cancel")
        self.machine.go_on()
        return self.rig.over(operation)

    def cancelled_at(self, pattern: str, operation: dict[str, Any]) -> dict[str, Any]:
        """``hold`` came first."""
        eventually(lambda: pattern in self.machine.held(), timeout=30)
        return self.cancel(operation)

    def relay(self) -> dict[str, Any]:
        (found,) = self.rig.client.get("/api/relays")
        return dict(found)

    def units(self) -> list[str]:
        return self.machine.files("/etc/systemd/system")


@pytest.fixture
def place(rig: Rig) -> Place:
    return Place(rig)


def test_a_role_that_a_relay_has_no_more_is_not_served_any_more(place: Place) -> None:
    place.add(egress=True, onion=True)
    eventually(lambda: all(listens(place.machine, port) for port in (INGRESS, EGRESS, ONION)), timeout=30)
    place.machine.hold("systemctl restart relay.service")
    operation = place.begin()
    over = place.cancelled_at("systemctl restart", operation)
    assert over["state"] == "cancelled", over
    assert place.units() == ["relay-egress.service", "relay-onion.service", "relay.service"]
    eventually(lambda: all(listens(place.machine, port) for port in (INGRESS, EGRESS, ONION)), timeout=30)
    found = place.relay()
    assert (found["egress"], found["onion"]) == (True, True)

    place.add()
    assert place.units() == ["relay.service"]
    eventually(lambda: not listens(place.machine, EGRESS) and not listens(place.machine, ONION), timeout=10)
    found = place.relay()
    assert (found["status"], found["egress"], found["onion"]) == ("active", False, False)


def test_of_two_onboardings_that_failed_the_later_one_is_taken_back_first(place: Place) -> None:
    place.rig.fails(place.deploy, **place.body("dying", dies=True, egress=True))
    first = place.rig.last("relay.add")
    place.rig.fails(place.deploy, **place.body("dying", onion=True, egress=True, no_ingress=True))
    second = place.rig.last("relay.add")
    refused = place.rig.fails(f"/api/operations/{first['id']}/cancel")
    assert refused.status == 409
    assert second["id"] in str(refused)
    over = place.cancel(second)
    assert over["state"] == "cancelled", over
    assert place.units() == ["relay-egress.service", "relay.service"], "as the first one left it"
    over = place.cancel(first)
    assert over["state"] == "cancelled", over
    assert place.rig.client.get("/api/relays") == []
    assert place.units() == [] == place.machine.files("/usr/local/bin")


def test_an_operation_that_was_overtaken_alarms_nobody(place: Place, cox: Callable[..., str]) -> None:
    place.rig.fails(place.deploy, **place.body("dying", dies=True))
    failed = place.rig.last("relay.add")
    assert "relay.add  " in cox("operations", "list")
    assert " failed " in cox("operations", "list")
    place.add()
    done = place.rig.last("relay.add")
    listed = cox("operations", "list")
    assert " overtaken " in listed and "failed" not in listed and "died" not in listed, listed
    assert f"{done['id']} was done since" in listed
    shown = cox("operations", "show", failed["id"])
    assert "failed, overtaken since" in shown
    assert f"Closed with: cox operations cancel {failed['id']}" in shown
    cox("operations", "cancel", failed["id"])
    assert "None is under way" in cox("operations", "list")


def test_a_failed_onboarding_can_be_closed_when_the_relay_was_forgotten(place: Place) -> None:
    place.rig.fails(place.deploy, **place.body("dying", dies=True, egress=True))
    failed = place.rig.last("relay.add")
    place.rig.client.call("DELETE", f"/api/relays/{place.relay()['id']}")
    over = place.cancel(failed)
    assert over["state"] == "cancelled", over
    assert place.units() == [] == place.machine.files("/usr/local/bin")


@pytest.mark.parametrize(
    "at",
    ["disable --now relay.service", "rm -f /etc/systemd/system/relay-egress", "disable --now relay-onion", "daemon-reload"],
)
def test_a_removal_that_is_cancelled_is_taken_back(place: Place, at: str) -> None:
    place.add(egress=True, onion=True)
    place.machine.hold(at)
    operation = place.rig.begin(f"/api/relays/{place.relay()['id']}/remove")
    over = place.cancelled_at(at, operation)
    assert over["state"] == "cancelled", over
    assert place.units() == ["relay-egress.service", "relay-onion.service", "relay.service"]
    eventually(lambda: all(listens(place.machine, port) for port in (INGRESS, EGRESS, ONION)), timeout=30)
    eventually(lambda: place.relay()["tunnel"] == "connected", timeout=30)
    assert place.relay()["status"] == "active"


@pytest.mark.parametrize("at", ["rm -f /usr/local/bin/relay", "rmdir /etc/relay"])
def test_a_removal_that_is_cancelled_too_late_says_so_and_the_relay_is_no_active_one(place: Place, at: str) -> None:
    place.add(egress=True)
    place.machine.hold(at)
    operation = place.rig.begin(f"/api/relays/{place.relay()['id']}/remove")
    over = place.cancelled_at(at, operation)
    assert over["state"] == "cancelled", over
    assert "the relay is gone from its host" in str(over["steps"])
    assert place.relay()["status"] == "error"
    place.machine.path("/etc/relay").mkdir(exist_ok=True)
    (place.machine.path("/etc/relay") / "address").write_text(place.machine.address)
    place.add(egress=True)
    assert place.relay()["status"] == "active"


def test_what_is_cancelled_while_its_policy_is_written_leaves_a_relay_that_can_read_it(place: Place) -> None:
    relay = place.add(egress=True)
    owner = place.machine.owner("/etc/relay/targets.policy")
    place.machine.hold("targets.policy")
    over = place.cancelled_at("targets.policy", place.rig.begin(f"/api/relays/{relay['id']}/renew"))
    assert over["state"] == "cancelled", over
    assert place.machine.owner("/etc/relay/targets.policy") == owner == "cox-relay 600"


def test_no_control_path_is_led_over_a_relay_that_is_being_removed(place: Place) -> None:
    relay = place.add(egress=True)
    client = place.rig.client
    path = client.post("/api/control-paths", {"name": "none", "hops": []})
    place.machine.hold("disable --now relay.service")
    removal = place.rig.begin(f"/api/relays/{relay['id']}/remove")
    eventually(place.machine.held, timeout=30)
    refused = place.rig.fails("/api/control-paths", name="late", hops=[relay["id"]])
    assert (refused.status, removal["id"] in str(refused)) == (409, True)
    with pytest.raises(RemoteError, match="is being removed"):
        client.call("PATCH", "/api/control-paths/none", {"version": path["version"], "hops": [relay["id"]]})
    place.machine.go_on()
    assert place.rig.over(removal)["state"] == "done"


def test_the_very_same_relay_goes_on_as_it_is_unless_it_is_told_otherwise_or_is_not_well(
    place: Place, cox: Callable[..., str]
) -> None:
    relay, file = place.add(egress=True), str(place.rig.home / "relay")
    units = ("relay.service", "relay-egress.service")
    started = {unit: place.machine.scratch / "pids" / unit for unit in units}

    def update(**more: Any) -> bool:
        """Whether it was started anew, which is all of it or nothing."""
        eventually(lambda: place.relay()["tunnel"] == "connected", timeout=30)
        before = {unit: path.read_text() for unit, path in started.items()}
        place.rig.client.post(f"/api/relays/{relay['id']}/update-agent", {"binary_path": file} | more)
        operation = place.rig.last("relay.update")
        said = "\n".join(step["output"] for step in operation["steps"])
        again = [path.read_text() != before[unit] for unit, path in started.items()]
        assert operation["state"] == "done" and "the very same program is there already" in said
        assert ("nothing is restarted; --force" in said) is not any(again), said
        found = place.relay()
        assert (found["status"], found["agent_version"]) == ("active", "v0.4.0")
        assert any(again) is all(again)
        return any(again)

    assert not update()
    assert update(force=True)
    assert not update()
    assert "nothing is restarted" in cox("relays", "update", relay["id"], "--binary", file)
    assert "nothing is restarted" not in cox("relays", "update", relay["id"], "--binary", file, "--force")
    an_hour_ago = time.time() - 3_600
    os.utime(started["relay-egress.service"], (an_hour_ago, an_hour_ago))
    assert update(), "what runs was started before the program was put there, and may be another one"
    unit = place.machine.path("/etc/systemd/system/relay-egress.service")
    written = unit.read_text()
    unit.write_text(written.replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    assert update() and unit.read_text() == written, "its unit is not what it should be"
    place.machine.path("/etc/relay/targets.policy").unlink()
    assert update() and "targets.policy" in place.machine.files("/etc/relay"), "it would not start again"
    os.kill(int(place.machine.status("relay-egress.service")["Pid"]), signal.SIGKILL)
    os.kill(int(place.machine.status("relay.service")["Pid"]), signal.SIGKILL)
    place.rig.client.post(f"/api/relays/{relay['id']}/update-agent", {"binary_path": file})
    assert all(listens(place.machine, port) for port in (INGRESS, EGRESS)), "it had died"


@pytest.mark.timeout(400)  # as many operations as it has commands
def test_an_upgrade_that_is_cancelled_at_any_of_its_commands_gives_the_relay_back(place: Place) -> None:
    relay = place.add(egress=True)
    place.body("newer", version="0.5.0")
    place.machine.hold_each()
    for _ in range(40):
        operation = place.rig.begin(f"/api/relays/{relay['id']}/update-agent", binary_path=str(place.rig.home / "newer"))
        eventually(lambda o=operation: place.machine.held() or place.rig.operation(o)["state"] == "done", timeout=30)  # type: ignore[misc]
        if place.rig.operation(operation)["state"] == "done":
            break
        place.rig.client.post(f"/api/operations/{operation['id']}/cancel")
        while (state := place.rig.operation(operation)["state"]) in ("running", "queued"):
            if place.machine.held():
                place.machine.release()
        assert state == "cancelled", place.rig.operation(operation)
        assert b"0.4.0" in place.machine.path("/usr/local/bin/relay").read_bytes()
        eventually(lambda: listens(place.machine, INGRESS) and listens(place.machine, EGRESS), timeout=30)
        assert place.relay()["status"] == "active"
    else:
        raise AssertionError("never done")


def test_a_relay_and_a_node_on_one_machine_leave_each_other_alone(place: Place) -> None:
    rig, machine = place.rig, place.machine
    node = rig.deploy(place.server, rig.agent())
    place.add(egress=True, no_ingress=True)
    machine.hold("systemctl restart relay-egress")
    place.body("newer", version="0.5.0")
    over = place.cancelled_at("systemctl restart", place.begin("newer", egress=True, onion=True, no_ingress=True))
    assert over["state"] == "cancelled", over
    assert place.units() == ["node.service", "relay-egress.service"]
    rig.controller.until(node["id"], link_state="live")

    machine.hold("rm -f /usr/local/bin/node")
    over = place.cancelled_at("rm -f", rig.begin(f"/api/nodes/{node['id']}/remove"))
    assert over["state"] == "cancelled", over
    eventually(lambda: machine.files("/usr/local/bin") == ["relay"], timeout=10)
    assert place.relay()["status"] == "active" and listens(machine, EGRESS)
    machine.path("/etc/node").mkdir(exist_ok=True)
    machine.configure()
    node = rig.deploy(place.server, rig.agent())
    rig.client.post(f"/api/relays/{place.relay()['id']}/remove")
    assert machine.files("/usr/local/bin") == ["node"]
    rig.controller.until(node["id"], link_state="live")


def test_a_hop_that_lost_its_keys_is_set_up_again_and_the_path_goes_on(place: Place) -> None:
    body = {"egress": True, "onion": True, "no_ingress": True}
    relay = place.add(**body)
    client = place.rig.client
    client.post("/api/control-paths", {"name": "way", "hops": [relay["id"]]})
    client.post("/api/control-paths/way/activate", {})
    behind = place.rig.machine()
    node = place.rig.node_on(behind, place.rig.agent())
    before = (place.machine.path("/etc/relay") / "onion.key").read_bytes()
    for name in ("onion.key", "relay.key"):
        (place.machine.path("/etc/relay") / name).unlink()
    place.add(**body)
    assert (place.machine.path("/etc/relay") / "onion.key").read_bytes() != before
    place.rig.controller.until(node["id"], link_state="live")
    client.post(f"/api/nodes/{node['id']}/renew")
    assert client.get("/api/status")["control_path"]["route"] == "onion"
