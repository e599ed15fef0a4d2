"""A fleet file that begins with a machine: reached over SSH, set up as a node, and given to a device."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.fleet import ROOT
from tests.machines import PASSWORD, relay_file
from tests.support import eventually

FILE = """\
fleet: 1
servers:
- {{name: host-1, ssh_host: {address}, region: fra, host_key: "{host_key}"}}
nodes:
- {{name: fra-1, server: host-1, region: fra, endpoint_ips: [198.51.100.7], policy: {{isolation: true}}}}
users:
- name: Ann
  devices:
  - {{name: phone, profiles: [{{name: home, node: fra-1}}]}}
"""


def test_from_a_file_to_a_node_on_a_machine(rig, cox):
    machine = rig.machine()
    (rig.home / "cox.yaml").write_text(
        f"posture: personal\nstate_dir: ./state\nnode:\n  binary_path: {rig.agent(version='0.3.1')}\n"
    )
    cox("config", "reload")
    text = FILE.format(address=machine.address, host_key=machine.fingerprint)
    failed = cox("apply", "-f", "-", "--yes", typed=text, code=7)
    assert "not yet: add server host-1: the login with the controller's key failed" in failed and "cox ssh-key" in failed
    machine.authorized_keys.write_text(cox("ssh-key"))

    said = cox("apply", "-f", "-", "--yes", typed=text)
    assert "+ node fra-1" in said
    assert said.index("> node fra-1: under way; see: cox operations show op_") < said.rindex("+ node fra-1")
    (node,) = json.loads(cox("nodes", "list", "--json"))
    assert (node["name"], node["link_state"], node["endpoint_ips"]) == ("fra-1", "live", ["198.51.100.7"])
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text))["changes"] == []
    exported = cox("export")
    assert f"host_key: {machine.fingerprint}" in exported
    assert "server: host-1" in exported
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=exported))["changes"] == []

    for old, new, says in (
        ("name: host-1", "name: host-2", f"{machine.address} is server host-1 already"),
        ("name: fra-1", "name: fra-2", "it takes the place of node fra-1, to which profile Ann / phone / home leads"),
    ):
        renamed = text.replace(old, new).replace(old.replace("name", "server"), new.replace("name", "server"))
        renamed = renamed.replace(old.replace("name", "node"), new.replace("name", "node"))
        assert says in cox("plan", "-f", "-", "--prune", typed=renamed, code=5)
    said = cox("plan", "-f", "-", "--prune", typed="fleet: 1\nservers: []\n", code=5)
    assert "server host-1: is not in the file, and node fra-1 leads to it, of which it says nothing" in said
    there = f"fleet: 1\nservers: []\nnodes: [{{name: fra-1, control_addr: {machine.address}}}]\n"
    said = cox("plan", "-f", "-", "--prune", typed=there, code=5)
    assert "stdin:3: node fra-1: server: keeps host-1, which is not in the file" in said

    said = cox("apply", "-f", "-", "--yes", "--prune", typed="fleet: 1\nservers: []\nnodes: []\nusers: []\n")
    assert said.index("- user Ann") < said.index("- node fra-1") < said.index("- server host-1")
    assert json.loads(cox("servers", "list", "--json")) == []
    assert machine.files("/etc/systemd/system") == [] == machine.files("/usr/local/bin"), "the agent went with its node"


def test_what_cannot_be_is_refused_before_an_operation_is_begun(rig, cox):
    """One that failed is listed, also by ``cox doctor``, until somebody closes it."""
    first, second, third = rig.machine(), rig.machine(), rig.machine()
    rack = rig.add_server(first, name="rack-1")
    node = rig.deploy(rack, rig.agent(), name="n1")
    other = rig.add_server(second, name="rack-2")
    (second.path("/etc/relay") / "address").write_text(second.address)
    program = str(relay_file(rig.home / "relay"))
    deploy = f"/api/servers/{other['id']}/deploy"
    relay = rig.client.post(deploy, {"role": "relay", "name": "ferry", "binary_path": program})
    a_third = rig.add_server(third, name="rack-3")
    begun = len(rig.client.get("/api/operations"))

    add = ("servers", "add", "127.0.3.250", "--host-key", first.fingerprint)
    assert "a machine named 'rack-1' exists already" in cox(*add, "--name", "rack-1", code=5)
    assert "name: 'a/b' is not a name" in cox(*add, "--name", "a/b", code=2)
    assert "region: " in cox(*add, "--region", "x" * 65, code=2)
    new = {"ssh_host": "127.0.3.250", "accept_new_host_key": True}
    assert rig.fails("/api/servers", **new, name=" rack-2 ").status == 409
    assert "route: there is no relay with the id or name 'nobody'" in str(rig.fails("/api/servers", **new, route=["nobody"]))

    agent = {"role": "node", "binary_path": rig.agent()}
    at_third = f"/api/servers/{a_third['id']}/deploy"
    assert "a node named 'n1' exists already" in str(rig.fails(at_third, **agent, name="n1"))
    assert "the node n1 is on it already" in str(rig.fails(f"/api/servers/{rack['id']}/deploy", **agent, name="n2"))
    assert "the relay ferry listens there on TCP port 8444" in str(rig.fails(deploy, **agent, name="n3"))
    assert "route: relay ferry has no egress" in str(rig.fails(at_third, **agent, route=[relay["id"]]))
    said = cox("nodes", "add", "--server", "rack-3", "--name", "n1", "--binary", agent["binary_path"], code=5)
    assert "a node named 'n1' exists already" in said

    ferry = {"role": "relay", "binary_path": program}
    assert "a relay named 'ferry' exists already" in str(rig.fails(at_third, **ferry, name="ferry"))
    assert "name: 'a/b' is not a name" in str(rig.fails(at_third, **ferry, name="a/b"))
    assert "the relay ferry is on it already" in str(rig.fails(deploy, **ferry, name="barge"))
    assert "the node n1 listens there" in str(rig.fails(f"/api/servers/{rack['id']}/deploy", **ferry))

    assert len(rig.client.get("/api/operations")) == begun
    assert "None is under way, and none failed" in cox("operations", "list")
    assert [n["id"] for n in rig.client.get("/api/nodes")] == [node["id"]]


def test_a_machine_with_a_relay_on_it_is_not_pruned(rig, cox):
    """No file speaks of relays; it would have stopped there after everything else was removed."""
    machine = rig.machine()
    server = rig.add_server(machine, name="host-1")
    (machine.path("/etc/relay") / "address").write_text(machine.address)
    program = str(relay_file(rig.home / "relay"))
    rig.client.post(f"/api/servers/{server['id']}/deploy", {"role": "relay", "name": "ferry", "binary_path": program})
    cox("users", "add", "Ann")
    said = cox("apply", "-f", "-", "--yes", "--prune", typed="fleet: 1\nservers: []\nnodes: []\nusers: []\n", code=5)
    assert "server host-1: is not in the file, and relay ferry runs on it" in said and "cox relays remove ferry" in said
    assert "Ann" in cox("users", "list")


TWO = """\
fleet: 1
servers:
- {{name: host-1, ssh_host: {0.address}, host_key: "{0.fingerprint}"}}
- {{name: host-2, ssh_host: {1.address}, host_key: "{1.fingerprint}"}}
nodes:
- {{name: fra-1, server: host-1, endpoint_ips: [198.51.100.7]}}
- {{name: ams-1, server: host-2, endpoint_ips: [198.51.100.8]}}
paths:
- {{name: over, hops: [fra-1, ams-1]}}
users:
- name: Ann
  devices:
  - {{name: phone, profiles: [{{name: away, path: over}}]}}
