"""Upgrades: one node with its way back, many in batches that stop at the first failure."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support import eventually


def binary(machine):
    return machine.path("/usr/local/bin/node").read_bytes()


def test_an_upgrade_and_a_rollback(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1"))
    path = f"/api/nodes/{node['id']}"
    early = rig.fails(f"{path}/rollback")
    assert early.status == 409 and "there is no previous agent" in str(early) and "cox nodes update" in early.remedy
    assert rig.client.get("/api/operations?kind=node.rollback") == [], "refused before an operation is begun"
    upgraded = rig.client.post(f"{path}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    assert (upgraded["agent_version"], upgraded["link_state"]) == ("0.3.2", "live")
    assert machine.files("/usr/local/bin") == ["node", "node.previous"]
    refused = rig.fails(f"{path}/update-agent", binary_path=rig.agent("old2", version="0.3.2", pad=2_000))
    assert refused.status == 409 and "is not newer" in str(refused)
    back = rig.client.post(f"{path}/rollback")
    assert back["agent_version"] == "0.3.1"
    forced = rig.client.post(f"{path}/update-agent", {"binary_path": rig.agent("older", version="0.2.9"), "force": True})
    assert forced["agent_version"] == "0.2.9"


def test_a_rollback_to_what_does_not_run_is_refused_and_one_that_failed_can_be_taken_back(rig):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent("old", version="0.3.1"), name="n0")
    rollback = f"/api/nodes/{node['id']}/rollback"
    rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    there, previous = (machine.path(f"/usr/local/bin/node{suffix}") for suffix in ("", ".previous"))
    newest, started = there.read_bytes(), (machine.scratch / "pids/node.service").read_text()

    previous.write_text("#!/bin/sh\necho no >&2; exit 4\n")
    refused = rig.fails(rollback)
    assert "node.previous version) failed (exit code 4): no" in str(refused)
    assert there.read_bytes() == newest and (machine.scratch / "pids/node.service").read_text() == started
    assert rig.over(rig.client.post(f"/api/operations/{rig.last('node.rollback')['id']}/cancel"))["state"] == "cancelled"

    dying = Path(rig.agent("dying", version="0.3.0", dies="not today")).read_bytes()
    previous.write_bytes(dying)
    assert "not today" in str(rig.fails(rollback))
    failed = rig.last("node.rollback")
    assert there.read_bytes() == dying
    assert rig.over(rig.client.post(f"/api/operations/{failed['id']}/cancel"))["state"] == "cancelled"
    assert (there.read_bytes(), previous.read_bytes()) == (newest, dying)
    rig.controller.until("n0", link_state="live", agent_version="0.3.2")

    for at in (
        ".previous version",
        "mv -f /usr/local/bin/node.previous",
        "cp -p /usr/local/bin/node",
        "restart node",
    ):
        machine.hold(at)
        operation = rig.begin(rollback)
        eventually(machine.held, timeout=30)
        rig.client.post(f"/api/operations/{operation['id']}/cancel")
        machine.go_on()
        assert rig.over(operation)["state"] == "cancelled"
        assert (there.read_bytes(), previous.read_bytes()) == (newest, dying), at
        assert machine.files("/usr/local/bin") == ["node", "node.previous"]
        rig.controller.until("n0", link_state="live", agent_version="0.3.2")


def test_a_rollback_whose_taking_back_broke_off_before_the_agent_was_started_has_it_started(rig):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent("old", version="0.3.1"), name="n0")
    rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": rig.agent("new", version="0.3.2")})
    there, previous = (machine.path(f"/usr/local/bin/node{suffix}") for suffix in ("", ".previous"))
    newest = there.read_bytes()
    previous.write_bytes(Path(rig.agent("dying", version="0.3.0", dies="not today")).read_bytes())
    assert "not today" in str(rig.fails(f"/api/nodes/{node['id']}/rollback"))
    machine.cut_at("restart node")
    failed = rig.over(rig.client.post(f"/api/operations/{rig.last('node.rollback')['id']}/cancel"))
    assert (failed["state"], failed["direction"], there.read_bytes()) == ("failed", "back", newest)
    machine.go_on()
    assert rig.over(rig.client.post(f"/api/operations/{failed['id']}/retry"))["state"] == "cancelled"
    rig.controller.until("n0", link_state="live", agent_version="0.3.2")


def test_the_very_same_agent_goes_on_as_it_is_unless_it_is_told_otherwise_or_does_not_run(rig):
    machine, agent = rig.machine(), rig.agent(version="0.3.1")
    node = rig.node_on(machine, agent)
    unit = machine.path("/etc/systemd/system/node.service")
    written, started = unit.read_text(), machine.scratch / "pids/node.service"

    def update(**more):
        """What the operation said, and whether the agent was started anew."""
        rig.controller.until(node["name"], link_state="live", in_sync=True)
        before = started.read_text()
        updated = rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": agent} | more)
        assert (updated["agent_version"], updated["link_state"]) == ("0.3.1", "live")
        assert machine.files("/usr/local/bin") == ["node"] and unit.read_text() == written
        operation = rig.last("node.update")
        said = "\n".join(step["output"] for step in operation["steps"])
        assert operation["state"] == "done" and "the very same program is there already" in said
        assert ("nothing is restarted; --force" in said) is (started.read_text() == before)
        return started.read_text() != before

    assert not update()
    assert update(force=True)
    assert not update()
    an_hour_ago = time.time() - 3_600
    os.utime(started, (an_hour_ago, an_hour_ago))
    assert update(), "what runs was started before the program was put there, and may be another one"
    unit.write_text(written.replace("NoNewPrivileges=yes", "NoNewPrivileges=no"))
    assert update(), "its unit is not what it should be"
    assert not update()


def test_the_very_same_agent_is_started_where_it_has_died(rig):
    machine, agent = rig.machine(), rig.agent(version="0.3.1")
    node = rig.node_on(machine, agent)
    os.kill(int(machine.status("node.service")["Pid"]), signal.SIGKILL)
    updated = rig.client.post(f"/api/nodes/{node['id']}/update-agent", {"binary_path": agent})
    assert updated["link_state"] == "live" and machine.status("node.service")


def test_an_upgrade_where_no_agent_is_says_so_and_installs_none(rig):
    """The host was set up anew: with a program and nothing else there would be neither unit nor certificate."""
    machine, old, new = rig.machine(), rig.agent("old", version="0.3.1"), rig.agent("new", version="0.3.2")
    node = rig.node_on(machine, old)
    os.kill(int(machine.status("node.service")["Pid"]), signal.SIGKILL)
    for name in ("/usr/local/bin/node", "/etc/node/node.key", "/etc/node/node.crt", "/etc/systemd/system/node.service"):
        machine.path(name).unlink()
    for body in ({"binary_path": new}, {"binary_path": old, "force": True}):
        refused = rig.fails(f"/api/nodes/{node['id']}/update-agent", **body)
        assert refused.status == 409 and "neither /usr/local/bin/node nor its key" in str(refused)
        assert rig.last("node.update")["state"] == "undone" and machine.files("/usr/local/bin") == []
    again = rig.deploy(rig.client.get("/api/servers")[-1], new)
    assert (again["id"], again["agent_version"], again["link_state"]) == (node["id"], "0.3.2", "live")


def test_a_start_and_a_renewal_that_failed_are_over_when_a_later_one_is_done(rig, cox):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent(version="0.3.1"))
    machine.stop()
    for action in ("start", "renew", "start"):
        assert rig.fails(f"/api/nodes/{node['id']}/{action}").status == 502
    assert cox("operations", "list").count(" failed ") == 3
    machine.start()
    for action in ("renew", "start"):  # the first makes the agent's user, whom such a machine loses with its power
        rig.client.post(f"/api/nodes/{node['id']}/{action}")
    listed = cox("operations", "list")
    assert listed.count(" overtaken ") == 3 and " failed " not in listed
    rig.fails(f"/api/nodes/{node['id']}/rollback")  # there is none from before
    rig.client.post(f"/api/nodes/{node['id']}/stop")
    first, *others = [o["id"] for o in rig.client.get("/api/operations?kind=node.start&state=failed")]
    cox("operations", "cancel", first)
    assert others and rig.controller.node(node["id"])["status"] == "stopped", "an old failure is closed, and nothing is done"


def test_a_rollout_says_who_had_that_agent_already(rig):
    old, new = rig.agent("old", version="0.3.1"), rig.agent("new", version="0.3.2")
    machines = [rig.machine(), rig.machine()]
    for machine, agent, name in zip(machines, (old, new), ("n0", "n1"), strict=True):
        rig.node_on(machine, agent, name=name)
    before = (machines[1].scratch / "pids/node.service").read_text()
    done = rig.over(rig.begin("/api/rollouts", canary=0, batch=2, binary_path=new))
    said = done["steps"][0]["output"]
    assert done["state"] == "done" and "1 upgraded" in said
    assert "not upgraded, as that agent is there and runs: n1" in said
    assert (machines[1].scratch / "pids/node.service").read_text() == before


def test_what_is_stopped_stays_stopped(rig):
    old, new = rig.agent("old", version="0.3.1"), rig.agent("new", version="0.3.2")
    machines = [rig.machine(), rig.machine()]
    runs, stopped = (rig.node_on(machine, old, name=name) for machine, name in zip(machines, ("on", "off"), strict=True))
    rig.client.post("/api/nodes/off/stop")
    for action, body in (("update-agent", {"binary_path": new}), ("rollback", {}), ("renew", {})):
        refused = rig.fails(f"/api/nodes/off/{action}", **body)
        assert refused.status == 409 and "its agent would be started" in str(refused)
    assert rig.fails("/api/rollouts", nodes=["on", "off"], binary_path=new).status == 409
    done = rig.over(rig.begin("/api/rollouts", binary_path=new))
    assert done["state"] == "done" and "not upgraded, as they are stopped: off" in done["steps"][-1]["output"]
    versions = {n["name"]: n["agent_version"] for n in rig.client.get("/api/nodes")}
    assert versions == {"on": "0.3.2", "off": "0.3.1"}
    assert rig.controller.node(stopped["id"])["status"] == "stopped" and runs["id"]
    with pytest.raises(AssertionError, match="does not run"):
        machines[1].status("node.service")


def test_what_is_stopped_while_a_rollout_goes_on_is_left_out(rig):
    old, new = rig.agent("old", version="0.3.1"), rig.agent("new", version="0.3.2")
    machines = [rig.machine(faults=True), rig.machine(), rig.machine()]
    for i, machine in enumerate(machines):
        rig.node_on(machine, old, name=f"n{i}")
    machines[0].hold("t=/usr/local/bin/node.new")
    rollout = rig.begin("/api/rollouts", canary=1, batch=2, binary_path=new)
    eventually(machines[0].held, timeout=40)
    rig.client.post("/api/nodes/n1/stop")
    machines[0].go_on()
    done = rig.over(rollout)
    assert done["state"] == "done", done
    assert "stopped since the rollout began: n1" in done["steps"][-1]["output"]
    versions = {n["name"]: n["agent_version"] for n in rig.client.get("/api/nodes")}
    assert versions == {"n0": "0.3.2", "n1": "0.3.1", "n2": "0.3.2"}
    with pytest.raises(AssertionError, match="does not run"):
        machines[1].status("node.service")


def test_what_failed_does_not_start_what_was_stopped_since_when_it_is_retried(rig):
    machine = rig.machine(faults=True)
    node = rig.node_on(machine, rig.agent(), name="n0")
    machine.hold("systemctl restart")
    renewal = rig.begin("/api/nodes/n0/renew")
    eventually(machine.held, timeout=40)
    machine.cut_connections()
    assert rig.over(renewal)["state"] == "failed"
    machine.go_on()
    rig.client.post("/api/nodes/n0/stop")
    rig.client.post(f"/api/operations/{renewal['id']}/retry")
    over = rig.over(renewal)
    assert over["state"] == "failed" and "its agent would be started" in over["error"]
    assert rig.controller.node(node["id"])["status"] == "stopped"


def test_an_upgrade_whose_agent_dies_is_taken_back(rig):
    machine = rig.machine()
    node = rig.node_on(machine, rig.agent("old", version="0.3.1"))
    before = binary(machine)
    bad = rig.agent("bad", version="0.4.0", dies="illegal instruction, so to speak")
    refused = rig.fails(f"/api/nodes/{node['id']}/update-agent", binary_path=bad)
    assert refused.status == 502 and "illegal instruction" in str(refused)
    operation = rig.last("node.update")
    assert operation["state"] == "undone"
    assert binary(machine) == before
    found = rig.controller.until(node["name"], link_state="live", agent_version="0.3.1")
    assert found["status"] == "active"


def test_a_link_that_does_not_come_up_says_why(rig, monkeypatch):
    """And not only what the agent printed, which knows of nothing: another controller took it over, say."""
    monkeypatch.setattr("coxswain.onboarding.node._LIVE_S", 2.0)
    node = rig.node_on(rig.machine(), rig.agent("old", version="0.3.1"))
    rig.client.post(f"/api/nodes/{node['id']}/revoke", {"reason": "stolen"})
    failed = rig.fails(f"/api/nodes/{node['id']}/update-agent", binary_path=rig.agent("new", version="0.3.2"))
    assert "not within 2 s (no valid certificate: enrol it" in str(failed)


def test_what_is_behind_a_url_needs_its_digest(rig):
    machine = rig.machine()
    server = rig.add_server(machine)
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", url="https://127.0.0.1:9/agent")
    assert refused.status == 400 and "sha256" in str(refused)
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", url="file:///usr/bin/true", sha256="0" * 64)
    assert refused.status == 400 and "https" in str(refused)
    for url in (
        "https://127.0.0.1:9/agent",
        "http://127.0.0.1:9/agent",
    ):  # the digest counts
        refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node", url=url, sha256="0" * 64)
        assert refused.status == 502 and f"fetching {url} failed" in str(refused)
    refused = rig.fails(f"/api/servers/{server['id']}/deploy", role="node")
    assert (refused.status, refused.exit_code) == (502, 2) and "--binary" in refused.remedy


def test_a_rollout_stops_at_the_first_batch_that_fails_and_can_be_taken_back(rig):
    old, new = rig.agent("old", version="0.3.1"), rig.agent("new", version="0.3.2")
    machines = [rig.machine(), rig.machine(faults=True), rig.machine()]
    nodes = [rig.node_on(machine, old, name=f"n{i}") for i, machine in enumerate(machines)]
    machines[1].hold("t=/usr/local/bin/node.new")  # and then its line breaks
    rollout = rig.begin("/api/rollouts", nodes=["n0", "n1", "n2"], canary=1, batch=1, binary_path=new)
    eventually(machines[1].held, timeout=40)
    machines[1].cut_connections()
    rollout = rig.over(rollout)
    machines[1].go_on()
    assert rollout["state"] == "failed" and "1 of 1 were not upgraded" in rollout["error"]
    assert [s["state"] for s in rollout["steps"]] == ["done", "failed", "pending"]
    versions = {n["name"]: n["agent_version"] for n in rig.client.get("/api/nodes")}
    assert versions == {"n0": "0.3.2", "n1": "0.3.1", "n2": "0.3.1"}, "the batch after the failure was not touched"

    rig.client.post(f"/api/operations/{rollout['id']}/retry")
    rollout = rig.over(rollout)
    assert rollout["state"] == "done", rollout
    for i, machine in enumerate(machines):
        rig.controller.until(f"n{i}", agent_version="0.3.2", link_state="live")
        assert b"0.3.2" in binary(machine)

    first = rig.begin("/api/rollouts", nodes=["n0", "n2"], canary=1, batch=1, binary_path=rig.agent("v3", version="0.3.3"))
    eventually(lambda: rig.operation(first)["steps"][0]["state"] == "done", timeout=40)
    rig.client.post(f"/api/operations/{first['id']}/cancel")
    over = rig.over(first)
    assert over["state"] == "cancelled", over
    for i in (0, 2):
        rig.controller.until(f"n{i}", agent_version="0.3.2", link_state="live")
    assert [n["id"] for n in nodes]


def test_a_rollout_that_is_taken_back_leaves_alone_what_it_did_not_put_there(rig):
    v1, v2, v3 = (rig.agent(f"v{n}", version=f"0.3.{n}") for n in (1, 2, 3))
    machines = [rig.machine() for _ in range(6)]
    for i, machine in enumerate(machines):
        rig.node_on(machine, v1, name=f"n{i}")
    rig.client.post("/api/nodes/n1/update-agent", {"binary_path": v2})  # has it before the rollout
    machines[5].stop()
    nodes = [f"n{i}" for i in range(6)]
    rollout = rig.over(rig.begin("/api/rollouts", nodes=nodes, canary=5, batch=1, binary_path=v2), timeout=120)
    assert rollout["state"] == "failed", rollout
    rig.client.post("/api/nodes/n0/rollback")
    rig.client.post("/api/nodes/n2/update-agent", {"binary_path": v3})
    rig.client.post("/api/nodes/n3/stop")
    rig.client.post("/api/nodes/n4/remove")
    rig.client.post(f"/api/operations/{rollout['id']}/cancel")
    rollout = rig.over(rollout)
    assert rollout["state"] == "cancelled", rollout
    versions = {n["name"]: n["agent_version"] for n in rig.client.get("/api/nodes")}
    assert versions == {"n0": "0.3.1", "n1": "0.3.2", "n2": "0.3.3", "n3": "0.3.2", "n5": "0.3.1"}
    said = rollout["steps"][0]["output"]
    assert "n1: had that agent before" in said and "n2: has another agent since" in said and "n0: has another" in said
    assert "n3: is stopped" in said and "n4: is gone" in said and rig.controller.node("n3")["status"] == "stopped"


def test_what_was_seen_to_otherwise_since_a_rollout_failed_does_not_fail_it_again(rig):
    """A node that was upgraded by hand, further even, and one that was removed: neither can be upgraded any more."""
    v1, v2, v3 = (rig.agent(f"v{n}", version=f"0.3.{n}") for n in (1, 2, 3))
    machines = [rig.machine() for _ in range(4)]
    for i, machine in enumerate(machines):
        rig.node_on(machine, v1, name=f"n{i}")
    rig.client.post("/api/nodes/n0/update-agent", {"binary_path": v3})  # before the rollout
    for machine in machines[1:3]:
        machine.stop()
    nodes = [f"n{i}" for i in range(4)]
    rollout = rig.over(rig.begin("/api/rollouts", nodes=nodes, canary=0, batch=4, binary_path=v2))
    assert rollout["state"] == "failed" and "2 of 4 were not upgraded" in rollout["error"]
    machines[1].start()
    rig.client.post("/api/nodes/n1/renew")  # the agent's user, whom such a machine loses with its power
    rig.client.post("/api/nodes/n1/update-agent", {"binary_path": v3})
    rig.client.call("DELETE", f"/api/nodes/n2?version={rig.controller.node('n2')['version']}")
    rig.client.post(f"/api/operations/{rollout['id']}/retry")
    over = rig.over(rollout)
    assert over["state"] == "done", over
    said = over["steps"][0]["output"]
    assert "1 upgraded" in said and "a newer one by now: n0, n1" in said and "removed since: n2" in said
    assert {n["name"]: n["agent_version"] for n in rig.client.get("/api/nodes")} == {
        "n0": "0.3.3",
        "n1": "0.3.3",
        "n3": "0.3.2",
    }


def test_a_host_that_is_off_keeps_no_other_node_of_a_rollout_from_being_rolled_back(rig):
    v1, v2 = rig.agent("v1", version="0.3.1"), rig.agent("v2", version="0.3.2")
    machines = [rig.machine(), rig.machine(), rig.machine(faults=True)]
    for i, machine in enumerate(machines):
        rig.node_on(machine, v1, name=f"n{i}")
    machines[2].hold("t=/usr/local/bin/node.new")
    rollout = rig.begin("/api/rollouts", nodes=["n0", "n1", "n2"], canary=1, batch=1, binary_path=v2)
    eventually(machines[2].held, timeout=40)
    machines[1].stop()
    rig.client.post(f"/api/operations/{rollout['id']}/cancel")
    over = rig.over(rollout)
    assert over["state"] == "failed" and "1 node not rolled back; n1: " in over["error"]
    rig.controller.until("n0", agent_version="0.3.1", link_state="live")
    assert "n1: not rolled back" in over["steps"][1]["output"]
    rig.client.post(f"/api/operations/{rollout['id']}/retry")
    assert rig.over(rollout)["state"] == "failed", "it is still off"
    machines[1].start()
    rig.client.post(f"/api/operations/{rollout['id']}/retry")
    over = rig.over(rollout)
    assert over["state"] == "cancelled", over
    assert b"0.3.1" in binary(machines[1]) and b"0.3.1" in binary(machines[0])


def test_a_relay_with_all_its_roles(rig):
    from tests.machines import relay_file  # noqa: PLC0415

    machine = rig.machine()
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    server = rig.add_server(machine, region="ams")
    body = {"role": "relay", "egress": True, "onion": True, "binary_path": str(relay_file(rig.home / "relay"))}
    relay = rig.client.post(f"/api/servers/{server['id']}/deploy", body)
    assert (relay["status"], relay["agent_version"], relay["egress_hop"], relay["region"]) == ("active", "v0.4.0", 1, "ams")
    assert relay["endpoint"] == f"{machine.address}:8444" and relay["egress_endpoint"] == f"{machine.address}:8456"
    assert relay["onion"] and "onion_pubkey" not in relay, "who knows the key has a proxy"
    assert machine.files("/etc/systemd/system") == ["relay-egress.service", "relay-onion.service", "relay.service"]
    assert {"relay.key", "relay.crt", "fleet-ca.crt", "device-ca.crt", "onion.key", "targets.policy"} <= set(
        machine.files("/etc/relay")
    )
    again = rig.client.post(f"/api/servers/{server['id']}/deploy", body)
    assert again["id"] == relay["id"]
    assert rig.client.get(f"/api/relays/{relay['id']}")["tunnel"] == "connected"
    machine.path("/etc/relay/targets.policy").unlink()  # as on a host from before there were any
    newer = str(relay_file(rig.home / "relay2", version="0.5.0"))
    updated = rig.client.post(f"/api/relays/{relay['id']}/update-agent", {"binary_path": newer})
    assert updated["agent_version"] == "v0.5.0"
    eventually(lambda: rig.client.get(f"/api/relays/{relay['id']}")["tunnel"] == "connected", timeout=30)
    assert "targets.policy" in machine.files("/etc/relay"), "without which it would not have started"
    hop = rig.client.post(f"/api/relays/{relay['id']}/egress", {"hop": 3})
    assert hop["egress_hop"] == 3
    rig.client.post(f"/api/relays/{relay['id']}/remove")
    assert rig.client.get("/api/relays") == []
    assert machine.files("/etc/systemd/system") == [] and machine.files("/usr/local/bin") == []


def test_relays_that_were_onboarded_carry_a_control_path_at_once(rig):
    """They start with what is on no path, nothing, and are told what they are needed for with the first dial."""
    from tests.machines import relay_file  # noqa: PLC0415

    hops = []
    for number in range(2):
        machine = rig.machine()
        (machine.path("/etc/relay") / "address").write_text(machine.address)
        server = rig.add_server(machine)
        body = {"role": "relay", "egress": True, "no_ingress": True, "binary_path": str(relay_file(rig.home / f"r{number}"))}
        hops.append(rig.client.post(f"/api/servers/{server['id']}/deploy", body)["id"])
        eventually(lambda address=machine.address: _listens(address, 8456), timeout=30)
    rig.client.post("/api/control-paths", {"name": "p", "hops": hops})
    assert rig.client.post("/api/control-paths/p/activate", {})["active"]
    behind = rig.machine()
    assert rig.add_server(behind)["status"] == "active", "by SSH through both of them, and it is of no inventory before"
    state = rig.client.get("/api/status")["control_path"]
    assert (state["route"], state["relay_sessions"]) == ("egress", 2)
    rig.client.post("/api/control-paths/deactivate", {"allow_direct": True})
    rig.client.call("DELETE", "/api/control-paths/p")


def _listens(host, port):
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def test_a_cancelled_onboarding_of_a_relay_that_is_there_gives_it_back_as_it_was(rig):
    from tests.machines import relay_file  # noqa: PLC0415

    machine = rig.machine(faults=True)
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    server = rig.add_server(machine)
    place = f"/api/servers/{server['id']}/deploy"
    relay = rig.client.post(place, {"role": "relay", "binary_path": str(relay_file(rig.home / "relay"))})
    machine.hold("systemctl restart")
    newer = str(relay_file(rig.home / "relay2", version="0.5.0"))
    operation = rig.begin(place, role="relay", binary_path=newer)
    eventually(machine.held, timeout=30)
    rig.client.post(f"/api/operations/{operation['id']}/cancel")
    machine.go_on()
    assert rig.over(operation)["state"] == "cancelled"
    assert machine.files("/etc/systemd/system") == ["relay.service"]
    assert b"0.4.0" in machine.path("/usr/local/bin/relay").read_bytes()
    assert "relay.key" in machine.files("/etc/relay")

    dying = rig.home / "dying"
    dying.write_text(
        (rig.home / "relay2")
        .read_text()
        .replace("from coxswain.relay", "'run' in sys.argv and sys.exit(9)\nfrom coxswain.relay")
    )
    rig.fails(place, role="relay", egress=True, binary_path=str(dying))
    failed = rig.last("relay.add")
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    assert rig.over(failed)["state"] == "cancelled"
    assert b"0.4.0" in machine.path("/usr/local/bin/relay").read_bytes()
    eventually(lambda: _listens(machine.address, 8444), timeout=30)
    found = rig.client.get(f"/api/relays/{relay['id']}")
    assert (found["status"], found["egress"], found["agent_version"]) == ("active", False, "v0.4.0")
    assert machine.files("/etc/systemd/system") == ["relay.service"]
    assert [r["id"] for r in rig.client.get("/api/relays")] == [relay["id"]]

    rig.fails(place, role="relay", egress=True, binary_path=str(dying))
    failed = rig.last("relay.add")
    rig.client.call("DELETE", f"/api/relays/{relay['id']}")
    rig.client.post(f"/api/operations/{failed['id']}/cancel")
    over = rig.over(failed)
    assert over["state"] == "cancelled", over["error"]  # though what was to be given back is gone


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"onion": True}, "needs egress"),
        ({"no_ingress": True}, "without a role"),
        ({"egress": True, "egress_port": 8444}, "share a port; 8444 is that of the tunnel"),
        ({"hostname": "a.example", "endpoint": "a.example:8443"}, "share a port; 8443 is that of clients and the tunnel"),
        ({"endpoint": "other.example:8444"}, "not the hostname"),
    ],
)
def test_roles_that_do_not_fit(rig, body, says):
    machine = rig.machine()
    server = rig.add_server(machine)
    refused = rig.fails(
        f"/api/servers/{server['id']}/deploy", role="relay", url="https://x.example/r", sha256="0" * 64, **body
    )
    assert refused.status == 400 and says in str(refused)


def test_a_node_and_a_relay_share_a_machine_but_no_port(rig):
    """fleet-model.md 12 D 30: both would be at 8444."""
    from tests.machines import relay_file  # noqa: PLC0415

    machine = rig.machine()
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    node = rig.node_on(machine, rig.agent())
    (server,) = rig.client.get("/api/servers")
    place = f"/api/servers/{server['id']}/deploy"
    body = {"role": "relay", "egress": True, "binary_path": str(relay_file(rig.home / "relay"))}
    refused = rig.fails(place, **body)
    assert refused.status == 409
    assert "listens there on TCP port 8444, as the relay would" in str(refused)
    assert machine.files("/usr/local/bin") == ["node"]
    relay = rig.client.post(place, body | {"no_ingress": True})
    assert relay["status"] == "active"
    assert machine.files("/usr/local/bin") == ["node", "relay"]
    rig.controller.until(node["name"], link_state="live")

    other = rig.machine()
    (other.path("/etc/relay") / "address").write_text(other.address)
    server = rig.add_server(other)
    place = f"/api/servers/{server['id']}/deploy"
    rig.client.post(place, body)
    refused = rig.fails(place, role="node", binary_path=rig.agent())
    assert refused.status == 409
    assert "listens there on TCP port 8444, as the node would" in str(refused)
    assert [n["name"] for n in rig.client.get("/api/nodes")] == [node["name"]]