"""


def test_from_machines_to_a_path_in_one_go_also_after_a_failure(rig, cox):
    """Whoever is onboarded need not be waited for; and an onboarding that failed is gone on with by the next apply."""
    machines = [rig.machine(), rig.machine()]
    config = "posture: personal\nstate_dir: ./state\nnode:\n  binary_path: {}\n"
    (rig.home / "no-agent").write_text("#!/bin/sh\nexit 3\n")
    (rig.home / "cox.yaml").write_text(config.format(rig.home / "no-agent"))
    cox("config", "reload")
    for machine in machines:
        machine.authorized_keys.write_text(cox("ssh-key"))
    text = TWO.format(*machines)
    assert "waits for" not in cox("plan", "-f", "-", typed=text)
    failed = cox("apply", "-f", "-", "--yes", typed=text, code=7)
    assert "> node fra-1: failed: " in failed and "not yet: add node ams-1: " in failed
    assert "not yet: add path over: waits for node fra-1, node ams-1\n" in failed
    assert [node["status"] for node in json.loads(cox("nodes", "list", "--json"))] == ["error", "error"]

    (rig.home / "cox.yaml").write_text(config.format(rig.agent(version="0.3.1")))
    cox("config", "reload")
    said = cox("plan", "-f", "-", typed=text)
    assert "~ node fra-1" in said and "onboarding: unfinished → done" in said and "waits for" not in said
    said = cox("apply", "-f", "-", "--yes", typed=text)
    made = said.partition("to remove")[2]
    assert max(made.index(f"\n~ node {name}\n") for name in ("fra-1", "ams-1")) < made.index("+ path over")
    assert made.index("+ path over") < made.index("/ away")
    assert json.loads(cox("paths", "list", "--json"))[0]["status"] == "active"
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text)) == {"changes": [], "drift": []}


THREE = """\
fleet: 1
servers:
{servers}nodes:
- {{name: n-0, server: host-0}}
- {{name: n-1, server: host-1}}
- {{name: n-2, server: host-2}}
users: []
"""


def three_machines(rig, cox, **options):
    """Machines that let the controller in, an agent for them, and a file that has a node on each."""
    machines = [rig.machine(**options) for _ in range(3)]
    (rig.home / "cox.yaml").write_text(
        f"posture: personal\nstate_dir: ./state\nnode:\n  binary_path: {rig.agent(version='0.3.1')}\n"
    )
    cox("config", "reload")
    key = cox("ssh-key")
    servers = ""
    for number, machine in enumerate(machines):
        machine.authorized_keys.write_text(key)
        servers += f"- {{name: host-{number}, ssh_host: {machine.address}, host_key: '{machine.fingerprint}'}}\n"
    return machines, THREE.format(servers=servers)


def configured_again(machine):
    """As this stand-in for a machine was, once a node is taken off it."""
    eventually(lambda: not machine.path("/etc/node/node.yaml").exists(), timeout=60, every=0.02)
    machine.path("/etc/node").mkdir(exist_ok=True)
    machine.configure()


def test_machines_are_set_up_and_cleared_side_by_side_and_one_that_is_away_waits_alone(rig, cox):
    machines, text = three_machines(rig, cox)
    machines[1].stop()
    said = cox("apply", "-f", "-", "--yes", typed=text, code=7)
    made = said.partition("to remove\n")[2]
    assert made.index("> node n-2: under way") < made.index("+ node n-0"), "nobody waits for another's end"
    assert made.index("> node n-0: under way") < made.index("+ node n-2")
    assert "> node n-0: start the service\n" in made and "+ node n-1" not in made
    assert f"not yet: add server host-1: {machines[1].address} port 22: Connection refused" in made
    assert "not yet: add node n-1: waits for server host-1\n" in made
    assert sorted(node["name"] for node in rig.client.get("/api/nodes")) == ["n-0", "n-2"]
    machines[1].start()
    assert "2 applied" in cox("apply", "-f", "-", "--yes", typed=text)
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text))["changes"] == []

    # Its node, and with it the machine, stays where it cannot be taken off; the other ones go.
    machines[2].stop()
    said = cox("apply", "-f", "-", "--yes", "--prune", typed="fleet: 1\nservers: []\nnodes: []\nusers: []\n", code=7)
    assert "4 applied" in said and f"not yet: remove node n-2: {machines[2].address} port 22: Connection refused" in said
    assert "cox nodes remove n-2 --forget" in said
    assert "not yet: remove server host-2: waits for node n-2, which leads to it until then" in said
    assert [s["name"] for s in rig.client.get("/api/servers")] == ["host-2"]


def test_a_machine_with_another_key_is_refused_and_the_others_are_set_up(rig, cox):
    """That is for somebody to decide, and so the exit code says."""
    machines, text = three_machines(rig, cox)
    wrong = text.replace(machines[1].fingerprint, f"SHA256:{'A' * 43}")
    said = cox("apply", "-f", "-", "--yes", typed=wrong, code=6)
    assert f"not yet: add server host-1: {machines[1].address} shows the host key {machines[1].fingerprint}" in said
    assert "4 applied" in said and "not yet: add node n-1: waits for server host-1\n" in said
    cox("apply", "-f", "-", "--yes", typed=text)

    # Once it is known, the file changes nothing of it, and nothing new is done there while there is a doubt.
    wrong = text.replace(machines[1].fingerprint, f"SHA256:{'A' * 43}").replace(
        "name: host-1,", "name: host-1, region: fra,"
    )
    cox("nodes", "remove", "n-1", "--yes")
    configured_again(machines[1])
    said = cox("apply", "-f", "-", "--yes", typed=wrong, code=6)
    assert f"    host_key: {machines[1].fingerprint} → SHA256:AAA" in said and "1 applied" in said
    assert "not yet: edit server host-1: no file changes the key that is known" in said
    assert "not yet: add node n-1: waits for server host-1\n" in said
    assert [(s["host_key"], s["region"]) for s in rig.client.get("/api/servers") if s["name"] == "host-1"] == [
        (machines[1].fingerprint, "fra")
    ]

    # The way out that it says: the machine shows what it has, and somebody who compared it decides.
    known = machines[1].fingerprint
    machines[1].new_host_key()
    wrong = text.replace(known, machines[1].fingerprint)
    way = cox("plan", "-f", "-", typed=wrong).partition("have it show its key (cox ")[2].partition(")")[0]
    assert way == f"servers add {machines[1].address} --key"
    cox(*way.split(), code=8)
    way = cox("plan", "-f", "-", typed=wrong).partition("If it was set up anew: cox ")[2].splitlines()[0]
    assert way == f"servers trust host-1 --host-key {machines[1].fingerprint}"
    cox(*way.split())
    assert "1 applied" in cox("apply", "-f", "-", "--yes", typed=wrong)
    assert json.loads(cox("plan", "-f", "-", "--json", typed=wrong))["changes"] == []


def test_with_prune_a_node_makes_room_on_its_machine_for_another(rig, cox):
    machines, text = three_machines(rig, cox)
    cox("apply", "-f", "-", "--yes", typed=text)
    before = {node["name"]: node["id"] for node in rig.client.get("/api/nodes")}
    renamed = text.replace("name: n-1,", "name: m-1,")
    said = cox("plan", "-f", "-", typed=renamed, code=5)
    assert "node n-1 is on its server already" in said and "With --prune, node n-1 is removed first" in said
    assert "makes room for node m-1; if that is the same one, first: cox nodes edit n-1 --name m-1" in cox(
        "plan", "-f", "-", "--prune", typed=renamed
    )
    machines[1].authorized_keys.write_text("")
    said = cox("apply", "-f", "-", "--prune", "--yes", typed=renamed, code=7)
    assert "not yet: add node m-1: waits for node n-1, which has its place until then\n" in said
    machines[1].authorized_keys.write_text(cox("ssh-key"))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(configured_again, machines[1])
        said = cox("apply", "-f", "-", "--prune", "--yes", typed=renamed)
    made = said.partition("to remove\n")[2]
    assert made.index("\n- node n-1\n") < made.index("> node m-1: under way") < made.index("\n+ node m-1\n")
    after = {node["name"]: node["id"] for node in rig.client.get("/api/nodes")}
    assert after.keys() == {"n-0", "m-1", "n-2"} and before["n-1"] not in after.values()
    assert after["n-0"] == before["n-0"]
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=renamed))["changes"] == []


def test_a_daemon_that_ends_meanwhile_ends_an_apply_and_the_next_one_does_the_rest(rig, cox):
    machines, text = three_machines(rig, cox, faults=True)
    machines[1].hold("os-release")
    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(cox, "apply", "-f", "-", "--yes", typed=text, code=3)
        # by then it knows of both other machines that they were taken in: their nodes come after them
        eventually(lambda: len(rig.client.get("/api/operations?kind=node.add")) == 2 and machines[1].held(), timeout=60)
        rig.controller.stop()
        said = applying.result()
    assert "no daemon answers on" in said or "went away" in said
    made = re.search(r"(\d+) changes? before that stays? made; when it is mended, apply the file again\.", said)
    assert made and int(made[1]) >= 2, said
    machines[1].go_on()
    rig.controller.start()
    goes_on = ("queued", "running")
    eventually(lambda: not any(o["state"] in goes_on for o in rig.client.get("/api/operations?open=true")), timeout=60)
    cox("apply", "-f", "-", "--yes", typed=text)
    assert json.loads(cox("plan", "-f", "-", "--prune", "--json", typed=text))["changes"] == []


def test_who_interrupts_an_apply_is_told_that_what_was_begun_goes_on(rig, cox):
    machine = rig.machine(faults=True)
    machine.authorized_keys.write_text(cox("ssh-key"))
    machine.hold("os-release")
    file = rig.home / "fleet.yaml"
    server = f"{{name: host-1, ssh_host: {machine.address}, host_key: '{machine.fingerprint}'}}"
    file.write_text(f"fleet: 1\nservers: [{server}]\n")
    command = [
        "env",
        "--default-signal=INT",  # who runs the tests in the background ignores it, and so would this
        sys.executable,
        "-m",
        "actors.main",
        "apply",
        "-f",
        str(file),
        "--yes",
        "--config",
        str(rig.home / "cox.yaml"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as applying:
        eventually(machine.held)
        applying.send_signal(signal.SIGINT)
        _, said = applying.communicate(timeout=30)
    assert applying.returncode == 1 and "what was begun on machines goes on without you" in said, said
    machine.go_on()
    eventually(lambda: [server["name"] for server in rig.client.get("/api/servers")] == ["host-1"])
    assert "The fleet is as the file says" in cox("apply", "-f", str(file), "--yes")


def test_what_would_meet_the_next_machine_as_well_stops_an_apply(rig, cox):
    """And says where, and what was done before; nothing to install is configured here."""
    machine = rig.machine()
    rig.add_server(machine, name="host-1")
    cox("users", "add", "Bea")
    text = "fleet: 1\nnodes:\n- {name: n-1, control_addr: h-1}\n- {name: n-2, server: host-1}\nusers: [{name: Cem}]\n"
    said = cox("apply", "-f", "-", "--prune", "--yes", typed=text, code=2)
    assert "- user Bea" in said and "cox: stdin:4: add node n-2: " in said
    assert "2 changes before that stay made; when it is mended, apply the file again." in said
    assert "Cem" not in cox("users", "list")


def test_machines_move_as_the_file_says(rig, cox):
    """Address, port and login; the host key that is known stays the one that counts."""
    first, second = rig.machine(), rig.machine()
    for machine, name in ((first, "host-1"), (second, "host-2")):
        rig.add_server(machine, name=name)
    node = rig.deploy(rig.client.get("/api/servers")[0], rig.agent(version="0.3.1"), name="fra-1")
    file = "fleet: 1\nservers:\n- {{name: host-1, ssh_host: {}{}}}\n- {{name: host-2, ssh_host: {}}}\n"
    as_it_is = file.format(first.address, "", second.address)
    assert json.loads(cox("plan", "-f", "-", "--json", typed=as_it_is))["changes"] == []

    moved = file.format("192.0.2.9", ", ssh_port: 2222, ssh_user: deploy, region: fra", second.address)
    said = cox("plan", "-f", "-", typed=moved)
    assert f"ssh_host: {first.address} → 192.0.2.9" in said and "ssh_port: 22 → 2222" in said
    assert f"node fra-1 on it is still reached at {first.address}: give it its new control_addr and endpoint_ips" in said
    there = moved + "nodes: [{name: fra-1, server: host-1, control_addr: 192.0.2.9, endpoint_ips: [192.0.2.9]}]\n"
    assert "is still reached" not in cox("plan", "-f", "-", typed=there)
    cox("apply", "-f", "-", "--yes", typed=moved)
    now = rig.client.get("/api/servers")[0]
    assert [now[key] for key in ("ssh_host", "ssh_port", "ssh_user", "region")] == ["192.0.2.9", 2222, "deploy", "fra"]
    assert now["host_key"] == first.fingerprint and rig.client.get("/api/nodes")[0]["id"] == node["id"]
    assert json.loads(cox("plan", "-f", "-", "--json", typed=moved))["changes"] == []
    short = file.format("192.0.2.9", "", second.address)  # what is not said stays, the port as well
    assert json.loads(cox("plan", "-f", "-", "--json", typed=short))["changes"] == []

    back = file.format(first.address, f", ssh_port: 22, host_key: '{second.fingerprint}'", second.address)
    said = cox("plan", "-f", "-", typed=back, code=5)
    assert f"server host-1: host_key: it has {first.fingerprint} and keeps it where it moves" in said
    # An address is free for another once who had it has moved, in whatever order they are in the file; exchanged it is not.
    onto = file.format("192.0.2.7", ", ssh_port: 22", "192.0.2.9, ssh_port: 2222")
    onto = "\n".join((*onto.splitlines()[:2], *reversed(onto.splitlines()[2:])))
    said = cox("apply", "-f", "-", "--yes", typed=onto)
    assert said.index("~ server host-1", said.index("to change")) < said.index("~ server host-2", said.index("to change"))
    exchanged = file.format("192.0.2.9", ", ssh_port: 2222", "192.0.2.7, ssh_port: 22")
    assert "machines exchange their addresses" in cox("plan", "-f", "-", typed=exchanged, code=5)
    held = file.format("192.0.2.9", ", ssh_port: 2222", "192.0.2.9, ssh_port: 2222").splitlines()[:3]
    assert "192.0.2.9 is server host-2 already" in cox("plan", "-f", "-", typed="\n".join(held), code=5)


def test_a_node_that_was_set_up_by_hand_gets_its_machine(rig, cox):
    """Over the command line, and by a file: then upgrades, renewals and its removal log in there."""
    machine, other = rig.machine(), rig.machine()
    server, elsewhere = rig.add_server(machine, name="host-1"), rig.add_server(other, name="host-2")
    node = rig.deploy(server, rig.agent(version="0.3.1"), name="was-1")
    rig.client.call("DELETE", f"/api/nodes/{node['id']}")  # what runs there goes on
    by_hand = rig.client.post("/api/nodes", {"name": "n1", "control_addr": machine.address})

    put = ("nodes", "edit", "n1", "--server")
    said = cox(*put, "host-2", code=5)
    assert f"n1: is reached at {machine.address}, and server host-2 is at {other.address}" in said
    assert "there is none with the id, name or address 'nowhere'" in cox(*put, "nowhere", code=4)
    assert "server: is empty" in cox(*put, "", code=2)
    said = cox("nodes", "renew", "n1", code=5)
    assert "it is on no machine that this controller can log in to" in said and "cox nodes edit n1 --server" in said
    said = cox("nodes", "add", "--server", "host-1", "--name", "another", "--binary", rig.agent("second"), code=5)
    assert "is that of node n1 already" in said and "cox nodes edit n1 --server SERVER" in said
    cox("nodes", "edit", "n1", "--server", "host-1")
    found = rig.client.get("/api/nodes/n1")
    assert (found["id"], found["server_id"], found["ssh_host"]) == (by_hand["id"], server["id"], machine.address)
    cox("nodes", "renew", "n1")
    assert rig.client.get("/api/nodes/n1")["link_state"] == "live"

    again = found | {"version": rig.client.get("/api/nodes/n1")["version"]}
    same = {key: again[key] for key in ("version", "name", "server_id")}
    assert rig.client.call("PATCH", "/api/nodes/n1", same)["server_id"] == server["id"], "as it is"
    assert "is on a machine already" in cox("nodes", "edit", "n1", "--server", "host-2", code=5)
    rig.client.post("/api/nodes", {"name": "n2", "control_addr": f"{machine.address}:9444", "public_ip": other.address})
    assert "server host-1: the node n1 is on it already" in cox("nodes", "edit", "n2", "--server", "host-1", code=5)

    file = "fleet: 1\nnodes:\n- {{name: n1, server: host-1}}\n- {{name: n2, server: {}}}\n"
    only_n2 = file.replace("- {{name: n1, server: host-1}}\n", "")
    assert "node n1 is on its server already" in cox("plan", "-f", "-", typed=only_n2.format("host-1"), code=5)
    assert "server: none → host-2" in cox("plan", "-f", "-", typed=file.format("host-2"))
    cox("apply", "-f", "-", "--yes", typed=file.format("host-2"))
    assert rig.client.get("/api/nodes/n2")["server_id"] == elsewhere["id"]
    assert json.loads(cox("plan", "-f", "-", "--json", typed=file.format("host-2")))["changes"] == []
    away = only_n2.format("'', control_addr: h")
    assert "node n2: server is 'host-2' and cannot become ''" in cox("plan", "-f", "-", typed=away, code=5)
    third = rig.machine()
    rig.add_server(third, name="host-3")
    rig.client.post("/api/nodes", {"name": "n3", "control_addr": "192.0.2.1"})
    said = cox("plan", "-f", "-", typed="fleet: 1\nnodes: [{name: n3, server: host-3}]\n", code=5)
    assert f"stdin:2: node n3: server: it is reached at 192.0.2.1, and server host-3 is at {third.address}" in said


def test_machines_have_names_of_their_own(rig, cox):
    first, second = rig.machine(), rig.machine()
    rig.add_server(first, name="rack-1")
    refused = rig.fails("/api/servers", ssh_host=second.address, password=PASSWORD, name="rack-1",
                        host_key=second.fingerprint)  # fmt: skip
    assert refused.status == 409 and "a machine named 'rack-1' exists already" in str(refused)
    assert "Accepted" not in second.log("sshd"), "nothing was sent"
    rig.add_server(second, name="rack-2")
    assert rig.fails("/api/servers", ssh_host=second.address, name="rack-1").status == 409
    assert rig.add_server(second, name="rack-3")["name"] == "rack-3"
    assert "name: rack-1" in cox("export")
